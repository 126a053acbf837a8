//! Requests that wait until discovery has an answer: who waits for what. Pure: no I/O, no time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Kind;
use crate::config::config_source::Origin;

/// So many names may be waited for. They come from clients; what is more is answered as if there were no such thing.
const MAX_NAMES: usize = 10_000;

/// Who waits. To drop one of them tells it that it need not any longer.
type Waiting = Vec<oneshot::Sender<()>>;

/// Everything that is waited for.
#[derive(Debug, Default)]
pub(super) struct Demands {
    waiting: HashMap<(Kind, Arc<str>), Waiting>,
    /// Clusters that are asked for by name, of each source: also those that came.
    clusters: HashMap<Origin, BTreeSet<Arc<str>>>,
}

/// Whether a name has to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It has.
    New,
    /// Somebody waits for it already.
    Before,
    /// Too many names are waited for.
    TooMany,
}

impl Demands {
    /// Lets one more wait for a name.
    pub(super) fn wait(
        &mut self,
        kind: Kind,
        name: &Arc<str>,
        settled: oneshot::Sender<()>,
    ) -> Asked {
        if let Some(waiting) = self.waiting.get_mut(&(kind, Arc::clone(name))) {
            waiting.retain(|other| !other.is_closed());
            waiting.push(settled);
            return Asked::Before;
        }
        if self.waiting.len() >= MAX_NAMES {
            return Asked::TooMany;
        }
        self.waiting.insert((kind, Arc::clone(name)), vec![settled]);
        Asked::New
    }

    /// Whether somebody waits for a name.
    pub(super) fn is_waiting(&self, kind: Kind, name: &Arc<str>) -> bool {
        self.waiting.contains_key(&(kind, Arc::clone(name)))
    }

    /// Nobody has to wait for a name any longer.
    pub(super) fn settle(&mut self, kind: Kind, name: &Arc<str>) {
        self.waiting.remove(&(kind, Arc::clone(name)));
    }

    /// As [`Demands::settle`], for the clusters that are there.
    pub(super) fn settle_clusters(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.waiting.retain(|(kind, name), _| *kind != Kind::Cluster || !is_there(name));
    }

    /// Asks a source for a cluster by its name. Returns whether that is new.
    pub(super) fn ask_for_cluster(&mut self, origin: &Origin, name: &Arc<str>) -> bool {
        self.clusters.entry(origin.clone()).or_default().insert(Arc::clone(name))
    }

    /// A cluster is not asked for any longer, and not waited for. Returns whether it was.
    pub(super) fn forget_cluster(&mut self, origin: &Origin, name: &Arc<str>) -> bool {
        self.settle(Kind::Cluster, name);
        self.clusters.get_mut(origin).is_some_and(|names| names.remove(name))
    }

    /// The clusters that a source is asked for by name.
    pub(super) fn clusters(&self, origin: &Origin) -> Arc<BTreeSet<Arc<str>>> {
        Arc::new(self.clusters.get(origin).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_however_many_wait_for_it() {
        let mut demands = Demands::default();
        let name: Arc<str> = "a".into();
        let (first, mut gone) = oneshot::channel();
        let (second, mut other) = oneshot::channel();
        assert_eq!(demands.wait(Kind::Cluster, &name, first), Asked::New);
        assert_eq!(demands.wait(Kind::Cluster, &name, second), Asked::Before);
        assert!(gone.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        demands.settle_clusters(&|name| name == "a");
        for waiting in [&mut gone, &mut other] {
            let told = waiting.try_recv().unwrap_err();
            assert_eq!(told, oneshot::error::TryRecvError::Closed, "it need not wait");
        }
        assert!(!demands.is_waiting(Kind::Cluster, &name));
    }

    #[test]
    fn names_of_clients_are_bounded() {
        let mut demands = Demands::default();
        let mut kept = Vec::new();
        for index in 0..=MAX_NAMES {
            let (settled, waits) = oneshot::channel();
            kept.push(waits);
            let asked = demands.wait(Kind::VirtualHost, &index.to_string().into(), settled);
            let expected = if index < MAX_NAMES { Asked::New } else { Asked::TooMany };
            assert_eq!(asked, expected);
        }
    }
}
