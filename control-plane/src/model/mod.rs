//! The kinds of the mesh.
//!
//! Reading order:
//! - [`mesh`], [`service`], [`route`], [`policy`], [`gateway`], [`endpoint`]: one kind a file, as typed values. A value of
//!   these types is valid in itself; what it refers to is checked when a [`Config`] is made of it.
//! - [`object`]: [`Kind`], and [`Object`], any of them.
//! - [`config`]: [`Config`], every object at one revision. Immutable, cheap to clone; what `translate` works from.
//! - [`read`]: documents to objects, with every problem at once; [`problem`], one of them.
//! - [`plan`]: documents and a configuration, to the configuration that would result, if it is consistent;
//!   [`references`], what refers to what; [`lint`], what works but perhaps not as meant; [`verdict`],
//!   what policies make of a request; [`changes`], the fields in which
//!   two documents differ.
//! - [`duration`]: `500ms`, `30s`, `5m`, `24h`.

pub mod changes;
pub mod config;
pub mod duration;
pub mod endpoint;
pub mod gateway;
pub mod lint;
pub mod mesh;
pub mod object;
pub mod plan;
pub mod policy;
pub mod problem;
pub mod read;
mod references;
pub mod route;
pub mod service;
pub mod verdict;

pub use config::Config;
pub use endpoint::Endpoint;
pub use gateway::Gateway;
pub use mesh::Mesh;
pub use object::{Kind, Labels, Object};
pub use policy::Policy;
pub use problem::Problem;
pub use route::Route;
pub use service::Service;
