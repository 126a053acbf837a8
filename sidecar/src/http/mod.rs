//! HTTP: from a connection to its requests, and from a request to its response.
//!
//! In the order in which a request meets them:
//! - [`connection_manager`]: the connection: version of HTTP, limits, how it ends;
//! - [`router`]: the function: accept, route, filters, forward, respond;
//! - [`headers`] with [`head_tap`], [`path`]: the form that everything behind sees;
//! - [`route_table`], [`matching`]: which route takes a request;
//! - [`filters`]: what may refuse it on the way;
//! - [`hash_policy`]: what the choice of an endpoint may depend on;
//! - [`rewrite`], [`mutations`]: what its route changes;
//! - [`retry`], [`attempt`], [`replay`]: trying, and trying again, within [`limits`] by [`timeout`], as [`asked`] for;
//! - [`mirror`]: copies for others;
//! - [`body`], [`upstream_body`], and [`tunnel`] by [`upgrade`] or [`connect`]: what flows after the head;
//! - [`local_reply`] with [`reply_mapper`], [`failures`]: every response that we make ourselves;
//! - [`exchange`], [`tracing`]: what is counted, logged and traced of all this.

mod asked;
mod attempt;
pub(crate) mod body;
pub(crate) mod call;
mod connect;
pub(crate) mod connection_manager;
mod exchange;
mod failures;
pub(crate) mod filters;
pub(crate) mod grpc_call;
mod hash_policy;
mod head_tap;
mod headers;
mod limits;
mod load_report;
mod local_reply;
mod matching;
mod mirror;
mod mutations;
mod path;
pub(crate) mod pipe;
mod query;
mod replay;
pub(crate) mod reply_mapper;
mod retry;
mod rewrite;
mod route_table;
mod router;
mod stream_state;
pub(crate) mod timeout;
pub(crate) mod tracing;
mod tunnel;
mod upgrade;
mod upstream_body;

pub(crate) use route_table::RouteTable;
