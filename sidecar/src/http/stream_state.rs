//! What filters note of a request for each other, for routes and for logs. Made when something is first noted.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::metadata::{FilterState, Metadata, StateKind, StateText};

/// Where `envoy.filters.http.grpc_stats` notes what it counts.
const GRPC_STATS: &str = "envoy.filters.http.grpc_stats";

/// What was noted.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Objects by namespace: the dynamic metadata.
    pub(crate) metadata: Metadata,
    /// Texts by key.
    pub(crate) filter_state: FilterState,
    /// Of a gRPC call whose messages are to be noted.
    pub(crate) messages: Option<Rc<GrpcMessages>>,
}

/// The messages of a gRPC call so far.
#[derive(Debug, Default)]
pub(crate) struct GrpcMessages {
    pub(crate) request: Cell<u64>,
    pub(crate) response: Cell<u64>,
    /// There was a body, if an empty one.
    pub(crate) any: Cell<bool>,
}

impl StreamState {
    /// Notes what goes on changing while a request passes, as it is now.
    pub(crate) fn settle(&mut self) {
        let Some(messages) = self.messages.as_ref().filter(|messages| messages.any.get()) else {
            return;
        };
        let (request, response) = (messages.request.get(), messages.response.get());
        let text = format!("{request},{response}").into();
        let kind = StateKind::GrpcMessages { request, response };
        self.filter_state.set(&Arc::from(GRPC_STATS), StateText { text, kind });
    }
}

/// The dynamic metadata of a request that may have none.
pub(crate) fn metadata_of(state: Option<&StreamState>) -> Option<&Metadata> {
    state.map(|state| &state.metadata)
}

/// The filter state of a request that may have none.
pub(crate) fn filter_state_of(state: Option<&StreamState>) -> Option<&FilterState> {
    state.map(|state| &state.filter_state)
}
