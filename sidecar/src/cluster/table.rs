//! All clusters by their ids.

use std::sync::Arc;

use super::cluster::{Cluster, ClusterId};

const CHUNK: usize = 64;

/// A run of places.
type Chunk = Arc<[Option<Arc<Cluster>>]>;

/// All clusters by their ids.
///
/// In chunks, so that the change of one cluster copies one chunk and a list of chunks, and never touches the others.
#[derive(Clone, Default)]
pub(crate) struct ClusterTable {
    chunks: Arc<[Chunk]>,
}

impl ClusterTable {
    /// The cluster of an id, if it exists at the moment.
    #[inline]
    pub(crate) fn get(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.chunks.get(id.index() / CHUNK)?.get(id.index() % CHUNK)?.as_ref()
    }

    /// Every cluster, in order of the ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// The table with some places changed.
    pub(super) fn with(
        &self,
        changes: impl IntoIterator<Item = (ClusterId, Option<Arc<Cluster>>)>,
    ) -> Self {
        let mut chunks: Vec<_> = self.chunks.to_vec();
        let mut open: Option<(usize, Vec<Option<Arc<Cluster>>>)> = None;
        for (id, cluster) in changes {
            let at = id.index() / CHUNK;
            if chunks.len() <= at {
                chunks.resize_with(at + 1, || vec![None; CHUNK].into());
            }
            // Changes come sorted as a rule: a chunk is copied once for all of its changes.
            if open.as_ref().is_none_or(|&(index, _)| index != at) {
                if let Some((index, chunk)) = open.take() {
                    chunks[index] = chunk.into();
                }
                open = Some((at, chunks[at].to_vec()));
            }
            if let Some((_, chunk)) = &mut open {
                chunk[id.index() % CHUNK] = cluster;
            }
        }
        if let Some((index, chunk)) = open {
            chunks[index] = chunk.into();
        }
        Self { chunks: chunks.into() }
    }
}

impl std::fmt::Debug for ClusterTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
