//! Outlier detection by comparison: who succeeds less often than the others, or fails too often, over one interval.

use std::sync::Arc;

use super::Entry;
use super::ejections::count_detected;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::outlier_detection::{EjectionReason, Monitor, Origins, Percent};
use crate::config::cluster::OutlierDetection;

/// What an endpoint did in an interval.
struct Rate {
    endpoint: Arc<Endpoint>,
    requests: u32,
    /// In percent.
    success: f64,
}

impl Entry {
    /// Takes what was counted in the interval that ends now, and ejects whose rates are bad.
    ///
    /// Ejected endpoints are no part of the comparison, but their counts start again all the same.
    pub(super) fn compare_rates(&mut self, config: &OutlierDetection) {
        let hosts = self.cluster.hosts.load_full();
        let mut rates = Origins { external: Vec::new(), local: Vec::new() };
        if let Some(comparisons) = self.cluster.comparisons() {
            comparisons.external.set(None);
            comparisons.local.set(None);
        }
        for endpoint in hosts.endpoints() {
            let volumes = endpoint.outlier.take_volumes();
            endpoint.outlier.rates().external.set(None);
            endpoint.outlier.rates().local.set(None);
            if endpoint.outlier.ejection().is_some() {
                continue;
            }
            rates.external.extend(Rate::new(endpoint, volumes.external));
            rates.local.extend(Rate::new(endpoint, volumes.local));
        }
        let fewest = config.success_rate.minimum_hosts.min(config.failure_percentage.minimum_hosts);
        if hosts.endpoints().count() < fewest as usize {
            return;
        }
        let least =
            config.success_rate.request_volume.min(config.failure_percentage.request_volume);
        let shown = |rates: &[Rate], of: fn(&Monitor) -> &Percent| {
            for rate in rates.iter().filter(|rate| rate.requests >= least) {
                of(&rate.endpoint.outlier).set(Some(rate.success));
            }
        };
        shown(&rates.external, |monitor| &monitor.rates().external);
        shown(&rates.local, |monitor| &monitor.rates().local);
        self.eject_low_success_rates(&rates.external, EjectionReason::SuccessRate, config);
        self.eject_high_failures(&rates.external, EjectionReason::FailurePercentage, config);
        let reason = EjectionReason::LocalOriginSuccessRate;
        self.eject_low_success_rates(&rates.local, reason, config);
        let reason = EjectionReason::LocalOriginFailurePercentage;
        self.eject_high_failures(&rates.local, reason, config);
    }

    fn eject_low_success_rates(
        &mut self,
        rates: &[Rate],
        reason: EjectionReason,
        config: &OutlierDetection,
    ) {
        let rule = &config.success_rate;
        let rates: Vec<&Rate> =
            rates.iter().filter(|rate| rate.requests >= rule.request_volume).collect();
        if rates.is_empty() || rates.len() < rule.minimum_hosts as usize {
            return;
        }
        let factor = f64::from(rule.stdev_factor) / 1000.0;
        let (average, threshold) = threshold(&rates, factor);
        if let Some(comparisons) = self.cluster.comparisons() {
            let comparison = match reason {
                EjectionReason::LocalOriginSuccessRate => &comparisons.local,
                _ => &comparisons.external,
            };
            comparison.set(Some((average, threshold)));
        }
        for rate in rates.iter().filter(|rate| rate.success < threshold) {
            self.detected_by_rate(&rate.endpoint, reason, config);
        }
    }

    fn eject_high_failures(
        &mut self,
        rates: &[Rate],
        reason: EjectionReason,
        config: &OutlierDetection,
    ) {
        let rule = &config.failure_percentage;
        let rates: Vec<&Rate> =
            rates.iter().filter(|rate| rate.requests >= rule.request_volume).collect();
        if rates.is_empty() || rates.len() < rule.minimum_hosts as usize {
            return;
        }
        for rate in rates.iter().filter(|rate| 100.0 - rate.success >= f64::from(rule.threshold)) {
            self.detected_by_rate(&rate.endpoint, reason, config);
        }
    }

    fn detected_by_rate(
        &mut self,
        endpoint: &Arc<Endpoint>,
        reason: EjectionReason,
        config: &OutlierDetection,
    ) {
        if let Some(cells) = &self.outlier_stats {
            count_detected(cells.local(), reason);
        }
        // Another comparison of the same interval may have ejected it.
        if endpoint.outlier.ejection().is_none() {
            self.eject(endpoint, reason, config);
        }
    }
}

impl Rate {
    /// `None` without a request.
    fn new(endpoint: &Arc<Endpoint>, (requests, successes): (u32, u32)) -> Option<Self> {
        let success = 100.0 * f64::from(successes) / f64::from(requests);
        (requests > 0).then(|| Self { endpoint: Arc::clone(endpoint), requests, success })
    }
}

/// The mean, and what is so many standard deviations (of the population) below it.
fn threshold(rates: &[&Rate], factor: f64) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|rate| rate.success).sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate.success - mean).powi(2)).sum::<f64>() / count;
    (mean, mean - factor * variance.sqrt())
}
