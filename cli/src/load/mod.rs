//! An open-loop load generator: requests start on schedule whether or not earlier ones are done, and latency counts from
//! the scheduled start, so that a slow server cannot hide behind the requests it kept from being sent.
//!
//! [`Load`] is running load; what it has seen can be read at any time: [`stats`] holds the counts, [`histogram`] the
//! latencies.

mod histogram;
mod stats;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

pub(crate) use self::stats::Stats;
use crate::http_pool::Pool;

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Whom to send to.
    pub(crate) address: SocketAddr,
    /// Path and query of every request.
    pub(crate) path: String,
    /// Headers of every request; must hold `host`.
    pub(crate) headers: HeaderMap,
    /// Requests a second, more than zero.
    pub(crate) rate: u32,
    /// How many, if not until stopped.
    pub(crate) requests: Option<u64>,
    /// After how long a request without a whole response has failed.
    pub(crate) timeout: Duration,
    /// Response header that names the version which served.
    pub(crate) version_header: HeaderName,
}

impl Plan {
    /// GET requests for `host` at a rate, until stopped.
    pub(crate) fn get(address: SocketAddr, host: &str, path: &str, rate: u32) -> Self {
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(http::header::HOST, host);
        }
        Self {
            address,
            path: path.to_owned(),
            headers,
            rate,
            requests: None,
            timeout: Duration::from_secs(10),
            version_header: HeaderName::from_static("x-api-version"),
        }
    }

    /// The same with a number of requests after which it ends.
    pub(crate) fn requests(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self
    }

    /// The same with one more request header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Sends all of [`Plan::requests`] and tells what came of them.
    pub(crate) async fn run(self) -> Stats {
        let shared = Arc::new(Shared::new(self));
        drive(shared.clone(), None).await;
        shared.snapshot()
    }
}

/// Load that runs until it is stopped. Dropped, it stops sending at once and forgets what is on its way.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts sending.
    pub(crate) fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared::new(plan));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(drive(shared.clone(), Some(stopped)));
        Self { shared, stop: Some(stop), task }
    }

    /// What was seen until now.
    pub(crate) fn snapshot(&self) -> Stats {
        self.shared.snapshot()
    }

    /// Sends no more, waits for what is on its way, and tells the end result.
    pub(crate) async fn stop(mut self) -> Stats {
        drop(self.stop.take());
        // It can only have been cancelled by a runtime that shuts down; the counts stand in any case.
        let _ = (&mut self.task).await;
        self.shared.snapshot()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    pool: Pool,
    stats: Mutex<Stats>,
}

impl Shared {
    fn new(plan: Plan) -> Self {
        let pool = Pool::new(plan.address, plan.timeout);
        Self { plan, pool, stats: Mutex::default() }
    }

    fn snapshot(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn one(&self, scheduled: Instant) {
        let mut request = Request::new(Full::<Bytes>::default());
        match self.plan.path.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
                stats.failed_to_send(&format!("path {:?}: {error}", self.plan.path));
                return;
            }
        }
        request.headers_mut().clone_from(&self.plan.headers);
        let outcome = self.pool.send(request).await;
        let latency = scheduled.elapsed();
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(response) => {
                let of = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
                stats.answered(
                    response.status(),
                    latency,
                    of(&self.plan.version_header),
                    of(&HeaderName::from_static("x-outrigger-reason")),
                    instances(response.headers()),
                );
            }
            Err(error) => stats.failed_to_send(&error.to_string()),
        }
    }
}

/// Whoever answered on the way, from the nearest to the farthest: the values of `x-SERVICE-instance`.
fn instances(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") && name.as_str().ends_with("-instance"))
        .filter_map(|(_, value)| value.to_str().ok())
}

/// Starts requests on schedule until told to stop or all are sent, then waits for their ends.
async fn drive(shared: Arc<Shared>, mut stopped: Option<oneshot::Receiver<()>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / shared.plan.rate.max(1));
    // Late ticks come at once: the rate is kept on average, as an open loop must.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = JoinSet::new();
    let mut left = shared.plan.requests.unwrap_or(u64::MAX);
    while left > 0 {
        let scheduled = tokio::select! {
            scheduled = ticks.tick() => scheduled,
            () = until(&mut stopped) => break,
        };
        left -= 1;
        let shared = shared.clone();
        running.spawn(async move { shared.one(scheduled).await });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Resolves when the sender is gone; never, if there is none.
async fn until(stopped: &mut Option<oneshot::Receiver<()>>) {
    match stopped {
        Some(stopped) => {
            let _ = stopped.await;
        }
        None => std::future::pending().await,
    }
}
