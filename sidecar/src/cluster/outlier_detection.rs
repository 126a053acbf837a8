//! Outlier detection: endpoints that fail are ejected for a while.
//!
//! Workers count consecutive failures ([`Monitor`], [`Detector::report`]); when a count reaches its threshold, they tell
//! the control thread, which alone decides and ejects ([`super::manager`]). They count requests and successes as well, which
//! the control thread takes once an interval and compares. Semantics: Envoy's "outlier detection".

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc::UnboundedSender;

use super::cluster::ClusterId;
use super::endpoint::Endpoint;
use crate::config::cluster::OutlierDetection;

/// How an endpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered with this status. A gRPC status is mapped to the HTTP status it stands for first.
    Status(u16),
    /// A connection for a request is there; the outcome of the request follows. Reported for each request that gets a
    /// connection, as in Envoy.
    ConnectSuccess,
    /// A connection is there, and nothing else will be known of it (TCP proxy).
    ConnectSuccessFinal,
    /// No connection could be made.
    ConnectFailure,
    /// The stream was reset, or the connection broke, before the answer. (Not: an overflow of a circuit breaker.)
    Reset,
    /// No answer, or no connection, in time.
    Timeout,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EjectionReason {
    /// Consecutive answers with a 5xx status.
    Consecutive5xx = 1,
    /// Consecutive answers with 502, 503 or 504.
    ConsecutiveGatewayFailure = 2,
    /// Consecutive failures to connect, resets and timeouts.
    ConsecutiveLocalOriginFailure = 3,
    /// Its answers succeed less often than the others'.
    SuccessRate = 4,
    /// It is reached less often than the others.
    LocalOriginSuccessRate = 5,
    /// Too large a share of its answers are failures.
    FailurePercentage = 6,
    /// Too large a share of the attempts to reach it fail.
    LocalOriginFailurePercentage = 7,
}

impl EjectionReason {
    /// As statistics and Envoy's event log name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::LocalOriginSuccessRate => "local_origin_success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::LocalOriginFailurePercentage => "local_origin_failure_percentage",
        }
    }
}

impl fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// That an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// When it returns, in milliseconds since the Unix epoch.
    pub(crate) until: u64,
    /// Why.
    pub(crate) reason: EjectionReason,
}

/// The failures of one endpoint, counted by all workers.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    external: Volume,
    local_origin: Volume,
    /// Shares of successes in the last interval.
    rates: Origins<Percent>,
    reason: AtomicU8,
    until: AtomicU64,
}

impl Monitor {
    /// Whether it is ejected, why, and until when.
    pub(crate) fn ejection(&self) -> Option<Ejection> {
        let reason = match self.reason.load(Relaxed) {
            1 => EjectionReason::Consecutive5xx,
            2 => EjectionReason::ConsecutiveGatewayFailure,
            3 => EjectionReason::ConsecutiveLocalOriginFailure,
            4 => EjectionReason::SuccessRate,
            5 => EjectionReason::LocalOriginSuccessRate,
            6 => EjectionReason::FailurePercentage,
            7 => EjectionReason::LocalOriginFailurePercentage,
            _ => return None,
        };
        Some(Ejection { until: self.until.load(Relaxed), reason })
    }

    pub(super) fn set_ejection(&self, ejection: Option<Ejection>) {
        self.until.store(ejection.map_or(0, |ejection| ejection.until), Relaxed);
        self.reason.store(ejection.map_or(0, |ejection| ejection.reason as u8), Relaxed);
    }

    /// Makes one count start again.
    pub(super) fn reset(&self, reason: EjectionReason) {
        if let Some(counter) = self.counter(reason) {
            counter.store(0, Relaxed);
        }
    }

    /// What was counted since the last call: answers, and attempts to reach it where these are counted apart.
    pub(super) fn take_volumes(&self) -> Origins<(u32, u32)> {
        Origins { external: self.external.take(), local: self.local_origin.take() }
    }

    /// The shares of successes in the last interval, of what it answered and of attempts to reach it; `None`: too few.
    pub(crate) fn success_rates(&self) -> Origins<Option<f64>> {
        Origins { external: self.rates.external.get(), local: self.rates.local.get() }
    }

    pub(super) fn rates(&self) -> &Origins<Percent> {
        &self.rates
    }

    /// Makes all counts start again.
    pub(super) fn reset_all(&self) {
        clear(&self.consecutive_5xx);
        clear(&self.consecutive_gateway_failure);
        clear(&self.consecutive_local_origin_failure);
    }

    fn counter(&self, reason: EjectionReason) -> Option<&AtomicU32> {
        match reason {
            EjectionReason::Consecutive5xx => Some(&self.consecutive_5xx),
            EjectionReason::ConsecutiveGatewayFailure => Some(&self.consecutive_gateway_failure),
            EjectionReason::ConsecutiveLocalOriginFailure => {
                Some(&self.consecutive_local_origin_failure)
            }
            EjectionReason::SuccessRate
            | EjectionReason::LocalOriginSuccessRate
            | EjectionReason::FailurePercentage
            | EjectionReason::LocalOriginFailurePercentage => None,
        }
    }
}

/// Something of both kinds of outcomes: what an endpoint answers, and whether it can be reached.
#[derive(Debug, Default)]
pub(crate) struct Origins<T> {
    pub(crate) external: T,
    pub(crate) local: T,
}

/// A share in percent, or none. Written by the control thread, read by whoever shows it.
#[derive(Debug)]
pub(crate) struct Percent(AtomicU64);

impl Default for Percent {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Percent {
    pub(crate) fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|percent| !percent.is_nan())
    }

    pub(super) fn set(&self, percent: Option<f64>) {
        self.0.store(percent.unwrap_or(f64::NAN).to_bits(), Relaxed);
    }
}

/// How the endpoints of a cluster compared in the last interval.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Mean of the success rates.
    pub(crate) average: Percent,
    /// Below it an endpoint is ejected. May be below 0.
    pub(crate) threshold: Percent,
}

impl Comparison {
    pub(super) fn set(&self, comparison: Option<(f64, f64)>) {
        self.average.set(comparison.map(|(average, _)| average));
        self.threshold.set(comparison.map(|(_, threshold)| threshold));
    }
}

/// Requests (upper half) and successes among them (lower half) since they were last taken. One word, so that a request
/// costs one addition and both are taken at the same moment.
#[derive(Debug, Default)]
struct Volume(AtomicU64);

impl Volume {
    fn count(&self, success: bool) {
        self.0.fetch_add((1 << 32) | u64::from(success), Relaxed);
    }

    /// Requests and successes.
    fn take(&self) -> (u32, u32) {
        let both = self.0.swap(0, Relaxed);
        ((both >> 32) as u32, both as u32)
    }
}

/// An endpoint's failures reached a threshold.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(super) cluster: ClusterId,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) reason: EjectionReason,
}

/// The worker's side of a cluster's outlier detection.
pub(crate) struct Detector {
    pub(crate) comparisons: Arc<Origins<Comparison>>,
    pub(super) cluster: ClusterId,
    pub(super) config: OutlierDetection,
    pub(super) detected: UnboundedSender<Detected>,
}

impl Detector {
    /// Counts an outcome.
    pub(crate) fn report(&self, endpoint: &Arc<Endpoint>, outcome: Outcome) {
        if self.config.split_external_local_origin_errors {
            match outcome {
                Outcome::Status(status) => self.status(endpoint, status),
                Outcome::ConnectSuccess | Outcome::ConnectSuccessFinal => {
                    endpoint.outlier.local_origin.count(true);
                    clear(&endpoint.outlier.consecutive_local_origin_failure);
                }
                Outcome::ConnectFailure | Outcome::Reset | Outcome::Timeout => {
                    endpoint.outlier.local_origin.count(false);
                    let threshold = self.config.consecutive_local_origin_failure;
                    self.failure(
                        endpoint,
                        EjectionReason::ConsecutiveLocalOriginFailure,
                        threshold,
                    );
                }
            }
        } else {
            match outcome {
                Outcome::Status(status) => self.status(endpoint, status),
                Outcome::ConnectSuccess => {}
                Outcome::ConnectSuccessFinal => self.status(endpoint, 200),
                Outcome::ConnectFailure | Outcome::Reset => self.status(endpoint, 503),
                Outcome::Timeout => self.status(endpoint, 504),
            }
        }
    }

    fn status(&self, endpoint: &Arc<Endpoint>, status: u16) {
        let monitor = &endpoint.outlier;
        let success = !(500..600).contains(&status);
        monitor.external.count(success);
        if success {
            clear(&monitor.consecutive_5xx);
            clear(&monitor.consecutive_gateway_failure);
            return;
        }
        if matches!(status, 502..=504) {
            let threshold = self.config.consecutive_gateway_failure;
            self.failure(endpoint, EjectionReason::ConsecutiveGatewayFailure, threshold);
        } else {
            clear(&monitor.consecutive_gateway_failure);
        }
        self.failure(endpoint, EjectionReason::Consecutive5xx, self.config.consecutive_5xx);
    }

    fn failure(&self, endpoint: &Arc<Endpoint>, reason: EjectionReason, threshold: u32) {
        let Some(counter) = endpoint.outlier.counter(reason) else { return };
        let before = counter.fetch_add(1, Relaxed);
        // Only the failure that reaches the threshold tells; those after it would say the same.
        if before + 1 == threshold {
            let endpoint = Arc::clone(endpoint);
            // The receiver is gone only when the process ends.
            let _ = self.detected.send(Detected { cluster: self.cluster, endpoint, reason });
        }
    }
}

/// Sets a counter to 0. A healthy endpoint's counters are not written at all.
#[inline]
fn clear(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}
