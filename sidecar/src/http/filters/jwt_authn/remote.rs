//! Keys that are fetched: by a task on the control thread, for all workers, one fetch at a time.
//!
//! A worker looks at the keys that are there. Where they are missing or old, its request waits for the next ones, and
//! nothing else does.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::jwt_authn::RemoteJwks;
use crate::http::call::{self, CallError};
use crate::jwt::{Jwks, Status};
use crate::local::Local;
use crate::stats::{JwtCells, Sharded};

/// Longest set of keys.
const MOST: usize = 1 << 20;
/// Keys are fetched so long before they grow old, where they are fetched unasked.
const AHEAD: Duration = Duration::from_secs(5);

/// The keys of one provider.
pub(super) struct RemoteKeys {
    fetched: ArcSwapOption<Fetched>,
    wanted: mpsc::UnboundedSender<Waiting>,
}

type Waiting = oneshot::Sender<bool>;

/// Keys, and until when they are good; `None`: until there are others.
pub(super) struct Fetched {
    pub(super) jwks: Jwks,
    until: Option<Instant>,
}

impl RemoteKeys {
    /// Starts the task that fetches them. It ends when nobody has them any more.
    pub(super) fn start(
        config: &Arc<RemoteJwks>,
        stats: &Arc<Sharded<JwtCells>>,
        local: &Rc<Local>,
    ) -> Arc<Self> {
        let (wanted, received) = mpsc::unbounded_channel();
        let keys = Arc::new(Self { fetched: ArcSwapOption::empty(), wanted });
        let task = Task {
            keys: Arc::downgrade(&keys),
            config: Arc::clone(config),
            stats: Arc::clone(stats),
            local: Rc::clone(local),
            wanted: received,
        };
        tokio::task::spawn_local(task.run());
        keys
    }

    /// The keys that are there, as long as they are good.
    pub(super) fn current(&self) -> Option<Guard<Option<Arc<Fetched>>>> {
        let fetched = self.fetched.load();
        let is_good = fetched
            .as_ref()
            .is_some_and(|fetched| fetched.until.is_none_or(|until| Instant::now() < until));
        is_good.then_some(fetched)
    }

    /// Waits for keys.
    ///
    /// # Errors
    /// They could not be fetched.
    pub(super) async fn fetch(&self) -> Result<(), Status> {
        let (done, fetched) = oneshot::channel();
        if self.wanted.send(done).is_ok() && fetched.await == Ok(true) {
            return Ok(());
        }
        Err(Status::FetchFailed)
    }
}

struct Task {
    keys: Weak<RemoteKeys>,
    config: Arc<RemoteJwks>,
    stats: Arc<Sharded<JwtCells>>,
    local: Rc<Local>,
    wanted: mpsc::UnboundedReceiver<Waiting>,
}

impl Task {
    async fn run(mut self) {
        let mut next = self.config.async_fetch.map(|_| Instant::now());
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                one = self.wanted.recv() => match one {
                    None => return,
                    Some(one) => waiting.push(one),
                },
                () = at(next) => {}
            }
            let is_there = self.keys.upgrade().is_some_and(|keys| keys.current().is_some());
            let is_due = next.is_some_and(|next| next <= Instant::now());
            if is_there && !is_due {
                // They came while this request was on its way.
                waiting.into_iter().for_each(|one| answer(one, true));
                continue;
            }
            let result = self.fetch().await;
            let Some(keys) = self.keys.upgrade() else { return };
            let (took, now) = (result.is_ok(), Instant::now());
            let cells = self.stats.local();
            let wait = match result {
                Ok(jwks) => {
                    cells.jwks_fetch_success.inc();
                    let duration = self.config.cache_duration;
                    // Keys that are fetched unasked stay until there are newer ones, as in Envoy.
                    let until = self.config.async_fetch.is_none().then(|| now + duration);
                    keys.fetched.store(Some(Arc::new(Fetched { jwks, until })));
                    duration.saturating_sub(AHEAD).max(duration / 2)
                }
                Err(reason) => {
                    cells.jwks_fetch_failed.inc();
                    tracing::warn!(
                        cluster = %self.config.cluster, uri = %self.config.uri, %reason,
                        "keys of tokens cannot be fetched"
                    );
                    self.config.async_fetch.unwrap_or_default()
                }
            };
            next = self.config.async_fetch.map(|_| now + wait);
            while let Ok(one) = self.wanted.try_recv() {
                waiting.push(one);
            }
            waiting.into_iter().for_each(|one| answer(one, took));
        }
    }

    /// All attempts together take as long as one may.
    async fn fetch(&self) -> Result<Jwks, String> {
        let limit = self.config.timeout;
        match timeout(limit, self.attempts()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn attempts(&self) -> Result<Jwks, String> {
        let (retries, base, most) = self.config.retries.unwrap_or_default();
        let mut done = 0;
        loop {
            // As in Envoy one of several attempts may take as long as the longest pause between two.
            let limit = self.config.retries.map(|_| most);
            let reason = match self.attempt(limit).await {
                Ok(body) => return Jwks::parse(&body),
                Err(reason) => reason,
            };
            if done >= retries {
                return Err(reason);
            }
            let bound = base.saturating_mul(2u32.saturating_pow(done)).min(most);
            sleep(bound.mul_f64(fastrand::f64())).await;
            done += 1;
        }
    }

    async fn attempt(&self, limit: Option<Duration>) -> Result<Bytes, String> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.config.uri.clone();
        request.headers_mut().insert(HOST, self.config.host.clone());
        // Some servers refuse who does not look like this: Envoy's fetcher does.
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("Go-browser"));
        let expected = limit.unwrap_or(self.config.timeout).min(self.config.timeout);
        call::mark(request.headers_mut(), Some(expected));
        let cluster = &*self.config.cluster;
        let answer = call::call(&self.local, cluster, request, Version::HTTP_11, limit, MOST);
        let answer = answer.await.map_err(|error: CallError| error.to_string())?;
        match answer.head.status {
            StatusCode::OK if answer.body.is_empty() => Err("an empty answer".to_owned()),
            StatusCode::OK => Ok(answer.body),
            status => Err(format!("answered {status}")),
        }
    }
}

/// Whoever does not wait any more need not know.
fn answer(waiting: Waiting, took: bool) {
    let _ = waiting.send(took);
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
