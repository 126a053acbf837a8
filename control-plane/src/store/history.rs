//! [`Revision`]: what is remembered of one transaction.

use crate::model::config::Change;
use crate::model::{Config, Kind};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is remembered of one transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// When it was made, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who made it, as far as known.
    pub author: String,
    /// What it changed.
    pub changes: Vec<RecordedChange>,
}

impl Revision {
    /// The revision that `changes` make of `base`, now.
    pub(super) fn of(base: &Config, changes: &[Change], author: &str) -> Self {
        let changes =
            changes.iter().filter_map(|change| RecordedChange::of(base, change)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Self { revision: base.revision() + 1, at_ms, author: author.to_owned(), changes }
    }

    /// When it was made.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at_ms)
    }
}

/// One object before and after a transaction, as documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedChange {
    /// Its kind, as documents spell it.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// As it was; absent if it did not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// As it is since; absent if it does not exist any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

impl RecordedChange {
    /// `None` for a change that changes nothing: the deletion of what is not there.
    fn of(base: &Config, change: &Change) -> Option<Self> {
        let (kind, name, after) = match change {
            Change::Put(object) => {
                (object.kind(), object.name(), serde_json::to_value(object).ok())
            }
            Change::Delete(kind, name) => (*kind, name.as_str(), None),
        };
        let before =
            base.object(kind, name).and_then(|(object, _)| serde_json::to_value(object).ok());
        if before.is_none() && after.is_none() {
            return None;
        }
        Some(Self { kind: kind.as_str().to_owned(), name: name.to_owned(), before, after })
    }

    /// Its kind; `None` if a newer version recorded one that this does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_document(&self.kind)
    }

    /// What happened to the object.
    pub fn action(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, _) => ChangeKind::Created,
            (Some(_), Some(_)) => ChangeKind::Updated,
            (Some(_), None) => ChangeKind::Deleted,
        }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It did not exist before.
    Created,
    /// It was another before.
    Updated,
    /// It does not exist any more.
    Deleted,
}
