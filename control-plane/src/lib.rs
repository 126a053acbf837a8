//! The control plane: takes what people want of the mesh, and serves it to sidecars as xDS.
//!
//! # Layout
//! In the order in which a change travels, from a document somebody applies to the acknowledgement of the last sidecar:
//! - [`cli`], [`server`]: arguments (and `logging`); what is bound, opened and started, in which order, and how it ends.
//! - [`model`]: the kinds of the mesh, read and validated with every problem at once; [`model::Config`], all objects at
//!   one revision.
//! - [`store`]: where they live: transactions, revisions, history, watching.
//! - [`api`]: the REST interface over both.
//! - [`identity`]: certificate authority, join tokens, certificate requests.
//! - [`registry`]: live sidecars, their leases, and what they observe.
//! - [`translate`]: a configuration and the live instances, to the xDS resources one workload needs. Pure functions.
//! - [`discovery`]: the xDS servers, their subscriptions and versions, and the status that acknowledgements add up to.
//!
//! And beside that way:
//! - [`inject`]: how sidecars come to stand beside the services of a compose file.

pub mod api;
pub mod cli;
pub mod discovery;
pub mod identity;
pub mod inject;
mod logging;
pub mod model;
pub mod registry;
pub mod server;
pub mod store;
pub mod translate;
