//! The data plane.
pub mod config;
#[allow(dead_code, unused_imports)] // until the listener and the connection pools use it
mod tls;
