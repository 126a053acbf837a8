//! The resources that came, as they came: what `/config_dump` shows, what the disk keeps, and how it is known that a
//! resource comes again unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::google::protobuf::Any;

use super::{Kind, Refusal};

/// Every resource by type and name. Lives on the control thread; the admin interface reads it there.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    tables: [Table; Kind::ALL.len()],
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Arc<str>, Entry>,
    /// Accepted resources changed since [`Resources::take_changed`] was last asked.
    changed: bool,
}

/// Everything known of one resource.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// In effect.
    pub(crate) active: Option<Version>,
    /// Accepted, and waiting for what it refers to.
    pub(crate) warming: Option<Version>,
    /// The last version was refused.
    pub(crate) error: Option<ErrorState>,
}

/// One version of a resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    /// As the server named it.
    pub(crate) version: String,
    /// When it came.
    pub(crate) updated: SystemTime,
    /// The resource.
    pub(crate) body: Any,
}

/// A version that was refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorState {
    /// As the server named it.
    pub(crate) version: String,
    /// When it came.
    pub(crate) time: SystemTime,
    /// Every field and reason, a line each.
    pub(crate) details: String,
    /// What was refused, if it could be read at all.
    pub(crate) body: Option<Any>,
}

impl Resources {
    /// The resources of a type, by name.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.table(kind).entries.iter()
    }

    /// Whether a resource is, byte by byte, what was accepted last, so that there is nothing to do.
    pub(crate) fn is_current(&self, kind: Kind, name: &str, body: &Any) -> bool {
        self.table(kind).entries.get(name).is_some_and(|entry| {
            entry.error.is_none() && entry.accepted().is_some_and(|accepted| accepted.body == *body)
        })
    }

    /// Whether some version of a resource was accepted.
    pub(crate) fn is_accepted(&self, kind: Kind, name: &str) -> bool {
        self.table(kind).entries.get(name).is_some_and(|entry| entry.accepted().is_some())
    }

    /// Whether some version of a resource came.
    pub(crate) fn is_known(&self, kind: Kind, name: &str) -> bool {
        self.table(kind).entries.contains_key(name)
    }

    /// The same resource came again, perhaps under a new version.
    pub(crate) fn confirm(&mut self, kind: Kind, name: &str, version: &str) {
        if let Some(entry) = self.table_mut(kind).entries.get_mut(name)
            && let Some(accepted) = entry.warming.as_mut().or(entry.active.as_mut())
            && accepted.version != version
        {
            version.clone_into(&mut accepted.version);
        }
    }

    /// A new version came and is accepted. It counts as waiting until [`Resources::activate`].
    pub(crate) fn accept(&mut self, kind: Kind, name: &Arc<str>, version: &str, body: Any) {
        let table = self.table_mut(kind);
        table.changed = true;
        let entry = table.entries.entry(Arc::clone(name)).or_default();
        let updated = SystemTime::now();
        entry.warming = Some(Version { version: version.to_owned(), updated, body });
        entry.error = None;
    }

    /// What was accepted is in effect.
    pub(crate) fn activate(&mut self, kind: Kind, name: &str) {
        if let Some(entry) = self.table_mut(kind).entries.get_mut(name)
            && let Some(version) = entry.warming.take()
        {
            entry.active = Some(version);
        }
    }

    /// A version was refused: what is in effect stays.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, version: &str, body: Option<Any>) {
        let table = self.table_mut(refusal.kind);
        let entry = table.entries.entry(Arc::clone(&refusal.name)).or_default();
        // It may have been accepted and refused only when it was put into effect.
        let body = body.or_else(|| entry.warming.take().map(|version| version.body));
        let lines: Vec<String> = refusal.rejected.iter().map(ToString::to_string).collect();
        entry.error = Some(ErrorState {
            version: version.to_owned(),
            time: SystemTime::now(),
            details: lines.join("\n"),
            body,
        });
    }

    /// A resource is gone.
    pub(crate) fn remove(&mut self, kind: Kind, name: &str) {
        let table = self.table_mut(kind);
        table.changed |= table.entries.remove(name).is_some();
    }

    /// Whether accepted resources of a type changed since this was last asked.
    pub(crate) fn take_changed(&mut self, kind: Kind) -> bool {
        std::mem::take(&mut self.table_mut(kind).changed)
    }

    fn table(&self, kind: Kind) -> &Table {
        &self.tables[kind as usize]
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table {
        &mut self.tables[kind as usize]
    }
}

impl Entry {
    /// The version accepted last, in effect or waiting.
    pub(crate) fn accepted(&self) -> Option<&Version> {
        self.warming.as_ref().or(self.active.as_ref())
    }
}
