//! The data plane: a proxy that takes its configuration from an Envoy bootstrap or from a control plane, over xDS v3.
//!
//! # Life of a request
//!
//! One request stays on one core. What it meets, in this order:
//!
//! 1. `worker`: one core: a runtime, listening sockets, connections to endpoints, all its own (`local`). It reads the
//!    configuration from one immutable `snapshot`, which the control thread swaps whole.
//! 2. `listener`: accepts; reads the first bytes where a chain depends on them; chooses the filter chain; makes the TLS
//!    handshake (`tls`). A chain ends in `http` or in `tcp_proxy`.
//! 3. `http::connection_manager`: which version of HTTP, its limits, how the connection ends (`drain`). Each request goes to
//! 4. `http::router`: **the function.** It brings the request into its canonical form (`http::headers`, `http::path`), finds
//!    its route (`http::route_table`), runs the filters (`http::filters`), and does what the route says: as a rule
//! 5. choose an endpoint of a `cluster`, take a connection to it from the pool (`upstream`), send, and try again where the
//!    route allows it (`http::retry`).
//! 6. `http::upstream_body`: the response on its way back, with what ends with it: the connection's place in the pool, the
//!    counts (`stats`), the line in the log (`access_log`, of what `log_facts` finds).
//!
//! On this way nothing is locked, no count is shared but those that balance load, nothing is looked up by name, and one
//! allocation is ours.
//!
//! # Around it
//!
//! - `config`: what Envoy's protos become: values that are right, or rejections that name their field;
//! - `on_demand`: what a request may have to wait for, because it is not known yet;
//! - `xds`: from a control plane to resources that are complete and may take effect;
//! - `server`: the control thread, which starts, publishes and ends all this; `admin`: what it tells operators; `apart`:
//!   how both do what takes much memory for a moment.
mod access_log;
mod admin;
mod apart;
pub mod cli;
mod cluster;
pub mod config;
mod copy;
mod drain;
mod http;
pub mod jwt;
mod listener;
mod local;
mod log_facts;
mod logging;
mod mesh;
mod on_demand;
mod server;
mod snapshot;
mod stats;
mod tcp_proxy;
mod tls;
mod trace;
mod transport;
mod upstream;
mod worker;
mod xds;
