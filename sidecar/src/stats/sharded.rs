//! One copy of a struct of cells for each thread that uses it.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Says which shard the current thread writes: 0 is the control thread (and the default), `1..=workers` the workers.
///
/// Called once, at the start of a worker's thread. Two threads of one shard would lose counts, never more.
pub(crate) fn set_shard(index: usize) {
    SHARD.with(|shard| shard.set(index));
}

/// The shard of the current thread.
#[inline]
pub(crate) fn shard() -> usize {
    SHARD.with(Cell::get)
}

/// The cells `C` of one scope, once for each thread.
///
/// A shard is allocated when its thread first writes, so that a scope that is not used costs a pointer a thread. Each is
/// padded to its own cache lines: threads never write to the same one.
pub(crate) struct Sharded<C> {
    shards: Box<[OnceLock<Box<CachePadded<C>>>]>,
}

impl<C: Default> Sharded<C> {
    /// For `shards` threads: the control thread and the workers. See [`Registry::shards`](super::Registry::shards).
    pub(crate) fn new(shards: usize) -> Self {
        Self { shards: (0..shards.max(1)).map(|_| OnceLock::new()).collect() }
    }

    /// The cells of the current thread.
    #[inline]
    pub(crate) fn local(&self) -> &C {
        // A thread that has no shard here (a test's, or one of a pool) writes the control thread's.
        let shard = self.shards.get(shard()).or(self.shards.first());
        match shard {
            Some(shard) => shard.get_or_init(Box::default),
            None => unreachable!("there is always a first shard"),
        }
    }

    /// The cells of every thread that has written.
    pub(crate) fn used(&self) -> impl Iterator<Item = &C> {
        self.shards.iter().filter_map(|shard| shard.get().map(|cells| &***cells))
    }
}

impl<C> fmt::Debug for Sharded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharded").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Counter;

    #[test]
    fn an_unused_scope_allocates_no_shard_and_each_thread_writes_its_own() {
        let cells: Sharded<Counter> = Sharded::new(3);
        assert_eq!(cells.used().count(), 0);
        std::thread::scope(|scope| {
            for worker in [1, 2] {
                let cells = &cells;
                scope.spawn(move || {
                    set_shard(worker);
                    (0..1000).for_each(|_| cells.local().inc());
                });
            }
        });
        assert_eq!(cells.used().map(Counter::value).collect::<Vec<_>>(), [1000, 1000]);
    }
}
