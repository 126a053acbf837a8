//! The checks of one endpoint, one after the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::judge::{Failure, FailureKind, Judge, Passed, Transition};
use super::probe::Probe;
use super::{HealthEvent, Plan, Target, pace};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::event_log::{self, HealthNews};
use crate::cluster::health_check::flags::Flag;
use crate::config::endpoint::CheckTarget;

/// The checks of one endpoint. Dropping it ends them.
pub(super) struct Session {
    /// Where it is checked, as it was configured.
    pub(super) at: Option<Arc<CheckTarget>>,
    told: UnboundedSender<()>,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    pub(super) fn start(
        endpoint: &Arc<Endpoint>,
        at: Option<Arc<CheckTarget>>,
        target: Target,
        plan: watch::Receiver<Arc<Plan>>,
        probe: Box<dyn Probe>,
        events: UnboundedSender<HealthEvent>,
    ) -> Self {
        let (told, received) = unbounded_channel();
        let results = Results { endpoint: Arc::clone(endpoint), judge: Judge::new(), events };
        let task = tokio::spawn(run(results, target, plan, probe, received));
        Self { at, told, task }
    }

    /// A response said that the endpoint is unhealthy.
    pub(super) fn told(&self) {
        // The task ends only with the session.
        let _ = self.told.send(());
    }
}

async fn run(
    mut results: Results,
    target: Target,
    mut plans: watch::Receiver<Arc<Plan>>,
    mut probe: Box<dyn Probe>,
    mut told: UnboundedReceiver<()>,
) {
    let mut plan = Arc::clone(&plans.borrow_and_update());
    let mut ended = Instant::now();
    let mut pause = pace::before_first(&plan.config.pace);
    // What the pause was chosen by; nothing before the first check.
    let mut last = None;
    loop {
        // Until the next check is due.
        loop {
            tokio::select! {
                biased;
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let next = Arc::clone(&plans.borrow_and_update());
                    if !next.is_like(&plan) {
                        probe.disconnect();
                        pause = match last {
                            None => pause,
                            Some((passed, transition)) => next.pause(passed, transition),
                        };
                    }
                    plan = next;
                }
                Some(()) = told.recv() => drop(results.told(&plan)),
                () = probe.broken_off() => {
                    probe.disconnect();
                    let failure = Failure::network("the connection was closed");
                    let transition = results.take(&plan, Err(failure));
                    (ended, last) = (Instant::now(), Some((false, transition)));
                    pause = plan.pause(false, transition);
                }
                () = sleep_until(at(ended, pause)) => break,
            }
        }

        plan.stats.local().attempt.inc();
        let result = {
            let check = timeout(plan.config.timeout, probe.check(&plan, &target));
            tokio::pin!(check);
            loop {
                tokio::select! {
                    biased;
                    Some(()) = told.recv() => drop(results.told(&plan)),
                    result = &mut check => break result,
                }
            }
        };
        let result = result.unwrap_or_else(|_| {
            probe.timed_out(&plan);
            let reason = format!("no answer within {:?}", plan.config.timeout);
            Err(Failure::new(FailureKind::Timeout, reason))
        });

        let passed = result.is_ok();
        let transition = results.take(&plan, result);
        (ended, last) = (Instant::now(), Some((passed, transition)));
        pause = plan.pause(passed, transition);
    }
}

/// A time that may be farther away than the clock goes.
fn at(since: Instant, pause: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365);
    since.checked_add(pause).unwrap_or_else(|| since + FAR)
}

impl Plan {
    fn pause(&self, passed: bool, transition: Transition) -> Duration {
        pace::pause(&self.config.pace, passed, transition, self.cluster.had_traffic())
    }
}

/// Where the results of an endpoint's checks go.
struct Results {
    endpoint: Arc<Endpoint>,
    judge: Judge,
    events: UnboundedSender<HealthEvent>,
}

impl Results {
    fn told(&mut self, plan: &Plan) -> Transition {
        self.take(plan, Err(Failure::new(FailureKind::Told, "its response says so")))
    }

    /// Counts and judges a result, and tells the manager.
    fn take(&mut self, plan: &Plan, result: Result<Passed, Failure>) -> Transition {
        let stats = plan.stats.local();
        let config = &plan.config;
        let first = self.judge.is_first();
        let before = self.state();
        let transition = match &result {
            Ok(passed) => {
                stats.success.inc();
                self.judge.passed(&self.endpoint, config, *passed)
            }
            Err(failure) => {
                stats.failure.inc();
                match failure.kind {
                    FailureKind::Network | FailureKind::Timeout => stats.network_failure.inc(),
                    FailureKind::Told => stats.passive_failure.inc(),
                    FailureKind::Answer | FailureKind::Retriable => {}
                }
                self.judge.failed(&self.endpoint, config, failure)
            }
        };
        self.log(plan, &result, first, transition);
        self.write_events(plan, &result, first, before);
        let changed = transition == Transition::Changed;
        let ejected = self.endpoint.outlier.ejection().is_some();
        if first || changed || (result.is_ok() && ejected) {
            // The receiver is gone only when the process ends.
            let _ = self.events.send(HealthEvent::Checked {
                cluster: plan.cluster.id,
                endpoint: Arc::clone(&self.endpoint),
                passed: result.is_ok(),
                changed,
            });
        }
        transition
    }

    /// Whether the endpoint is unhealthy, and whether it is degraded.
    fn state(&self) -> (bool, bool) {
        let flags = &self.endpoint.check;
        (flags.has(Flag::Failed), flags.has(Flag::Degraded))
    }

    /// Writes to the event logs of the cluster, where it has any. `before`: see [`Results::state`].
    fn write_events(
        &self,
        plan: &Plan,
        result: &Result<Passed, Failure>,
        first: bool,
        before: (bool, bool),
    ) {
        let write = |news| {
            event_log::health(&*plan.log, &plan.cluster, &plan.config, &self.endpoint, news);
        };
        let ((was_failed, was_degraded), (is_failed, is_degraded)) = (before, self.state());
        match result {
            Ok(_) => {
                if was_failed && !is_failed {
                    write(HealthNews::AddHealthy { first });
                }
                match (was_degraded, is_degraded) {
                    (false, true) => write(HealthNews::Degraded),
                    (true, false) => write(HealthNews::NoLongerDegraded),
                    (true, true) | (false, false) => {}
                }
                if plan.config.always_log_successes {
                    write(HealthNews::Successful);
                }
            }
            Err(failure) => {
                if !was_failed && is_failed {
                    write(HealthNews::EjectUnhealthy {
                        kind: failure.kind,
                        status: failure.status,
                    });
                }
                if first || plan.config.always_log_failures {
                    let (kind, status) = (failure.kind, failure.status);
                    write(HealthNews::Failure { kind, status, first });
                }
            }
        }
    }

    /// For operators: changes, the first failure, and everything where that is asked for.
    fn log(
        &self,
        plan: &Plan,
        result: &Result<Passed, Failure>,
        first: bool,
        transition: Transition,
    ) {
        let (cluster, endpoint) = (&plan.cluster.name, &self.endpoint.address);
        let changed = transition == Transition::Changed;
        match result {
            Ok(passed) if changed => {
                tracing::info!(%cluster, %endpoint, degraded = passed.degraded, "health check passes");
            }
            Ok(_) if plan.config.always_log_successes => {
                tracing::info!(%cluster, %endpoint, "health check passed");
            }
            Ok(_) => {}
            Err(failure) if changed || first => {
                let reason = &failure.reason;
                tracing::warn!(%cluster, %endpoint, reason, "health check fails");
            }
            Err(failure) if plan.config.always_log_failures => {
                let reason = &failure.reason;
                tracing::warn!(%cluster, %endpoint, reason, "health check failed");
            }
            Err(_) => {}
        }
    }
}
