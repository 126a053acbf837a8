//! The xDS servers: subscriptions, versions, push order, and the status acknowledgements add up to.
//!
//! Reading order:
//! - `resource_type`, `cache`: what can be served. A resource is encoded once, and shared by all streams.
//! - `subscription`, with its two variants `sotw` and `delta`: the rules of one type on one stream, without I/O.
//! - `ordering`, `stream`: the types of one stream together; what may be sent now.
//! - `hub`: what there is to see now, and who is connected to see it.
//! - `ads`, `wire`: the services, and responses as bytes.
//! - `status`: acknowledgements, added up; `effect`: what another configuration would change.
//! - `server`: [`start`], which puts the live side of the control plane on its ports.

mod ads;
mod cache;
mod delta;
mod effect;
mod hub;
mod ordering;
mod resource_type;
mod server;
mod sotw;
mod status;
mod stream;
mod subscription;
mod wire;

pub(crate) use hub::Hub;
pub use server::{LiveSide, Options, StartError, start};
pub(crate) use status::TrustUptake;

pub(crate) use cache::{
    Names, ObjectName, Resource, ResourceMap, TypeView, View, content_hash, put_bytes_field,
};
pub(crate) use resource_type::ResourceType;

#[cfg(test)]
pub(crate) mod tests;
