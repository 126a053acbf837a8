//! What filters note of a request for each other, for routes and for logs. Made when something is first noted.

use crate::config::metadata::{FilterState, Metadata};

/// What was noted.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Objects by namespace: the dynamic metadata.
    pub(crate) metadata: Metadata,
    /// Texts by key.
    pub(crate) filter_state: FilterState,
}

/// The dynamic metadata of a request that may have none.
pub(crate) fn metadata_of(state: Option<&StreamState>) -> Option<&Metadata> {
    state.map(|state| &state.metadata)
}

/// The filter state of a request that may have none.
pub(crate) fn filter_state_of(state: Option<&StreamState>) -> Option<&FilterState> {
    state.map(|state| &state.filter_state)
}
