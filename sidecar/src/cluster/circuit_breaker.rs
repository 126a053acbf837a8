//! Circuit breakers: how much of what a cluster may have under way.
//!
//! Envoy's "circuit breaking": a limit on connections, pending requests, requests and retries, for each routing priority
//! apart. The counts are shared by all workers and survive every update of the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::config::cluster::CircuitBreakers;
use crate::stats::registry::{Name, Reading, Sink, Source};
use crate::stats::{ClusterCells, Sharded};

/// The limits and counts of one routing priority of a cluster.
///
/// `try_…` takes one, if the limit allows it, and counts the overflow if it does not; each success is paired with its
/// `release_…`.
pub(crate) struct Breaker {
    connections: Resource,
    pending: Resource,
    requests: Resource,
    retries: Resource,
    /// Bits of the retry budget in percent, as `f64`; negative: there is none.
    budget_percent: AtomicU64,
    budget_min: AtomicU32,
    track_remaining: AtomicU32,
    stats: Arc<Sharded<ClusterCells>>,
}

#[derive(Default)]
struct Resource {
    count: AtomicU32,
    max: AtomicU32,
}

impl Resource {
    /// One more, if there are fewer than `max`.
    #[inline]
    fn try_take(&self, max: u32) -> bool {
        self.count
            .fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1))
            .is_ok()
    }

    #[inline]
    fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    #[inline]
    fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    #[inline]
    fn release(&self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

impl Breaker {
    pub(super) fn new(limits: &CircuitBreakers, stats: Arc<Sharded<ClusterCells>>) -> Self {
        let breaker = Self {
            connections: Resource::default(),
            pending: Resource::default(),
            requests: Resource::default(),
            retries: Resource::default(),
            budget_percent: AtomicU64::new((-1f64).to_bits()),
            budget_min: AtomicU32::new(0),
            track_remaining: AtomicU32::new(0),
            stats,
        };
        breaker.set_limits(limits);
        breaker
    }

    /// Takes over new limits. What is under way above them stays.
    pub(super) fn set_limits(&self, limits: &CircuitBreakers) {
        self.connections.max.store(limits.max_connections, Relaxed);
        self.pending.max.store(limits.max_pending_requests, Relaxed);
        self.requests.max.store(limits.max_requests, Relaxed);
        self.retries.max.store(limits.max_retries, Relaxed);
        let (percent, min) = limits.retry_budget.unwrap_or((-1.0, 0));
        self.budget_percent.store(percent.to_bits(), Relaxed);
        self.budget_min.store(min, Relaxed);
        self.track_remaining.store(limits.track_remaining.into(), Relaxed);
    }

    /// A connection, or `upstream_cx_overflow`.
    pub(crate) fn try_connection(&self) -> bool {
        let taken = self.connections.try_take(self.connections.max());
        if !taken {
            self.stats.local().upstream_cx_overflow.inc();
        }
        taken
    }

    /// A connection, whatever the limit: a pool that has none may always open its first, as in Envoy.
    pub(crate) fn force_connection(&self) {
        self.connections.count.fetch_add(1, Relaxed);
    }

    /// Gives a connection back.
    pub(crate) fn release_connection(&self) {
        self.connections.release();
    }

    /// A place among the requests that wait for a connection, or `upstream_rq_pending_overflow`.
    pub(crate) fn try_pending(&self) -> bool {
        let taken = self.pending.try_take(self.pending.max());
        if !taken {
            self.stats.local().upstream_rq_pending_overflow.inc();
        }
        taken
    }

    /// Gives a waiting place back.
    pub(crate) fn release_pending(&self) {
        self.pending.release();
    }

    /// A request under way, or `upstream_rq_pending_overflow` (which Envoy counts here as well).
    pub(crate) fn try_request(&self) -> bool {
        let taken = self.requests.try_take(self.requests.max());
        if !taken {
            self.stats.local().upstream_rq_pending_overflow.inc();
        }
        taken
    }

    /// Gives a request back.
    pub(crate) fn release_request(&self) {
        self.requests.release();
    }

    /// A retry, from the moment it is decided to its end, or `upstream_rq_retry_overflow`.
    pub(crate) fn try_retry(&self) -> bool {
        let taken = self.retries.try_take(self.max_retries());
        if !taken {
            self.stats.local().upstream_rq_retry_overflow.inc();
        }
        taken
    }

    /// Gives a retry back.
    pub(crate) fn release_retry(&self) {
        self.retries.release();
    }

    /// The limit, or the budget: a share of what is active and pending, but never less than its minimum.
    fn max_retries(&self) -> u32 {
        let percent = f64::from_bits(self.budget_percent.load(Relaxed));
        if percent < 0.0 {
            return self.retries.max();
        }
        let active = f64::from(self.requests.count()) + f64::from(self.pending.count());
        ((percent / 100.0 * active) as u32).max(self.budget_min.load(Relaxed))
    }
}

/// The gauges of both priorities, read from the counts.
pub(crate) struct BreakerGauges(pub(crate) Arc<[Breaker; 2]>);

impl Source for BreakerGauges {
    fn read(&self, sink: &mut Sink<'_>) {
        for (priority, breaker) in ["default", "high"].into_iter().zip(self.0.iter()) {
            let mut gauge = |name: &str, value: u64, used: bool| {
                let name = format!("circuit_breakers.{priority}.{name}");
                sink(Name::plain(&name), Reading::Gauge { value, used });
            };
            let resources = [
                ("cx_open", "remaining_cx", &breaker.connections, breaker.connections.max()),
                ("rq_pending_open", "remaining_pending", &breaker.pending, breaker.pending.max()),
                ("rq_open", "remaining_rq", &breaker.requests, breaker.requests.max()),
                ("rq_retry_open", "remaining_retries", &breaker.retries, breaker.max_retries()),
            ];
            let track = breaker.track_remaining.load(Relaxed) != 0;
            for (open, remaining, resource, max) in resources {
                let is_open = resource.count() >= max;
                gauge(open, is_open.into(), is_open || track);
                if track {
                    gauge(remaining, max.saturating_sub(resource.count()).into(), true);
                }
            }
            // There is no limit on the number of pools.
            gauge("cx_pool_open", 0, track);
            if track {
                gauge("remaining_cx_pools", u64::MAX, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> CircuitBreakers {
        CircuitBreakers {
            max_connections: 2,
            max_pending_requests: 1,
            max_requests: 10,
            max_retries: 1,
            retry_budget: None,
            track_remaining: true,
        }
    }

    fn breaker(limits: &CircuitBreakers) -> (Breaker, Arc<Sharded<ClusterCells>>) {
        let stats = Arc::new(Sharded::new(1));
        (Breaker::new(limits, Arc::clone(&stats)), stats)
    }

    #[test]
    fn what_exceeds_a_limit_is_refused_and_counted_as_overflow() {
        let (breaker, stats) = breaker(&limits());
        assert!(breaker.try_connection() && breaker.try_connection() && !breaker.try_connection());
        assert!(breaker.try_pending() && !breaker.try_pending());
        assert!(breaker.try_retry() && !breaker.try_retry() && !breaker.try_retry());
        assert!((0..10).all(|_| breaker.try_request()) && !breaker.try_request());
        let cells = stats.local();
        assert_eq!(cells.upstream_cx_overflow.value(), 1);
        assert_eq!(cells.upstream_rq_pending_overflow.value(), 2);
        assert_eq!(cells.upstream_rq_retry_overflow.value(), 2);
        breaker.release_connection();
        assert!(breaker.try_connection());
    }

    #[test]
    fn a_pool_without_a_connection_may_open_one_above_the_limit() {
        let (breaker, _) = breaker(&CircuitBreakers { max_connections: 0, ..limits() });
        assert!(!breaker.try_connection());
        breaker.force_connection();
        assert_eq!(breaker.connections.count(), 1);
    }

    #[test]
    fn a_retry_budget_allows_a_share_of_the_active_requests_and_never_less_than_its_minimum() {
        let (breaker, _) = breaker(&CircuitBreakers { retry_budget: Some((20.0, 3)), ..limits() });
        assert_eq!(breaker.max_retries(), 3);
        breaker.set_limits(&CircuitBreakers {
            retry_budget: Some((20.0, 3)),
            max_requests: 100,
            ..limits()
        });
        assert!((0..99).all(|_| breaker.try_request()) && breaker.try_pending());
        assert_eq!(breaker.max_retries(), 20);
        assert!((0..20).all(|_| breaker.try_retry()) && !breaker.try_retry());
    }

    #[test]
    fn lowering_a_limit_keeps_what_is_under_way_and_opens_the_breaker() {
        let (breaker, _) = breaker(&limits());
        assert!(breaker.try_connection() && breaker.try_connection());
        breaker.set_limits(&CircuitBreakers { max_connections: 1, ..limits() });
        breaker.release_connection();
        assert!(!breaker.try_connection());
        let mut gauges = std::collections::HashMap::new();
        BreakerGauges(Arc::new([breaker, self::breaker(&limits()).0])).read(
            &mut |name, reading| {
                if let Reading::Gauge { value, .. } = reading {
                    gauges.insert(name.text.to_owned(), value);
                }
            },
        );
        assert_eq!(gauges["circuit_breakers.default.cx_open"], 1);
        assert_eq!(gauges["circuit_breakers.default.remaining_cx"], 0);
        assert_eq!(gauges["circuit_breakers.high.remaining_cx"], 2);
        assert_eq!(gauges["circuit_breakers.high.remaining_cx_pools"], u64::MAX);
    }
}
