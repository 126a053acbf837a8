//! The admin interface: Envoy's paths and shapes, on the control thread.
//!
//! - [`server`]: accepts connections, refuses what a browser could be tricked into, routes;
//! - [`query`]: what is asked of the control thread, which owns the answers;
//! - [`status`]: the state of the process, and the gauges of `server.`;
//! - one file for each group of paths: [`stats`], [`clusters`], [`listeners`], [`config_dump`], [`certs`], [`info`];
//! - [`client_status`]: what is known of each discovered resource, over gRPC.

mod certs;
mod client_status;
mod clusters;
mod config_dump;
mod info;
mod listeners;
mod query;
mod reply;
mod runtime;
mod server;
mod stats;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use info::Info;
pub(crate) use query::{
    ClusterStatus, Command, DumpEntry, DumpError, Dumped, ListenerStatus, Missing, Query,
    ResourceState, RuntimeStatus, Unready,
};
pub(crate) use server::{Admin, serve};
pub(crate) use status::{State, Status};
