//! How long an endpoint takes to answer: a moving average that rises at once and falls slowly (peak EWMA).
//!
//! A round trip longer than the average replaces it; a shorter one moves it by how long ago the last one was, with the time
//! constant `decay`. An endpoint from which nothing is heard is forgiven at the same pace, so that it is tried again and the
//! next answer tells. The rule is that of Twitter's Finagle (`PeakEwma`, "Beyond Round Robin: Load Balancing for Latency",
//! Buoyant 2016) and of tower's `PeakEwma`, which linkerd uses.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The unit of the time of an observation: 100 us. Of 32 bits they last for five days; who was silent for longer counts as
/// if it had been heard later than it was.
const TICK: f64 = 100e-6;

/// How long an endpoint takes to answer.
#[derive(Debug)]
pub(crate) struct Latency {
    /// The average in seconds, as the bits of an `f32` other than 0, and behind it ticks after `made`; 0: nothing was
    /// observed. One word, so that workers see an average and the time of that average.
    average: AtomicU64,
    made: Instant,
}

impl Default for Latency {
    fn default() -> Self {
        Self { average: AtomicU64::new(0), made: Instant::now() }
    }
}

impl Latency {
    /// Notes how long an answer took. `decay` is the time constant.
    pub(crate) fn observe(&self, round_trip: Duration, decay: Duration) {
        let now = self.now();
        let seen = round_trip.as_secs_f64();
        let next = |before: u64| {
            let average = match unpack(before) {
                Some((average, at)) if average > seen => {
                    let weight = weight(now.wrapping_sub(at), decay);
                    average * weight + seen * (1.0 - weight)
                }
                _ => seen,
            };
            Some(pack(average, now))
        };
        // It never refuses.
        let _ = self.average.fetch_update(Relaxed, Relaxed, next);
    }

    /// The average of this moment, in seconds; `None`: nothing was observed.
    pub(crate) fn current(&self, decay: Duration) -> Option<f64> {
        let (average, at) = unpack(self.average.load(Relaxed))?;
        Some(average * weight(self.now().wrapping_sub(at), decay))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // wraps around after five days
    fn now(&self) -> u32 {
        (self.made.elapsed().as_secs_f64() / TICK) as u64 as u32
    }
}

/// What is left of an average after so many ticks.
fn weight(ticks: u32, decay: Duration) -> f64 {
    (-f64::from(ticks) * TICK / decay.as_secs_f64()).exp()
}

#[allow(clippy::cast_possible_truncation)] // seven digits are plenty
fn pack(average: f64, at: u32) -> u64 {
    u64::from((average as f32).max(f32::MIN_POSITIVE).to_bits()) << 32 | u64::from(at)
}

#[allow(clippy::cast_possible_truncation)] // the two halves
fn unpack(bits: u64) -> Option<(f64, u32)> {
    let average = (bits >> 32) as u32;
    (average != 0).then(|| (f64::from(f32::from_bits(average)), bits as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn milliseconds(latency: &Latency) -> f64 {
        (latency.current(DECAY).unwrap() * 1e4).round() / 10.0
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.current(DECAY), None);
        latency.observe(Duration::from_millis(10), DECAY);
        assert_eq!(milliseconds(&latency), 10.0);
        latency.observe(Duration::from_millis(500), DECAY);
        assert_eq!(milliseconds(&latency), 500.0, "a peak");
        latency.observe(Duration::from_millis(10), DECAY);
        assert_eq!(milliseconds(&latency), 500.0, "no time has passed");
        tokio::time::advance(DECAY).await;
        latency.observe(Duration::from_millis(10), DECAY);
        // 500/e, and 10 for the rest.
        assert_eq!(milliseconds(&latency), 190.3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_left_alone_is_forgiven() {
        let latency = Latency::default();
        latency.observe(Duration::from_secs(1), DECAY);
        tokio::time::advance(3 * DECAY).await;
        assert_eq!(milliseconds(&latency), 49.8);
        tokio::time::advance(30 * DECAY).await;
        assert_eq!(milliseconds(&latency), 0.0);
        latency.observe(Duration::from_millis(1), DECAY);
        assert!(milliseconds(&latency) >= 1.0);
    }

    #[test]
    fn the_smallest_round_trip_is_an_observation() {
        let latency = Latency::default();
        latency.observe(Duration::ZERO, DECAY);
        assert!(latency.current(DECAY).is_some());
    }
}
