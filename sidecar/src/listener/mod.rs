//! Listeners: from a socket that accepts to the filter chain that takes a connection.

pub(crate) mod filter_chain;
pub(crate) mod tls_inspector;
