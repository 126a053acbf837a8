//! The decisions of outlier detection: who is ejected, for how long, and when it returns.
//!
//! A cluster with outlier detection is looked at once an interval, as in Envoy: endpoints return whose time is over, and
//! the rates of the interval are compared ([`super::rates`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Entry, Manager};
use crate::cluster::cluster::{Cluster, ClusterId};
use crate::cluster::endpoint::{Endpoint, EndpointId};
use crate::cluster::event_log::Ejected;
use crate::cluster::outlier_detection::{Detected, Ejection, EjectionReason};
use crate::config::cluster::OutlierDetection;
use crate::stats::OutlierCells;

/// What is known of a cluster's ejections.
pub(super) struct Ejections {
    /// The intervals count from here.
    since: Instant,
    /// Endpoints that are ejected or were.
    records: HashMap<EndpointId, Record>,
    /// For the event log: the same, for as long as the endpoint is there.
    history: HashMap<EndpointId, History>,
}

/// When an endpoint was last ejected, when it last returned, and how often it was ejected.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    ejections: u32,
    ejected_at: Option<Instant>,
    returned_at: Option<Instant>,
}

/// An endpoint's history of ejections.
struct Record {
    /// By which the base ejection time is multiplied. Grows by one with each ejection, shrinks by one with each interval
    /// without.
    multiplier: u32,
    ejected_at: Instant,
    jitter: Duration,
    returned_at: Option<Instant>,
}

impl Ejections {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, records: HashMap::new(), history: HashMap::new() }
    }

    /// Lets intervals count from now: their length changed.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
    }

    /// Forgets an endpoint that is gone.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.records.remove(&endpoint);
        self.history.remove(&endpoint);
    }

    /// What the event log says beside an ejection: before it is one, if it is `enforced`.
    fn ejecting(&mut self, endpoint: EndpointId, now: Instant, enforced: bool) -> Ejected {
        if !enforced && !self.history.contains_key(&endpoint) {
            return Ejected::default();
        }
        let history = self.history.entry(endpoint).or_default();
        let since = history.returned_at.map(|at| now.saturating_duration_since(at));
        if enforced {
            history.ejections = history.ejections.saturating_add(1);
            history.ejected_at = Some(now);
        }
        Ejected { count: history.ejections, since }
    }

    /// What the event log says beside a return.
    fn returning(&mut self, endpoint: EndpointId, now: Instant) -> Ejected {
        let history = self.history.entry(endpoint).or_default();
        history.returned_at = Some(now);
        let since = history.ejected_at.map(|at| now.saturating_duration_since(at));
        Ejected { count: history.ejections, since }
    }

    /// Lets everyone return: the cluster has no outlier detection any more.
    pub(super) fn forgive_all(&mut self, cluster: &Cluster) {
        self.records.clear();
        for endpoint in cluster.hosts.load().endpoints() {
            if endpoint.outlier.ejection().is_some() {
                log_return(cluster, endpoint, "outlier detection was turned off");
            }
            endpoint.outlier.set_ejection(None);
            endpoint.outlier.reset_all();
            endpoint.outlier.take_volumes();
        }
    }

    /// The first interval's end at or after `at`.
    fn tick_at(&self, at: Instant, interval: Duration) -> Instant {
        let interval = interval.max(Duration::from_millis(1));
        let passed = at.saturating_duration_since(self.since).as_nanos();
        let intervals = passed.div_ceil(interval.as_nanos()).max(1);
        self.since + interval * u32::try_from(intervals).unwrap_or(u32::MAX)
    }

    /// The end of the interval that `now` is in.
    fn next_tick(&self, now: Instant, interval: Duration) -> Instant {
        self.tick_at(now + Duration::from_nanos(1), interval)
    }
}

impl Record {
    fn ejection_time(&self, config: &OutlierDetection) -> Duration {
        let time = config.base_ejection_time.saturating_mul(self.multiplier);
        time.min(config.max_ejection_time) + self.jitter
    }
}

impl Manager {
    /// A worker saw an endpoint's failures reach a threshold.
    pub(super) fn detected(&mut self, detected: &Detected) {
        let Detected { cluster, endpoint, reason } = detected;
        let Some(entry) = self.entries.get_mut(cluster.index()).and_then(Option::as_mut) else {
            return;
        };
        let Some(config) = entry.outlier_config().cloned() else { return };
        // It may have left, or been ejected, since.
        let is_member = entry.cluster.hosts.load().endpoints().any(|e| Arc::ptr_eq(e, endpoint));
        if !is_member || endpoint.outlier.ejection().is_some() {
            return;
        }
        if let Some(cells) = &entry.outlier_stats {
            count_detected(cells.local(), *reason);
        }
        entry.eject(endpoint, *reason, &config);
        endpoint.outlier.reset(*reason);
        self.reschedule(*cluster);
    }

    /// The end of an interval: endpoints return whose time is over, and those are ejected whose rates are bad.
    pub(super) fn look(&mut self, id: ClusterId, now: Instant) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let Some(config) = entry.outlier_config().cloned() else { return };
        let hosts = entry.cluster.hosts.load_full();
        let mut returned = false;
        for endpoint in hosts.endpoints() {
            let Some(record) = entry.ejections.records.get_mut(&endpoint.id) else { continue };
            if endpoint.outlier.ejection().is_some() {
                let over = now.saturating_duration_since(record.ejected_at);
                if over >= record.ejection_time(&config) {
                    endpoint.outlier.set_ejection(None);
                    // Or the first failure after the return might be the last that was missing.
                    endpoint.outlier.reset_all();
                    record.returned_at = Some(now);
                    returned = true;
                    log_return(&entry.cluster, endpoint, "its ejection time is over");
                    let ejected = entry.ejections.returning(endpoint.id, now);
                    if let Some(log) = &entry.outlier_log {
                        log.returned(&entry.cluster, endpoint, ejected);
                    }
                }
            } else if record.returned_at.is_some_and(|at| now - at >= config.interval) {
                record.multiplier = record.multiplier.saturating_sub(1);
            }
        }
        let is_ejected = |id: &EndpointId| {
            hosts.endpoints().any(|e| e.id == *id && e.outlier.ejection().is_some())
        };
        entry.ejections.records.retain(|id, record| record.multiplier > 0 || is_ejected(id));
        if returned {
            entry.swap_hosts(hosts.members());
        }
        entry.compare_rates(&config);
        self.reschedule(id);
    }

    /// Plans the next look at a cluster, if it has outlier detection.
    pub(super) fn reschedule(&mut self, id: ClusterId) {
        let Some(entry) = self.entries.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let next = entry
            .outlier_config()
            .map(|config| entry.ejections.next_tick(Instant::now(), config.interval));
        if let Some(at) = std::mem::replace(&mut entry.due, next) {
            self.due.remove(&(at, id));
        }
        if let Some(at) = next {
            self.due.insert((at, id));
        }
    }
}

impl Entry {
    /// Ends an ejection: a health check has passed. Returns whether there was one.
    pub(super) fn uneject(&mut self, endpoint: &Endpoint) -> bool {
        if endpoint.outlier.ejection().is_none() {
            return false;
        }
        log_return(&self.cluster, endpoint, "a health check has passed");
        endpoint.outlier.set_ejection(None);
        endpoint.outlier.reset_all();
        if let Some(record) = self.ejections.records.get_mut(&endpoint.id) {
            record.returned_at = Some(Instant::now());
        }
        let ejected = self.ejections.returning(endpoint.id, Instant::now());
        if let Some(log) = &self.outlier_log {
            log.returned(&self.cluster, endpoint, ejected);
        }
        true
    }

    /// Ejects an endpoint, unless too many are ejected or the draw is against it.
    pub(super) fn eject(
        &mut self,
        endpoint: &Arc<Endpoint>,
        reason: EjectionReason,
        config: &OutlierDetection,
    ) {
        let hosts = self.cluster.hosts.load_full();
        let total = hosts.endpoints().count();
        let ejected = hosts.endpoints().filter(|e| e.outlier.ejection().is_some()).count();
        let percent = 100.0 * (ejected + 1) as f64 / total.max(1) as f64;
        let allowed = percent <= f64::from(config.max_ejection_percent.min(100))
            || (config.always_eject_one_host && ejected == 0);
        let cells = self.outlier_stats.clone();
        let cells = cells.as_ref().map(|cells| cells.local());
        if !allowed {
            if let Some(cells) = cells {
                cells.ejections_overflow.inc();
            }
            tracing::warn!(
                cluster = %self.cluster.name, endpoint = %endpoint.address, %reason, ejected, total,
                "endpoint fails, but is not ejected: max_ejection_percent is {}",
                config.max_ejection_percent
            );
            return;
        }
        if matches!(reason, EjectionReason::Consecutive5xx | EjectionReason::SuccessRate)
            && let Some(cells) = cells
        {
            cells.ejections_total.inc();
        }
        let enforced = fastrand::u32(0..100) < enforcing(config, reason);
        let history = self.ejections.ejecting(endpoint.id, Instant::now(), enforced);
        if let Some(log) = &self.outlier_log {
            log.ejected(&self.cluster, endpoint, reason, enforced, history);
        }
        if !enforced {
            return;
        }
        if let Some(cells) = cells {
            count_enforced(cells, reason);
        }
        let now = Instant::now();
        let jitter = config.max_ejection_time_jitter.as_millis() as u64;
        let jitter = Duration::from_millis(fastrand::u64(0..=jitter));
        let record = self.ejections.records.entry(endpoint.id).or_insert(Record {
            multiplier: 0,
            ejected_at: now,
            jitter,
            returned_at: None,
        });
        record.ejected_at = now;
        record.jitter = jitter;
        let time = config.base_ejection_time.saturating_mul(record.multiplier);
        if time < config.max_ejection_time + config.base_ejection_time {
            record.multiplier += 1;
        }
        let over = now + record.ejection_time(config);
        let returns_in =
            self.ejections.tick_at(over, config.interval).saturating_duration_since(now);
        let until = unix_millis(SystemTime::now() + returns_in);
        endpoint.outlier.set_ejection(Some(Ejection { until, reason }));
        self.swap_hosts(hosts.members());
        self.cluster.break_connections(endpoint);
        tracing::warn!(
            cluster = %self.cluster.name, endpoint = %endpoint.address, %reason,
            until = %rfc3339(until), ejected = ejected + 1, total,
            "endpoint ejected for {returns_in:?}"
        );
    }
}

/// The percentage of detections that eject.
fn enforcing(config: &OutlierDetection, reason: EjectionReason) -> u32 {
    match reason {
        EjectionReason::Consecutive5xx => config.enforcing_consecutive_5xx,
        EjectionReason::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
        EjectionReason::ConsecutiveLocalOriginFailure => {
            config.enforcing_consecutive_local_origin_failure
        }
        EjectionReason::SuccessRate => config.success_rate.enforcing,
        EjectionReason::LocalOriginSuccessRate => config.success_rate.enforcing_local_origin,
        EjectionReason::FailurePercentage => config.failure_percentage.enforcing,
        EjectionReason::LocalOriginFailurePercentage => {
            config.failure_percentage.enforcing_local_origin
        }
    }
}

pub(super) fn count_detected(cells: &OutlierCells, reason: EjectionReason) {
    match reason {
        EjectionReason::Consecutive5xx => {
            cells.ejections_detected_consecutive_5xx.inc();
            cells.ejections_consecutive_5xx.inc();
        }
        EjectionReason::ConsecutiveGatewayFailure => {
            cells.ejections_detected_consecutive_gateway_failure.inc();
        }
        EjectionReason::ConsecutiveLocalOriginFailure => {
            cells.ejections_detected_consecutive_local_origin_failure.inc();
        }
        EjectionReason::SuccessRate => {
            cells.ejections_detected_success_rate.inc();
            cells.ejections_success_rate.inc();
        }
        EjectionReason::LocalOriginSuccessRate => {
            cells.ejections_detected_local_origin_success_rate.inc();
            cells.ejections_success_rate.inc();
        }
        EjectionReason::FailurePercentage => cells.ejections_detected_failure_percentage.inc(),
        EjectionReason::LocalOriginFailurePercentage => {
            cells.ejections_detected_local_origin_failure_percentage.inc();
        }
    }
}

fn count_enforced(cells: &OutlierCells, reason: EjectionReason) {
    cells.ejections_enforced_total.inc();
    match reason {
        EjectionReason::Consecutive5xx => cells.ejections_enforced_consecutive_5xx.inc(),
        EjectionReason::ConsecutiveGatewayFailure => {
            cells.ejections_enforced_consecutive_gateway_failure.inc();
        }
        EjectionReason::ConsecutiveLocalOriginFailure => {
            cells.ejections_enforced_consecutive_local_origin_failure.inc();
        }
        EjectionReason::SuccessRate => cells.ejections_enforced_success_rate.inc(),
        EjectionReason::LocalOriginSuccessRate => {
            cells.ejections_enforced_local_origin_success_rate.inc();
        }
        EjectionReason::FailurePercentage => cells.ejections_enforced_failure_percentage.inc(),
        EjectionReason::LocalOriginFailurePercentage => {
            cells.ejections_enforced_local_origin_failure_percentage.inc();
        }
    }
}

fn log_return(cluster: &Cluster, endpoint: &Endpoint, why: &str) {
    let reason = endpoint.outlier.ejection().map(|ejection| ejection.reason.as_str());
    tracing::info!(
        cluster = %cluster.name, endpoint = %endpoint.address, ejected_because = reason,
        "endpoint returns: {why}"
    );
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn rfc3339(unix_millis: u64) -> String {
    let nanos = i128::from(unix_millis) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}
