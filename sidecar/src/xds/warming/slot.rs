//! One cluster or listener in its versions.

use std::sync::Arc;

use tokio::time::Instant;

/// One cluster or listener.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) active: Option<Arc<T>>,
    pub(super) warming: Option<Waiting<T>>,
    /// What was active before, until it is known that the new one was taken.
    pub(super) previous: Option<Arc<T>>,
}

/// A version that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) config: Arc<T>,
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
}

impl<T> Slot<T> {
    /// Every version that refers to something.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<T>> {
        self.active.iter().chain(self.warming.as_ref().map(|waiting| &waiting.config))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { active: None, warming: None, previous: None }
    }
}
