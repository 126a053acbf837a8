//! Where the mesh is kept.
//!
//! Reading order: [`Store`], what any store can do; [`history`], what is remembered of a revision; [`records`], the small
//! tables that identity keeps in it; [`embedded`], the one that is a file.

pub mod embedded;
pub mod history;
pub mod records;

#[cfg(test)]
mod tests;

pub use embedded::EmbeddedStore;
pub use history::{ChangeKind, RecordedChange, Revision};
pub use records::{Records, records};

use crate::model::config::Change;
use crate::model::{Config, Object};
use std::path::PathBuf;
use tokio::sync::watch;

/// What any store can do. Calls block until what they did is durable: from async code, use `spawn_blocking`.
pub trait Store: Send + Sync + 'static {
    /// The configuration in force. Never blocks.
    fn current(&self) -> Config;

    /// The configuration in force, and every later one (of several in quick succession, perhaps only the last).
    fn watch(&self) -> watch::Receiver<Config>;

    /// Makes `changes` in one step, as the revision after `base`. All of it is durable before the call returns. What the
    /// changes make of the configuration was validated before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if `base` is no longer the revision in force; nothing is changed then, nor when the store
    /// fails.
    fn transaction(
        &self,
        base: u64,
        changes: &[Change],
        author: &str,
    ) -> Result<Config, StoreError>;

    /// Revisions later than `after`, oldest first, at most `limit`. Very old ones are not kept.
    ///
    /// # Errors
    /// If the store fails.
    fn history(&self, after: u64, limit: usize) -> Result<Vec<Revision>, StoreError>;

    /// Every object as it was at `revision`; `None` if that is in the future, or too long ago to be kept.
    ///
    /// # Errors
    /// If the store fails.
    fn objects_at(&self, revision: u64) -> Result<Option<Vec<Object>>, StoreError>;

    /// Runs `work` on the small tables in one transaction, which is kept if it answers [`Outcome::Commit`]. Transactions
    /// see each other's effects whole or not at all. `work` may run more than once. Use [`records()`], which carries
    /// values and errors out.
    ///
    /// # Errors
    /// If the store fails; nothing is kept then.
    fn record_transaction(
        &self,
        work: &mut dyn FnMut(&mut dyn Records) -> Outcome,
    ) -> Result<(), StoreError>;
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything it did is durable before the call returns.
    Commit,
    /// Nothing it did is kept.
    Rollback,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data directory.
    #[error("{} is in use by another control plane (its lock file is held)", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory, or a file in it, cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else was faster.
    #[error("the configuration is at revision {current}, no longer at {base}")]
    Conflict {
        /// The revision the changes were made for.
        base: u64,
        /// The one in force.
        current: u64,
    },
    /// The database says no.
    #[error("the store failed: {0}")]
    Database(#[from] redb::Error),
    /// It was written by a newer version.
    #[error("the store has schema version {found}, this version knows up to {known}")]
    NewerSchema {
        /// Version of the file.
        found: u64,
        /// Version of this software.
        known: u64,
    },
    /// It holds what cannot be read.
    #[error("the store holds what cannot be read, at {place}: {reason}")]
    Corrupt {
        /// Which entry.
        place: String,
        /// Why.
        reason: String,
    },
}

macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        })+
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
