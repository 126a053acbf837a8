//! Latencies in buckets whose width grows with the value: a fixed 12 KB, and never more than 1.6 % off.

use std::time::Duration;

/// Buckets per power of two, as a power of two.
const PRECISION: u32 = 6;
/// Enough for 2^27 µs, two minutes; what lasts longer is counted in the last bucket.
const BUCKETS: usize = (27 - PRECISION as usize + 1) << PRECISION;

/// Counts by latency.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Histogram {
    /// Counts one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// The latency that `percent` of all values do not exceed; zero if there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let rank =
            ((percent / 100.0 * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_bound(index));
            }
        }
        Duration::ZERO
    }

    /// What was counted here and not yet in `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (count, before) in difference.counts.iter_mut().zip(earlier.counts.iter()) {
            *count -= before;
        }
        difference.total -= earlier.total;
        difference
    }
}

fn bucket(micros: u64) -> usize {
    let index = if micros < 2 << PRECISION {
        micros as usize
    } else {
        let shift = 63 - micros.leading_zeros() - PRECISION;
        ((shift as usize) << PRECISION) + (micros >> shift) as usize
    };
    index.min(BUCKETS - 1)
}

/// The greatest number of microseconds in the bucket.
fn upper_bound(index: usize) -> u64 {
    if index < 2 << PRECISION {
        return index as u64;
    }
    let shift = (index >> PRECISION) - 1;
    let base = (index - (shift << PRECISION)) as u64;
    ((base + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_at_most_two_percent_above_it() {
        for micros in (0..70_000_000).step_by(997) {
            let bound = upper_bound(bucket(micros));
            assert!(bound >= micros, "{micros} in a bucket up to {bound}");
            assert!(
                bound as f64 <= micros as f64 * 1.02 + 1.0,
                "{micros} in a bucket up to {bound}"
            );
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for index in 1..BUCKETS {
            assert_eq!(bucket(upper_bound(index - 1) + 1), index);
        }
    }

    #[test]
    fn percentiles_are_those_of_the_recorded_values() {
        let mut histogram = Histogram::default();
        for millis in 1..=100 {
            histogram.record(Duration::from_millis(millis));
        }
        let near = |percent, millis: u64| {
            let value = histogram.percentile(percent).as_micros() as f64;
            let expected = millis as f64 * 1000.0;
            assert!((value - expected).abs() <= expected * 0.02, "p{percent} = {value} µs");
        };
        near(50.0, 50);
        near(99.0, 99);
        near(100.0, 100);
        assert_eq!(Histogram::default().percentile(99.0), Duration::ZERO);
    }

    #[test]
    fn a_difference_forgets_what_was_counted_before() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_secs(200));
        let earlier = histogram.clone();
        histogram.record(Duration::from_micros(5));
        assert_eq!(histogram.since(&earlier).percentile(99.9), Duration::from_micros(5));
    }
}
