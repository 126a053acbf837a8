//! A configuration and the live instances, to the xDS resources that one kind of client needs. Pure functions.
//!
//! Reading order:
//! - `world`: which resources there are, for whom; what is computed again after a change.
//! - `cluster`, `endpoint`, `listener` and `inbound`, `route` and `rule`, `tls` (with the one secret): one resource type a
//!   file, or a part of one.
//! - `policy`, `http`: RBAC filters and connection managers within listeners.
//! - `names`, `proto`: names of resources; short ways to write protos.

mod cluster;
mod endpoint;
mod http;
mod inbound;
mod listener;
pub(crate) mod names;
mod policy;
mod proto;
mod route;
mod rule;
mod tls;
mod world;

pub(crate) use world::{Inputs, ViewKey, World};

#[cfg(test)]
mod tests;
