//! What a load generator has seen.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::histogram::Histogram;

/// Counts since the start of the load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stats {
    /// Requests that have ended, one way or the other.
    pub(crate) ended: u64,
    /// Those without a response, or with a status of 400 and above.
    pub(crate) failed: u64,
    /// Responses by status.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Responses below 400 by version.
    pub(crate) by_version: BTreeMap<String, u64>,
    /// Responses, failed ones too, by each instance on their way: `web-1`, `api-2`, ...
    pub(crate) by_instance: BTreeMap<String, u64>,
    /// Failures by what went wrong.
    pub(crate) causes: BTreeMap<String, u64>,
    latency: Histogram,
}

impl Stats {
    /// Counts a response.
    pub(crate) fn answered(
        &mut self,
        status: StatusCode,
        latency: Duration,
        version: Option<&str>,
        reason: Option<&str>,
        instances: impl Iterator<Item = impl AsRef<str>>,
    ) {
        self.ended += 1;
        self.latency.record(latency);
        *self.by_status.entry(status.as_u16()).or_default() += 1;
        let mut last = None;
        for instance in instances {
            count(&mut self.by_instance, instance.as_ref());
            last = Some(instance);
        }
        if status.as_u16() < 400 {
            if let Some(version) = version {
                count(&mut self.by_version, version);
            }
            return;
        }
        self.failed += 1;
        let by = match (reason, last) {
            (Some(reason), _) => format!(": {reason}"),
            (None, Some(instance)) => format!(" from {}", instance.as_ref()),
            (None, None) => String::new(),
        };
        count(&mut self.causes, &format!("status {}{by}", status.as_u16()));
    }

    /// Counts a request without one.
    pub(crate) fn failed_to_send(&mut self, cause: &str) {
        self.ended += 1;
        self.failed += 1;
        count(&mut self.causes, cause);
    }

    /// What is counted here and was not yet in `earlier`, a former snapshot of the same load.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            ended: self.ended - earlier.ended,
            failed: self.failed - earlier.failed,
            by_status: difference(&self.by_status, &earlier.by_status),
            by_version: difference(&self.by_version, &earlier.by_version),
            by_instance: difference(&self.by_instance, &earlier.by_instance),
            causes: difference(&self.causes, &earlier.causes),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Latency from scheduled start to the last byte, over all responses.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        self.latency.percentile(percent)
    }

    /// The same in milliseconds, for people.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        self.percentile(percent).as_secs_f64() * 1e3
    }

    /// Share of the responses below 400 that this version served, 0 to 1.
    pub(crate) fn share_of_version(&self, version: &str) -> f64 {
        share(&self.by_version, version)
    }

    /// Share of this instance among all of its service (`api` of `api-1`), 0 to 1.
    pub(crate) fn share_of_instance(&self, instance: &str) -> f64 {
        let service = |name: &str| name.rsplit_once('-').map(|(service, _)| service.to_owned());
        let peers: BTreeMap<String, u64> = self
            .by_instance
            .iter()
            .filter(|(name, _)| service(name) == service(instance))
            .map(|(name, count)| (name.clone(), *count))
            .collect();
        share(&peers, instance)
    }

    /// Failures in one line: `3x status 503: no_healthy_upstream, 1x no response within 10s`.
    pub(crate) fn causes_in_words(&self) -> String {
        let causes: Vec<String> =
            self.causes.iter().map(|(cause, times)| format!("{times}x {cause}")).collect();
        causes.join(", ")
    }

    /// For a report.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "requests": self.ended,
            "failed": self.failed,
            "byStatus": self.by_status,
            "byVersion": self.by_version,
            "byInstance": self.by_instance,
            "causes": self.causes,
            "p50Ms": self.percentile_ms(50.0),
            "p99Ms": self.percentile_ms(99.0),
        })
    }
}

fn count(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

fn difference<K: Ord + Clone>(
    now: &BTreeMap<K, u64>,
    before: &BTreeMap<K, u64>,
) -> BTreeMap<K, u64> {
    now.iter()
        .map(|(key, count)| (key.clone(), count - before.get(key).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn share(counts: &BTreeMap<String, u64>, key: &str) -> f64 {
    let total: u64 = counts.values().sum();
    *counts.get(key).unwrap_or(&0) as f64 / total.max(1) as f64
}
