//! What the workers serve from: listeners, route tables and clusters by id, immutable, swapped whole.
//!
//! The control thread builds the next snapshot from the last one and stores it in one `ArcSwap`; a request that has begun
//! keeps the snapshot it began with. An update copies one table of pointers and never what they point to. Endpoints are
//! not in here: each cluster swaps its own host set.

/// A listener's place in the snapshot. Stable while the listener lives, across its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListenerId(pub(crate) u32);

/// A route configuration's place in the snapshot, discovered or inline. Stable while something uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RouteConfigId(pub(crate) u32);

impl ListenerId {
    /// As an index into the table of listeners.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl RouteConfigId {
    /// As an index into the table of route configurations.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
