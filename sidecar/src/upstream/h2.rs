//! HTTP/2 connections to an endpoint: each serves many requests at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{ConnectionFacts, Failure, RequestBody};
use crate::cluster::{Cluster, Endpoint};
use crate::transport::Transport;

/// Most bytes of request bodies that wait for the endpoint's window, per stream.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// A connection, shared by its requests.
pub(crate) struct Connection<B> {
    /// Where requests go in.
    pub(crate) sender: RefCell<SendRequest<B>>,
    /// For logs.
    pub(crate) facts: Rc<ConnectionFacts>,
    /// Requests under way.
    pub(crate) active: Cell<u32>,
    /// Requests so far.
    pub(crate) requests: Cell<u32>,
    /// Streams that the endpoint allows at once.
    pub(crate) allowed: Cell<u32>,
    /// The endpoint takes extended CONNECT (RFC 8441). Known after its first SETTINGS.
    pub(crate) extended_connect: Cell<bool>,
    /// Takes no more requests; it ends when those under way do.
    pub(crate) draining: Cell<bool>,
    /// Since when it exists.
    pub(crate) opened: Instant,
    /// Since when it has nothing to do.
    pub(crate) idle_since: Cell<Instant>,
    /// Wakes the task that drives it.
    driver: RefCell<Option<Waker>>,
}

impl<B> Connection<B> {
    /// Whether one more request fits, given the cluster's own limit.
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        !self.draining.get()
            && self.active.get() < self.allowed.get().min(limit)
            && self.sender.borrow().is_ready()
    }

    /// Whether the endpoint takes extended CONNECT: waits for its SETTINGS, which a new connection may not have seen yet.
    pub(crate) async fn takes_extended_connect(&self) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        const LOOKS: u32 = 100;
        for _ in 0..LOOKS {
            if self.extended_connect.get() || self.draining.get() {
                break;
            }
            // The driver learns of SETTINGS only when it is polled.
            let driver = self.driver.borrow_mut().take();
            driver.into_iter().for_each(Waker::wake);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.extended_connect.get()
    }

    /// Whether nothing can be sent on it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }
}

/// Speaks HTTP/2 over a connection: what requests go into, and what has to be polled for them to get anywhere.
///
/// # Errors
/// If the endpoint does not speak HTTP/2.
pub(crate) async fn handshake<B: RequestBody>(
    transport: Transport,
    cluster: &Cluster,
    endpoint: &Endpoint,
) -> Result<(Rc<Connection<B>>, impl Future<Output = ()> + use<B>), Failure> {
    let options = &cluster.config.http2;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .max_header_list_size(cluster.config.max_response_headers_bytes)
        .header_table_size(options.header_table_size)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_concurrent_reset_streams(64);
    if let Some((interval, timeout)) = options.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    let facts = Rc::new(ConnectionFacts::of(&transport, endpoint));
    let (sender, driver) = builder
        .handshake(TokioIo::new(transport))
        .await
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let now = Instant::now();
    let connection = Rc::new(Connection {
        sender: RefCell::new(sender),
        facts,
        active: Cell::new(0),
        requests: Cell::new(0),
        allowed: Cell::new(u32::MAX),
        extended_connect: Cell::new(false),
        draining: Cell::new(false),
        opened: now,
        idle_since: Cell::new(now),
        driver: RefCell::new(None),
    });
    let shared = Rc::clone(&connection);
    let drive = async move {
        let mut driver = pin!(driver);
        let ended = poll_fn(|cx| {
            let polled = driver.as_mut().poll(cx);
            shared
                .allowed
                .set(u32::try_from(driver.current_max_send_streams()).unwrap_or(u32::MAX));
            shared.extended_connect.set(driver.is_extended_connect_protocol_enabled());
            if polled.is_pending() {
                *shared.driver.borrow_mut() = Some(cx.waker().clone());
            }
            polled
        })
        .await;
        shared.draining.set(true);
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream HTTP/2 connection ended");
        }
    };
    Ok((connection, drive))
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
