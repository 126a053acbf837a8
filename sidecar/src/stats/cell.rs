//! The cells: each is written by one thread and read by any.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
///
/// Written by one thread with a plain load and store: two writers would lose counts, which is why a cell is reached
/// through [`Sharded::local`](super::Sharded::local).
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What this cell counted.
    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
///
/// One shard may go below zero when something is opened on one thread and closed on another; the sum over the shards
/// is right, because it is taken modulo 2^63. The top bit remembers that the gauge was ever written (`usedonly`).
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

const USED: u64 = 1 << 63;

impl Gauge {
    /// Adds one.
    #[inline]
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    #[inline]
    pub(crate) fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n) | USED, Relaxed);
    }

    /// Takes `n` away.
    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n) | USED, Relaxed);
    }

    /// Sets this shard's share. Meant for gauges that only one thread writes.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value | USED, Relaxed);
    }

    /// This shard's share, to be added modulo 2^63, and whether it was ever written.
    pub(crate) fn raw(&self) -> (u64, bool) {
        let raw = self.0.load(Relaxed);
        (raw & !USED, raw & USED != 0)
    }
}

/// Adds up shares of a gauge.
pub(crate) fn gauge_sum(shares: impl Iterator<Item = u64>) -> u64 {
    shares.fold(0u64, u64::wrapping_add) & !USED
}

/// Responses by status: one write counts the code, its class and the total.
///
/// Envoy counts `upstream_rq_503`, `upstream_rq_5xx` and `upstream_rq_completed` apart; here the last two are sums of
/// the first, made at scrape. Memory for a class is taken when its first response comes.
#[derive(Debug, Default)]
pub(crate) struct ResponseCodes {
    classes: [OnceLock<Box<[Counter; 100]>>; 5],
}

impl ResponseCodes {
    /// Counts one response. A status outside of 100 to 599 is not counted, as in Envoy.
    #[inline]
    pub(crate) fn record(&self, status: u16) {
        let Some(class) = (status / 100).checked_sub(1) else { return };
        if let Some(class) = self.classes.get(usize::from(class)) {
            let cells = class.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
            if let Some(cell) = cells.get(usize::from(status % 100)) {
                cell.inc();
            }
        }
    }

    /// Adds what was counted to `sums`, which is indexed by status minus 100.
    pub(crate) fn add_to(&self, sums: &mut [u64; 500]) {
        for (class, sums) in self.classes.iter().zip(sums.chunks_exact_mut(100)) {
            if let Some(cells) = class.get() {
                for (cell, sum) in cells.iter().zip(sums) {
                    *sum = sum.wrapping_add(cell.value());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_opened_on_one_shard_and_closed_on_another_sums_to_zero_and_stays_used() {
        let (opened, closed) = (Gauge::default(), Gauge::default());
        assert_eq!(opened.raw(), (0, false));
        opened.add(3);
        closed.sub(2);
        closed.dec();
        assert_eq!(gauge_sum([opened.raw().0, closed.raw().0].into_iter()), 0);
        assert!(opened.raw().1 && closed.raw().1);
        opened.inc();
        assert_eq!(gauge_sum([opened.raw().0, closed.raw().0].into_iter()), 1);
    }

    #[test]
    fn a_status_outside_of_100_to_599_is_not_counted() {
        let codes = ResponseCodes::default();
        for status in [0, 99, 100, 200, 200, 599, 600, 65535] {
            codes.record(status);
        }
        let mut sums = [0; 500];
        codes.add_to(&mut sums);
        assert_eq!((sums[0], sums[100], sums[499]), (1, 2, 1));
        assert_eq!(sums.iter().sum::<u64>(), 4);
    }
}
