//! Log-linear histograms, in the bins of Envoy's (circllhist): two significant decimal digits.
//!
//! Recording is one load and store, memory is fixed and taken a decade at a time. Quantiles, bucket counts and sums
//! come out as Envoy's do for the same samples.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of Prometheus buckets, and of `/stats?histogram_buckets=cumulative`. Envoy's defaults.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles that text and JSON print, in percent. Envoy's.
pub(crate) const QUANTILES: [f64; 10] =
    [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Decades above the first: values up to 10^13 are told apart (in milliseconds, three centuries).
const DECADES: usize = 12;

/// A histogram of whole numbers, written by one thread.
#[derive(Debug, Default)]
pub(crate) struct Histogram(OnceLock<Box<Bins>>);

#[derive(Debug, Default)]
struct Bins {
    /// Values 0 to 9.
    small: [AtomicU64; 10],
    /// For decade `d` the values of `[10^(d+1), 10^(d+2))` in steps of `10^d`.
    decades: [OnceLock<Box<[AtomicU64; 90]>>; DECADES],
}

impl Histogram {
    /// Records one sample, in the unit of the histogram's name (`_ms`, or none: milliseconds for times).
    pub(crate) fn record(&self, value: u64) {
        let bins = self.0.get_or_init(Box::default);
        let bin = if value < 10 {
            bins.small.get(value as usize)
        } else {
            let decade = (value.ilog10() as usize - 1).min(DECADES - 1);
            let step = 10u64.pow(decade as u32);
            let digits = (value / step).min(99) as usize;
            bins.decades
                .get(decade)
                .map(|bins| {
                    bins.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
                })
                .and_then(|bins| bins.get(digits - 10))
        };
        if let Some(bin) = bin {
            bin.store(bin.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Adds what was recorded to `snapshot`.
    pub(crate) fn add_to(&self, snapshot: &mut Snapshot) {
        let Some(bins) = self.0.get() else { return };
        for (value, bin) in bins.small.iter().enumerate() {
            snapshot.add(value as u16, bin.load(Relaxed));
        }
        for (decade, bins) in bins.decades.iter().enumerate() {
            for (digits, bin) in bins.get().into_iter().flat_map(|bins| bins.iter()).enumerate() {
                snapshot.add((10 + decade * 90 + digits) as u16, bin.load(Relaxed));
            }
        }
    }
}

/// What a histogram held at one moment, over all shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// Bins that are not empty, in order of their values.
    bins: Vec<(u16, u64)>,
}

impl Snapshot {
    fn add(&mut self, bin: u16, count: u64) {
        if count == 0 {
            return;
        }
        match self.bins.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(at) => self.bins[at].1 += count,
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Number of samples.
    pub(crate) fn count(&self) -> u64 {
        self.bins.iter().map(|&(_, count)| count).sum()
    }

    /// Sum of the samples, each taken for the (harmonic) middle of its bin, as circllhist does.
    pub(crate) fn sum(&self) -> f64 {
        let mut sum = 0.0;
        for &(bin, count) in &self.bins {
            let (left, width) = bounds(bin);
            if left > 0.0 {
                sum += 2.0 * left * (left + width) / (left + left + width) * count as f64;
            }
        }
        sum
    }

    /// For each of these bounds the number of samples in bins that begin at or below it.
    pub(crate) fn cumulative(&self, of: &[f64]) -> Vec<u64> {
        let below = |bound: &f64| {
            self.bins
                .iter()
                .filter(|&&(bin, _)| bounds(bin).0 <= *bound)
                .map(|&(_, count)| count)
                .sum()
        };
        of.iter().map(below).collect()
    }

    /// The value of each of [`QUANTILES`]; `None` without samples.
    ///
    /// The `k`-th of the `n` samples of a bin is taken to lie at `k/(n+1)` of its width.
    pub(crate) fn quantiles(&self) -> Option<[f64; QUANTILES.len()]> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        Some(QUANTILES.map(|percent| {
            let rank = (percent / 100.0 * total as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            for &(bin, count) in &self.bins {
                if rank <= below + count {
                    let (left, width) = bounds(bin);
                    return left + (rank - below) as f64 / (count + 1) as f64 * width;
                }
                below += count;
            }
            self.bins.last().map_or(0.0, |&(bin, _)| bounds(bin).0)
        }))
    }

    /// Every bin that is not empty: where it begins, how wide it is, and its samples.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        self.bins.iter().map(|&(bin, count)| {
            let (left, width) = bounds(bin);
            (left, width, count)
        })
    }

    /// What was recorded since `earlier`, a snapshot of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for &(bin, count) in &self.bins {
            let before = earlier
                .bins
                .binary_search_by_key(&bin, |&(bin, _)| bin)
                .map_or(0, |at| earlier.bins[at].1);
            difference.add(bin, count.saturating_sub(before));
        }
        difference
    }
}

/// Left end and width of a bin. A bin of a single digit is a tenth wide, as two digits demand.
fn bounds(bin: u16) -> (f64, f64) {
    if bin == 0 {
        (0.0, 0.0)
    } else if bin < 10 {
        (f64::from(bin), 0.1)
    } else {
        let step = 10f64.powi(i32::from((bin - 10) / 90));
        (f64::from((bin - 10) % 90 + 10) * step, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(values: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        let mut snapshot = Snapshot::default();
        histogram.add_to(&mut snapshot);
        snapshot
    }

    /// The figures are what Envoy 1.40 prints for these samples.
    #[test]
    fn quantiles_and_sums_are_those_of_envoy() {
        let quantiles = snapshot(&[1, 1, 2]).quantiles().unwrap();
        assert_eq!(quantiles[0], 1.0333333333333334);
        assert_eq!(quantiles[2], 1.0666666666666667);
        assert_eq!((quantiles[3], quantiles[9]), (2.05, 2.05));
        assert_eq!(snapshot(&[2012]).quantiles().unwrap()[4], 2050.0);
        let zeros = snapshot(&[0, 0, 0, 0, 0, 4]);
        let quantiles = zeros.quantiles().unwrap();
        assert_eq!((quantiles[3], quantiles[4]), (0.0, 4.05));
        assert_eq!(zeros.sum(), 4.049382716049383);
        assert_eq!(snapshot(&[1, 1, 1]).sum(), 3.1428571428571432);
        assert_eq!(snapshot(&[1, 1, 2]).cumulative(&BUCKETS)[..3], [0, 2, 3]);
    }

    #[test]
    fn each_value_falls_into_a_bin_that_holds_it_up_to_two_digits() {
        for value in (0..2000).chain([9_999, 10_000, 99_999, 123_456, 999_999_999_999]) {
            let snapshot = snapshot(&[value]);
            let (left, width) = bounds(snapshot.bins[0].0);
            let value = value as f64;
            assert!(left <= value && (value < left + width || value == 0.0), "{value}");
            assert!(width <= value.max(1.0) / 10.0 + 1e-9, "{value}");
        }
        assert_eq!(snapshot(&[u64::MAX]).count(), 1);
    }

    #[test]
    fn a_difference_holds_what_came_after_the_earlier_snapshot() {
        let (earlier, later) = (snapshot(&[3, 70]), snapshot(&[3, 3, 70, 5000]));
        assert_eq!(later.since(&earlier), snapshot(&[3, 5000]));
        assert!(later.since(&later).is_empty());
    }
}
