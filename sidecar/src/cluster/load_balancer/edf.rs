//! Earliest deadline first: weighted turns in `O(log n)`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule over the places `0..n` of a list.
///
/// Every entry is due one `1 / weight` after it was chosen last; the entry that is due first is chosen. So over time each
/// is chosen in proportion to its weight, and as evenly spread as can be.
pub(super) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    order: u64,
}

struct Entry {
    deadline: f64,
    /// Of equal deadlines the one that was inserted first comes first.
    order: u64,
    at: usize,
}

impl Edf {
    /// A schedule that stands somewhere in the middle of its course: were all workers to begin at the beginning, they
    /// would all choose the same endpoint first.
    pub(super) fn new(weights: impl Iterator<Item = f64>) -> Self {
        Self::starting_at(weights, fastrand::f64())
    }

    /// The schedule as it stands after running from 0 to `now` with constant weights: each entry's next deadline is the
    /// first multiple of `1 / weight` after `now`.
    fn starting_at(weights: impl Iterator<Item = f64>, now: f64) -> Self {
        let queue: BinaryHeap<Entry> = weights
            .zip(0u64..)
            .map(|(weight, order)| Entry {
                deadline: ((weight * now).floor() + 1.0) / weight,
                order,
                at: order as usize,
            })
            .collect();
        Self { now, order: queue.len() as u64, queue }
    }

    /// The next place; it is scheduled again with its weight of this moment.
    pub(super) fn pick(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let mut next = self.queue.peek_mut()?;
        let at = next.at;
        self.now = self.now.max(next.deadline);
        self.order += 1;
        *next = Entry { deadline: self.now + 1.0 / weight(at), order: self.order, at };
        Some(at)
    }
}

impl Ord for Entry {
    /// The greatest of a [`BinaryHeap`] is the one that is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then_with(|| other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_chosen_in_proportion_to_its_weight_and_evenly_spread() {
        let weights = [3.0, 1.0];
        let mut edf = Edf::starting_at(weights.into_iter(), 0.0);
        let picks: Vec<_> = (0..8).map(|_| edf.pick(|at| weights[at]).unwrap()).collect();
        assert_eq!(picks.iter().filter(|&&at| at == 0).count(), 6);
        assert!(picks.windows(2).all(|pair| pair != [1, 1]), "{picks:?}");
    }

    #[test]
    fn equal_weights_go_in_turn() {
        let mut edf = Edf::starting_at([1.0; 3].into_iter(), 0.0);
        let picks: Vec<_> = (0..6).map(|_| edf.pick(|_| 1.0).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_schedule_begins_where_it_would_stand_by_then() {
        // No two are ever due at the same moment.
        let weights = [5.0, 3.1, 1.7];
        let mut from_start = Edf::starting_at(weights.into_iter(), 0.0);
        // By 0.7 they were due three times, twice and once.
        for _ in 0..6 {
            from_start.pick(|at| weights[at]);
        }
        let mut later = Edf::starting_at(weights.into_iter(), 0.7);
        for _ in 0..50 {
            assert_eq!(later.pick(|at| weights[at]), from_start.pick(|at| weights[at]));
        }
    }

    #[test]
    fn a_changed_weight_counts_from_the_next_time_it_is_scheduled() {
        let mut edf = Edf::starting_at([1.0, 1.0].into_iter(), 0.0);
        let picks: Vec<_> = (0..12).map(|_| edf.pick(|at| [1.0, 0.1][at]).unwrap()).collect();
        // It keeps the turn it had, and then waits for ten.
        assert_eq!(picks[1], 1);
        assert_eq!(picks[2..11], [0; 9]);
    }
}
