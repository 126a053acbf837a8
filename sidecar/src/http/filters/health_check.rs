//! Health checks of this proxy itself, `envoy.filters.http.health_check`: answered here, or passed on and remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};
use tokio::time::Instant;

use super::{Passage, Step};
use crate::access_log::ResponseFlags;
use crate::config::http_filters::HealthCheck;
use crate::http::connection_manager::Connection;
use crate::http::exchange::Exchange;
use crate::http::headers::{
    X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL, X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER,
};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;
use crate::stats::{HealthFilterCells, Sharded};

const X_ENVOY_DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// The filter of one connection manager.
pub(super) struct Filter {
    config: Arc<HealthCheck>,
    stats: Arc<Sharded<HealthFilterCells>>,
    /// What the endpoint last said; `None` if that is not kept.
    cache: Option<Arc<Cache>>,
}

/// What is said in the response to a health check, and remembered of it.
pub(super) struct Checked(Option<Arc<Cache>>);

impl Checked {
    pub(super) fn apply(self, headers: &mut HeaderMap, exchange: &Exchange) {
        if let Some(cache) = &self.0 {
            cache.set(exchange.status, headers.contains_key(X_ENVOY_DEGRADED));
        }
        let name = exchange.connection.local.shared.node_cluster.clone();
        headers.insert(X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER, name);
    }
}

/// What is said in every response while this proxy is to be left alone.
pub(super) fn fail_at_once(headers: &mut HeaderMap) {
    headers.insert(X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL, HeaderValue::from_static("true"));
}

/// How a health check is answered here.
struct Verdict {
    status: StatusCode,
    details: &'static str,
    degraded: bool,
}

impl Verdict {
    fn new(ok: bool, details: &'static str) -> Self {
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Self { status, details, degraded: false }
    }
}

impl Filter {
    pub(super) fn new(config: &Arc<HealthCheck>, stats: Arc<Sharded<HealthFilterCells>>) -> Self {
        let cache = config.cache_time.map(|time| Arc::new(Cache::new(time)));
        Self { config: Arc::clone(config), stats, cache }
    }

    pub(super) fn run(&self, passage: &mut Passage<'_>) -> Result<(), Refusal> {
        let is_check = {
            let view = passage.view();
            self.config.headers.iter().all(|matcher| matcher.matches(&view))
        };
        if !is_check {
            self.of_any(passage);
            return Ok(());
        }
        passage.exchange.is_health_check();
        self.of_any(passage);
        passage.steps.0.push(Step::HealthChecked(Checked(self.cache.clone())));
        let failing = passage.connection.local.shared.failing.load(Relaxed);
        let kept = self.cache.as_ref().and_then(|cache| cache.get());
        let stats = self.stats.local();
        let verdict = if failing {
            Verdict::new(false, "health_check_failed")
        } else if let Some((status, degraded)) = kept {
            stats.cached_response.inc();
            if degraded {
                stats.degraded.inc();
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            Verdict { status, details: "health_check_cached", degraded }
        } else if self.config.pass_through {
            return Ok(());
        } else {
            self.of_clusters(passage.connection)
        };
        let mut reply = LocalReply::new(verdict.status, "", verdict.details);
        stats.request_total.inc();
        if verdict.status.is_success() {
            stats.ok.inc();
        } else {
            stats.failed.inc();
            reply = reply
                .flagged(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK)
                .because(Reason::HealthCheckFailed);
        }
        if verdict.degraded {
            reply.headers.insert(X_ENVOY_DEGRADED, HeaderValue::from_static(""));
        }
        Err(reply.into())
    }

    /// What there is to say in every response.
    pub(super) fn of_any(&self, passage: &mut Passage<'_>) {
        if passage.connection.local.shared.failing.load(Relaxed) {
            passage.steps.0.push(Step::FailAtOnce);
        }
    }

    /// Whether enough endpoints of every cluster are healthy.
    fn of_clusters(&self, connection: &Connection) -> Verdict {
        if self.config.least_healthy.is_empty() {
            return Verdict::new(true, "health_check_ok");
        }
        let stats = self.stats.local();
        let view = connection.local.view();
        for (name, least) in &self.config.least_healthy {
            let id = connection.local.cluster_named(&view, name);
            let Some(cluster) = id.and_then(|id| view.clusters.get(id)) else {
                stats.failed_cluster_not_found.inc();
                return Verdict::new(false, "health_check_failed_no_cluster_found");
            };
            let hosts = cluster.hosts.load();
            let (mut all, mut available) = (0, 0);
            for priority in &hosts.priorities {
                all += priority.all.list.len();
                available += priority.healthy.list.len() + priority.degraded.list.len();
            }
            if all == 0 && *least > 0 {
                stats.failed_cluster_empty.inc();
                return Verdict::new(false, "health_check_failed_cluster_empty");
            }
            if available * 100 < all * usize::from(*least) {
                stats.failed_cluster_unhealthy.inc();
                return Verdict::new(false, "health_check_failed_cluster_unhealthy");
            }
        }
        Verdict::new(true, "health_check_ok_cluster_healthy")
    }
}

/// The last answer to a health check, for all workers. As in Envoy it does not hold for a time of its own, but until the
/// current period is over.
struct Cache {
    since: Instant,
    period: Duration,
    /// Status in the lowest 16 bits, then degraded, then the number of the period, from 1.
    word: AtomicU64,
}

impl Cache {
    fn new(period: Duration) -> Self {
        Self { since: Instant::now(), period, word: AtomicU64::new(0) }
    }

    fn period(&self) -> u64 {
        let periods = self.since.elapsed().as_nanos() / self.period.as_nanos().max(1);
        u64::try_from(periods).unwrap_or(u64::MAX >> 18) + 1
    }

    fn set(&self, status: u16, degraded: bool) {
        let word = self.period() << 17 | u64::from(degraded) << 16 | u64::from(status);
        self.word.store(word, Relaxed);
    }

    /// Status, and whether it was degraded; `None` if nothing was said in this period.
    fn get(&self) -> Option<(u16, bool)> {
        let word = self.word.load(Relaxed);
        (word >> 17 == self.period()).then_some((word as u16, word >> 16 & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_until_the_period_is_over() {
        let cache = Cache::new(Duration::from_secs(10));
        assert_eq!(cache.get(), None);
        cache.set(503, true);
        assert_eq!(cache.get(), Some((503, true)));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.get(), Some((503, true)));
        cache.set(200, false);
        assert_eq!(cache.get(), Some((200, false)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(), None, "the second answer is one second old, but of another period");
    }
}
