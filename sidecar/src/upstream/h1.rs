//! HTTP/1 connections to an endpoint: each serves one request at a time.

use std::rc::Rc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{ConnectionFacts, Failure, RequestBody};
use crate::cluster::{Cluster, Endpoint};
use crate::transport::Transport;

/// Bytes of a response's header section where nothing is configured.
const DEFAULT_HEAD: usize = 60 * 1024;
/// Most bytes that are read ahead of a slow client, or written behind a slow server.
const MAX_BUFFER: usize = 128 * 1024;

/// A connection that is not serving a request at the moment, or is about to.
pub(crate) struct Connection<B> {
    /// Where requests go in.
    pub(crate) sender: SendRequest<B>,
    /// For logs.
    pub(crate) facts: Rc<ConnectionFacts>,
    /// Requests so far.
    pub(crate) requests: u32,
    /// The age of the pool when it was made: it serves no further request in another.
    pub(crate) age: u32,
    /// Since when it exists.
    pub(crate) opened: Instant,
    /// Since when it has nothing to do.
    pub(crate) idle_since: Instant,
}

/// Speaks HTTP/1 over a connection: what requests go into, and what has to be polled for them to get anywhere.
///
/// # Errors
/// If hyper refuses the connection.
pub(crate) async fn handshake<B: RequestBody>(
    transport: Transport,
    cluster: &Cluster,
    endpoint: &Endpoint,
) -> Result<(Connection<B>, impl Future<Output = hyper::Result<()>> + use<B>), Failure> {
    let mut builder = http1::Builder::new();
    let config = &cluster.config;
    let head = config.max_response_headers_bytes as usize;
    // The head of a response is read into the same buffer.
    let least = if head > DEFAULT_HEAD { head } else { 0 };
    builder
        .max_buf_size(config.per_connection_buffer_limit.clamp(16 * 1024, MAX_BUFFER).max(least));
    builder.max_header_size(head);
    if config.http1.proper_case {
        builder.title_case_headers(true);
    }
    // hyper allocates for any number but its default, which is Envoy's default too.
    if config.max_response_headers_count != 100 {
        builder.max_headers(config.max_response_headers_count);
    }
    let facts = Rc::new(ConnectionFacts::of(&transport, endpoint));
    let (sender, connection) = builder
        .handshake(TokioIo::new(transport))
        .await
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let now = Instant::now();
    let connection_state =
        Connection { sender, facts, requests: 0, age: 0, opened: now, idle_since: now };
    Ok((connection_state, connection.with_upgrades()))
}
