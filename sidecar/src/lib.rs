//! The data plane.
#[allow(dead_code, unused_imports)] // until workers log with it
mod access_log;
#[allow(dead_code, unused_imports)] // until the server starts it
mod admin;
pub mod cli;
#[allow(dead_code, unused_imports)] // until workers choose endpoints with it
mod cluster;
pub mod config;
#[allow(dead_code)] // until the server starts workers
mod copy;
#[allow(dead_code)] // until the server starts workers
mod drain;
#[allow(dead_code)] // until the workers run it
mod http;
#[allow(dead_code)] // until the workers run it
mod listener;
#[allow(dead_code)] // until the server starts workers
mod local;
#[allow(dead_code)] // until the server calls it
mod logging;
#[allow(dead_code)] // until the server starts a member
mod mesh;
mod server;
#[allow(dead_code)] // until the workers read it
mod snapshot;
#[allow(dead_code, unused_imports)] // until clusters and workers count with it
mod stats;
#[allow(dead_code)] // until the server starts workers
mod tcp_proxy;
#[allow(dead_code, unused_imports)] // until the listener and the connection pools use it
mod tls;
#[allow(dead_code)] // until the workers run it
mod transport;
#[allow(dead_code)] // until the server starts workers
mod upstream;
#[allow(dead_code)] // until the server starts workers
mod worker;
#[allow(dead_code, unused_imports)] // until the server starts it
mod xds;
