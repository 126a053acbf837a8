//! What endpoints report of their own load (ORCA), and the weights that follow from it.
//!
//! Semantics: Envoy's `client_side_weighted_round_robin` (gRFC A58): an endpoint weighs as many requests a second as it would
//! serve if it were fully used. Workers note the reports; the control thread turns them into weights, all of a priority at
//! once, because an endpoint without a report that counts weighs what the median of the others does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::host_set::Members;
use crate::config::load_balancer::{ClientSideWeighted, LoadMetric};

/// A load report, `xds.data.orca.v3.OrcaLoadReport`: what an endpoint says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LoadReport {
    /// Of the processors, from 0; more than 1 in bursts.
    pub(crate) cpu_utilization: f64,
    /// Of the memory, 0 to 1.
    pub(crate) mem_utilization: f64,
    /// Of whatever the application thinks limits it, from 0.
    pub(crate) application_utilization: f64,
    /// Requests it serves in a second.
    pub(crate) rps_fractional: f64,
    /// Those of them that fail.
    pub(crate) eps: f64,
    /// What this one request cost, by resource.
    pub(crate) request_cost: BTreeMap<String, f64>,
    /// Of further resources, 0 to 1.
    pub(crate) utilization: BTreeMap<String, f64>,
    /// Whatever the application counts.
    pub(crate) named_metrics: BTreeMap<String, f64>,
}

impl LoadReport {
    /// The weight that it comes to: from 0. `None`: it says too little.
    fn weight(&self, settings: &ClientSideWeighted) -> Option<u32> {
        let requests = self.rps_fractional;
        let penalty = settings.error_utilization_penalty * self.eps / requests;
        let utilization = self.utilization_by(&settings.metrics) + penalty;
        // Also if something is not a number.
        if !(requests > 0.0 && utilization > 0.0) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // more is the most
        Some((requests / utilization) as u32)
    }

    /// How much it is used: by the named metric that says the most, or by what the application says, or by its processors.
    fn utilization_by(&self, metrics: &[LoadMetric]) -> f64 {
        let most = metrics.iter().map(|metric| self.metric(metric)).fold(0.0, f64::max);
        [most, self.application_utilization]
            .into_iter()
            .find(|utilization| *utilization > 0.0)
            .unwrap_or(self.cpu_utilization)
    }

    fn metric(&self, metric: &LoadMetric) -> f64 {
        let of = |map: &BTreeMap<String, f64>, key: &str| match key {
            "*" => map.values().copied().fold(0.0, f64::max),
            key => map.get(key).copied().unwrap_or(0.0),
        };
        match metric {
            LoadMetric::Cpu => self.cpu_utilization,
            LoadMetric::Memory => self.mem_utilization,
            LoadMetric::Application => self.application_utilization,
            LoadMetric::Requests => self.rps_fractional,
            LoadMetric::Errors => self.eps,
            LoadMetric::RequestCost(key) => of(&self.request_cost, key),
            LoadMetric::Utilization(key) => of(&self.utilization, key),
            LoadMetric::Named(key) => of(&self.named_metrics, key),
        }
    }
}

/// The weight that an endpoint reports, with its age.
#[derive(Debug)]
pub(crate) struct Reported {
    weight: AtomicU32,
    /// Nanoseconds after `made`, plus one, since when it reports; 0: it does not.
    since: AtomicU64,
    /// When it reported last, likewise.
    last: AtomicU64,
    made: Instant,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            weight: AtomicU32::new(1),
            since: AtomicU64::new(0),
            last: AtomicU64::new(0),
            made: Instant::now(),
        }
    }
}

impl Reported {
    /// Notes a report. One that says too little changes nothing.
    pub(crate) fn note(&self, report: &LoadReport, settings: &ClientSideWeighted) {
        let Some(weight) = report.weight(settings) else { return };
        let now = self.now();
        self.weight.store(weight, Relaxed);
        // If another worker is first, its time is as good.
        let _ = self.since.compare_exchange(0, now, Relaxed, Relaxed);
        self.last.store(now, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    /// The weight, if it has been reported for long enough, and not too long ago.
    fn current(&self, settings: &ClientSideWeighted) -> Option<u32> {
        let nanoseconds =
            |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (now, since) = (self.now(), self.since.load(Relaxed));
        if since == 0 || now.saturating_sub(since) < nanoseconds(settings.blackout_period) {
            return None;
        }
        let age = now.saturating_sub(self.last.load(Relaxed));
        if age > nanoseconds(settings.weight_expiration_period) {
            // When it reports again, it has to do so for long enough again.
            self.since.store(0, Relaxed);
            return None;
        }
        Some(self.weight.load(Relaxed))
    }
}

/// Gives the endpoints of each priority the weights that they report. Returns whether any changed.
pub(super) fn weigh(priorities: &[Members], settings: &ClientSideWeighted) -> bool {
    let mut changed = false;
    for members in priorities {
        let current =
            |endpoint: &Endpoint| endpoint.reported.get_or_init(Box::default).current(settings);
        let weights: Vec<_> = members.all.iter().map(|endpoint| current(endpoint)).collect();
        let mut known: Vec<u32> = weights.iter().flatten().copied().collect();
        let middle = known.len() / 2;
        let median = match known.len() {
            0 => 1,
            _ => *known.select_nth_unstable(middle).1,
        };
        for (endpoint, weight) in members.all.iter().zip(weights) {
            changed |= endpoint.set_weight(weight.unwrap_or(median).max(1));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::testing::members;
    use crate::config::endpoint::HealthStatus;

    fn settings() -> ClientSideWeighted {
        ClientSideWeighted { error_utilization_penalty: 2.0, ..ClientSideWeighted::default() }
    }

    fn report(rps_fractional: f64, cpu_utilization: f64) -> LoadReport {
        LoadReport { rps_fractional, cpu_utilization, ..LoadReport::default() }
    }

    #[test]
    fn an_endpoint_weighs_what_it_would_serve_if_it_were_fully_used() {
        assert_eq!(report(100.0, 0.25).weight(&settings()), Some(400));
        assert_eq!(report(0.5, 1.0).weight(&settings()), Some(0));
        let errors = LoadReport { eps: 10.0, ..report(100.0, 0.3) };
        assert_eq!(errors.weight(&settings()), Some(200), "0.3 and twice a tenth");
        assert_eq!(report(f64::MAX, 0.1).weight(&settings()), Some(u32::MAX));
    }

    #[test]
    fn a_report_that_says_too_little_says_nothing() {
        for (requests, utilization) in
            [(0.0, 0.5), (-1.0, 0.5), (1.0, 0.0), (1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::NAN)]
        {
            assert_eq!(report(requests, utilization).weight(&settings()), None);
        }
        let only_errors = LoadReport { eps: 1.0, ..report(10.0, 0.0) };
        assert_eq!(only_errors.weight(&settings()), Some(50));
    }

    #[test]
    fn the_named_metric_that_says_the_most_comes_before_the_application_and_the_processors() {
        let map = |pairs: &[(&str, f64)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
        };
        let all = LoadReport {
            application_utilization: 0.5,
            mem_utilization: 0.7,
            named_metrics: map(&[("a", 0.2), ("b", 0.8)]),
            utilization: map(&[("a", 0.1)]),
            ..report(1.0, 0.9)
        };
        let by = |metrics: &[LoadMetric]| all.utilization_by(metrics);
        assert_eq!(by(&[]), 0.5);
        assert_eq!(by(&[LoadMetric::Named("missing".into())]), 0.5);
        assert_eq!(by(&[LoadMetric::Named("a".into()), LoadMetric::Utilization("a".into())]), 0.2);
        assert_eq!(by(&[LoadMetric::Named("*".into()), LoadMetric::Memory]), 0.8);
        let cpu = LoadReport { application_utilization: 0.0, ..all.clone() };
        assert_eq!(cpu.utilization_by(&[]), 0.9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_weight_counts_from_the_end_of_the_blackout_until_it_expires() {
        let settings = ClientSideWeighted {
            blackout_period: Duration::from_secs(10),
            weight_expiration_period: Duration::from_secs(180),
            ..settings()
        };
        let reported = Reported::default();
        assert_eq!(reported.current(&settings), None);
        reported.note(&report(10.0, 0.5), &settings);
        tokio::time::advance(Duration::from_secs(9)).await;
        reported.note(&report(10.0, 0.25), &settings);
        assert_eq!(reported.current(&settings), None, "not for long enough");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reported.current(&settings), Some(40), "the last one counts");
        reported.note(&report(0.0, 0.5), &settings);
        tokio::time::advance(Duration::from_secs(179)).await;
        assert_eq!(reported.current(&settings), Some(40));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reported.current(&settings), None, "180 seconds after the last that counts");
        reported.note(&report(10.0, 0.5), &settings);
        assert_eq!(reported.current(&settings), None, "and has to report for long enough again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_without_a_weight_has_the_median_of_its_priority() {
        let settings = ClientSideWeighted { blackout_period: Duration::ZERO, ..settings() };
        let priority = |port, count| members(port, &vec![(7, HealthStatus::Healthy); count]);
        let priorities = [priority(0, 4), priority(10, 2)];
        let weights = || -> Vec<u32> {
            let all = priorities.iter().flat_map(|members| members.all.iter());
            all.map(|endpoint| endpoint.weight()).collect()
        };
        assert!(weigh(&priorities, &settings));
        assert_eq!(weights(), [1; 6], "nobody reported");
        for (endpoint, requests) in priorities[0].all.iter().zip([100.0, 300.0, 200.0]) {
            endpoint.reported.get().unwrap().note(&report(requests, 1.0), &settings);
        }
        assert!(weigh(&priorities, &settings));
        assert_eq!(weights(), [100, 300, 200, 200, 1, 1]);
        assert!(!weigh(&priorities, &settings), "the same again");
    }
}
