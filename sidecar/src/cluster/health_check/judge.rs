//! What the result of a check means. No I/O, and no time.

use super::flags::Flag;
use crate::cluster::endpoint::Endpoint;
use crate::config::health_check::HealthCheck;

/// A check passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The endpoint says that it is degraded.
    pub(crate) degraded: bool,
}

/// A check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How.
    pub(crate) kind: FailureKind,
    /// For a person.
    pub(crate) reason: String,
    /// The endpoint says as well that it is to get nothing more.
    pub(crate) excluded: bool,
    /// The HTTP status that it answered with; 0 for none.
    pub(crate) status: u16,
}

/// How a check fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The endpoint answered, and the answer is bad: it is unhealthy at once.
    Answer,
    /// As `Answer`, but the threshold counts.
    Retriable,
    /// It could not be reached.
    Network,
    /// It did not answer in time.
    Timeout,
    /// A response to a request said so.
    Told,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), excluded: false, status: 0 }
    }

    /// It could not be reached.
    pub(crate) fn network(reason: impl ToString) -> Self {
        Self::new(FailureKind::Network, reason.to_string())
    }

    /// The endpoint's answer is bad.
    pub(crate) fn answer(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Answer, reason)
    }
}

/// What a result changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Nothing.
    None,
    /// Nothing yet: more of the same results have to follow.
    Pending,
    /// The endpoint's health.
    Changed,
}

/// What is remembered of an endpoint's results.
#[derive(Debug)]
pub(super) struct Judge {
    /// No check is over yet.
    first: bool,
    passes: u32,
    failures: u32,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self { first: true, passes: 0, failures: 0 }
    }

    /// Whether no check is over yet.
    pub(super) fn is_first(&self) -> bool {
        self.first
    }

    /// A check passed.
    pub(super) fn passed(
        &mut self,
        endpoint: &Endpoint,
        config: &HealthCheck,
        Passed { degraded }: Passed,
    ) -> Transition {
        let flags = &endpoint.check;
        self.failures = 0;
        let mut transition = Transition::None;
        if flags.has(Flag::Failed) {
            self.passes = self.passes.saturating_add(1);
            // The first result counts at once: a start is not slowed down by the threshold.
            if self.first || self.passes == config.healthy_threshold {
                flags.set(Flag::TimedOut, false);
                flags.set(Flag::Excluded, false);
                flags.set(Flag::Failed, false);
                endpoint.became_healthy();
                transition = Transition::Changed;
            } else {
                transition = Transition::Pending;
            }
        }
        if flags.set(Flag::Pending, false) {
            transition = Transition::Changed;
        }
        if flags.set(Flag::Degraded, degraded) != degraded && transition == Transition::None {
            transition = Transition::Changed;
        }
        self.first = false;
        transition
    }

    /// A check failed, or a response said that the endpoint is unhealthy.
    pub(super) fn failed(
        &mut self,
        endpoint: &Endpoint,
        config: &HealthCheck,
        failure: &Failure,
    ) -> Transition {
        let flags = &endpoint.check;
        self.passes = 0;
        if failure.excluded {
            flags.set(Flag::Excluded, true);
        }
        let mut transition = Transition::None;
        if !flags.has(Flag::Failed) {
            let at_once = matches!(failure.kind, FailureKind::Answer | FailureKind::Told);
            if !at_once {
                self.failures = self.failures.saturating_add(1);
            }
            if at_once || self.failures == config.unhealthy_threshold {
                flags.set(Flag::Failed, true);
                self.failures = 0;
                transition = Transition::Changed;
            } else {
                transition = Transition::Pending;
            }
        }
        let timed_out = failure.kind == FailureKind::Timeout && flags.has(Flag::Failed);
        flags.set(Flag::TimedOut, timed_out);
        if flags.set(Flag::Pending, false) {
            transition = Transition::Changed;
        }
        self.first = false;
        transition
    }
}
