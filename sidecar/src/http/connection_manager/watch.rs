//! The timeouts of a connection: what hyper does not know of when it ends.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use crate::http::timeout::{Timer, earlier};

/// Longest time for a request's head to arrive, from its first byte, where nothing is configured: a slow client must not
/// hold a connection.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a client may leave what we send unread while nothing moves, where streams have no idle timeout.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) enum Action {
    /// End with the response under way.
    Drain,
    /// End now.
    Cut,
}

/// The timeouts of a connection, with one timer for all of them.
pub(super) struct Watch<'a> {
    connection: &'a Connection,
    timer: Timer,
    began: Instant,
    /// First byte of a head that is not complete.
    head_since: Option<Instant>,
    /// When draining is over, for an idle connection.
    pub(super) drain: Option<Instant>,
    /// When hyper was told to end the connection.
    pub(super) shutting_down_since: Option<Instant>,
    blocked_since: Option<(Instant, u64)>,
    drained_by_age: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(connection: &'a Rc<Connection>) -> Self {
        Self {
            connection,
            timer: Timer::new(&connection.local.timers),
            began: Instant::now(),
            head_since: None,
            drain: None,
            shutting_down_since: None,
            blocked_since: None,
            drained_by_age: false,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, http2: bool) -> Poll<Action> {
        let connection = self.connection;
        let config = &connection.manager.config;
        let meter = &connection.meter;
        let idle = connection.active.get() == 0;

        let in_head = idle && !http2 && connection.has_begun_a_head();
        let head = in_head.then(|| {
            let since = *self.head_since.get_or_insert_with(Instant::now);
            since + config.request_headers_timeout.unwrap_or(HEADERS_TIMEOUT)
        });
        if !in_head {
            self.head_since = None;
        }

        let idle_deadline = match self.shutting_down_since {
            // A client that does not take its leave is not waited for.
            Some(since) => idle.then(|| since + config.drain_timeout),
            None => config
                .idle_timeout
                .filter(|_| idle && !in_head)
                .map(|limit| connection.idle_since.get() + limit),
        };

        let sent = meter.sent.load(Relaxed);
        if !meter.blocked.load(Relaxed) {
            self.blocked_since = None;
        } else if self.blocked_since.is_none_or(|(_, before)| before != sent) {
            self.blocked_since = Some((Instant::now(), sent));
        }
        let blocked_limit = config.stream_idle_timeout.unwrap_or(BLOCKED_TIMEOUT);
        let blocked = self.blocked_since.map(|(since, _)| since + blocked_limit);

        let age = config
            .max_connection_duration
            .filter(|_| !self.drained_by_age)
            .map(|limit| self.began + limit);

        let deadline =
            earlier(earlier(head, idle_deadline), earlier(blocked, earlier(age, self.drain)));
        std::task::ready!(self.timer.poll(cx, deadline));

        let now = Instant::now();
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let stats = connection.stats();
        Poll::Ready(if passed(head) {
            stats.downstream_rq_header_timeout.inc();
            Action::Cut
        } else if passed(blocked) {
            stats.downstream_rq_idle_timeout.inc();
            Action::Cut
        } else if passed(idle_deadline) {
            if self.shutting_down_since.is_some() {
                return Poll::Ready(Action::Cut);
            }
            stats.downstream_cx_idle_timeout.inc();
            Action::Drain
        } else {
            if passed(age) {
                self.drained_by_age = true;
                stats.downstream_cx_max_duration_reached.inc();
            }
            Action::Drain
        })
    }
}
