//! When the next check of an endpoint comes.

use std::time::Duration;

use super::judge::Transition;
use crate::config::health_check::Pace;

/// The pause after a check. `traffic`: the cluster has ever been connected to for a request.
pub(super) fn pause(pace: &Pace, passed: bool, transition: Transition, traffic: bool) -> Duration {
    let pending = transition == Transition::Pending;
    let base = match (traffic, passed, pending) {
        (true, true, false) => pace.interval,
        (true, true, true) => pace.healthy_edge,
        (true, false, false) => pace.unhealthy,
        (true, false, true) => pace.unhealthy_edge,
        (false, true, false) => pace.no_traffic_healthy,
        (false, _, _) => pace.no_traffic,
    };
    jittered(base, pace)
}

/// The pause before the first check.
pub(super) fn before_first(pace: &Pace) -> Duration {
    random(pace.initial_jitter)
}

fn jittered(base: Duration, pace: &Pace) -> Duration {
    let share = base.saturating_mul(pace.jitter_percent) / 100;
    let pause = base.saturating_add(random(share)).saturating_add(random(pace.jitter));
    pause.max(Duration::from_millis(1))
}

/// At random, less than this.
fn random(below: Duration) -> Duration {
    match u64::try_from(below.as_millis()) {
        Ok(0) => Duration::ZERO,
        Ok(below) => Duration::from_millis(fastrand::u64(0..below)),
        Err(_) => below,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let seconds = Duration::from_secs;
        Pace {
            interval: seconds(1),
            no_traffic: seconds(2),
            no_traffic_healthy: seconds(3),
            unhealthy: seconds(4),
            unhealthy_edge: seconds(5),
            healthy_edge: seconds(6),
            initial_jitter: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_percent: 0,
        }
    }

    #[test]
    fn each_situation_has_its_interval() {
        use Transition::{Changed, None, Pending};
        for (passed, transition, traffic, expected) in [
            (true, None, true, 1),
            (true, Changed, true, 1),
            (true, Pending, true, 6),
            (false, None, true, 4),
            (false, Changed, true, 4),
            (false, Pending, true, 5),
            (true, None, false, 3),
            (true, Changed, false, 3),
            // An unhealthy one that begins to pass is watched at the pace of the unhealthy.
            (true, Pending, false, 2),
            (false, None, false, 2),
            (false, Pending, false, 2),
        ] {
            let got = pause(&pace(), passed, transition, traffic);
            assert_eq!(got, Duration::from_secs(expected), "{passed} {transition:?} {traffic}");
        }
    }

    #[test]
    fn jitter_adds_and_stays_below_its_bounds() {
        let pace = Pace { jitter: Duration::from_millis(500), jitter_percent: 50, ..pace() };
        let pauses: Vec<Duration> =
            (0..1000).map(|_| pause(&pace, true, Transition::None, true)).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(1) && *most < Duration::from_secs(2));
        assert!(*most - *least > Duration::from_millis(500), "both parts vary");
        let first = Pace { initial_jitter: Duration::from_secs(1), ..pace };
        assert!((0..100).all(|_| before_first(&first) < Duration::from_secs(1)));
    }
}
