//! [`EmbeddedStore`]: one redb file in the data directory, readable by its owner only.

use super::{Outcome, Records, Revision, Store, StoreError};
use crate::model::config::Change;
use crate::model::{Config, Kind, Object, read};
use redb::backends::FileBackend;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Format of the tables below. A file of a newer format is refused, never guessed at.
const SCHEMA: u64 = 1;

/// Numbers: [`SCHEMA_KEY`] and [`REVISION_KEY`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
const REVISION_KEY: &str = "revision";

/// Objects: (kind, name) to the revision that last changed it, and its document.
const OBJECTS: TableDefinition<'_, (&str, &str), (u64, &str)> = TableDefinition::new("objects");

/// Revision to [`Revision`], as JSON.
const HISTORY: TableDefinition<'_, u64, &str> = TableDefinition::new("history");

/// So many revisions are remembered unless told otherwise; older ones are forgotten, one with each new one.
const REVISIONS_KEPT: u64 = 10_000;

/// The small tables: (table, key) to bytes.
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");

/// A store in one file.
pub struct EmbeddedStore {
    database: Database,
    current: watch::Sender<Config>,
    revisions_kept: u64,
    /// From the check of the revision to the publication of the next one.
    writing: Mutex<()>,
    /// Held for as long as the store is: two control planes on one directory would issue from one authority.
    _lock: File,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, making both if they do not exist. The directory gets mode 0700 when it is made,
    /// the files always have 0600.
    ///
    /// # Errors
    /// If another process has the directory, if it cannot be written, or if what is in it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_keeping(directory, REVISIONS_KEPT)
    }

    /// As [`Self::open`], remembering so many revisions.
    pub(super) fn open_keeping(directory: &Path, revisions_kept: u64) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Open { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
        let lock_path = directory.join("lock");
        let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: directory.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
        let path = directory.join("mesh.redb");
        let file = private_file(&path).map_err(failed(&path))?;
        let backend = FileBackend::new(file)?;
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(SCHEMA_KEY)?.map(|value| value.value());
            match found {
                Some(found) if found > SCHEMA => {
                    return Err(StoreError::NewerSchema { found, known: SCHEMA });
                }
                Some(_) => {}
                None => drop(meta.insert(SCHEMA_KEY, SCHEMA)?),
            }
            transaction.open_table(RECORDS)?;
            transaction.open_table(OBJECTS)?;
            transaction.open_table(HISTORY)?;
        }
        transaction.commit()?;
        let config = restore(&database.begin_read()?)?;
        Ok(Self {
            database,
            current: watch::Sender::new(config),
            revisions_kept,
            writing: Mutex::new(()),
            _lock: lock,
        })
    }
}

/// The configuration that was in force at the last commit.
fn restore(transaction: &ReadTransaction) -> Result<Config, StoreError> {
    let meta = transaction.open_table(META)?;
    let revision = meta.get(REVISION_KEY)?.map_or(0, |value| value.value());
    let mut objects = Vec::new();
    for item in transaction.open_table(OBJECTS)?.iter()? {
        let (key, value) = item?;
        let (kind, name) = key.value();
        let (changed, document) = value.value();
        let object = read::object(document)
            .map_err(|reason| StoreError::Corrupt { place: format!("{kind} {name}"), reason })?;
        objects.push((object, changed));
    }
    Ok(Config::restored(revision, objects))
}

/// Writes a revision: every object it changes, and what is remembered of it.
fn write(
    transaction: &WriteTransaction,
    changes: &[Change],
    revision: &Revision,
    revisions_kept: u64,
) -> Result<(), StoreError> {
    let number = revision.revision;
    let mut objects = transaction.open_table(OBJECTS)?;
    for change in changes {
        match change {
            Change::Put(object) => {
                let document = json(object)?;
                let key = (object.kind().as_str(), object.name());
                objects.insert(key, (number, document.as_str()))?;
            }
            Change::Delete(kind, name) => {
                objects.remove((kind.as_str(), name.as_str()))?;
            }
        }
    }
    let mut history = transaction.open_table(HISTORY)?;
    history.insert(number, json(revision)?.as_str())?;
    if let Some(forgotten) = number.checked_sub(revisions_kept) {
        history.remove(forgotten)?;
    }
    transaction.open_table(META)?.insert(REVISION_KEY, number)?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        place: "what is written".to_owned(),
        reason: error.to_string(),
    })
}

/// Objects are served from memory, so the database needs little of it.
const CACHE_BYTES: usize = 8 << 20;

/// Opens or makes a file that only its owner can read, whatever the umask is and its mode was.
fn private_file(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Store for EmbeddedStore {
    fn current(&self) -> Config {
        self.current.borrow().clone()
    }

    fn watch(&self) -> watch::Receiver<Config> {
        self.current.subscribe()
    }

    fn transaction(
        &self,
        base: u64,
        changes: &[Change],
        author: &str,
    ) -> Result<Config, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        if current.revision() != base {
            return Err(StoreError::Conflict { base, current: current.revision() });
        }
        let revision = Revision::of(&current, changes, author);
        let transaction = self.database.begin_write()?;
        write(&transaction, changes, &revision, self.revisions_kept)?;
        transaction.commit()?;
        let config = current.with(changes, revision.revision);
        self.current.send_replace(config.clone());
        Ok(config)
    }

    fn history(&self, after: u64, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let history = self.database.begin_read()?.open_table(HISTORY)?;
        let from = after.saturating_add(1);
        history.range(from..)?.take(limit).map(|item| revision(item?.1.value())).collect()
    }

    fn objects_at(&self, revision: u64) -> Result<Option<Vec<Object>>, StoreError> {
        // One snapshot for both: objects and history of a revision between the two would not fit.
        let transaction = self.database.begin_read()?;
        let current = restore(&transaction)?;
        let history = transaction.open_table(HISTORY)?;
        let oldest = history.first()?.map_or(0, |(number, _)| number.value().saturating_sub(1));
        if !(oldest..=current.revision()).contains(&revision) {
            return Ok(None);
        }
        // What the later revisions did is undone, the last one first.
        let mut documents: BTreeMap<(Kind, String), serde_json::Value> = BTreeMap::new();
        for (object, _) in current.objects() {
            let document = serde_json::to_value(&object).map_err(|error| unreadable(&error))?;
            documents.insert((object.kind(), object.name().to_owned()), document);
        }
        for item in history.range(revision.saturating_add(1)..)?.rev() {
            for change in self::revision(item?.1.value())?.changes {
                let Some(kind) = change.kind() else { continue };
                match change.before {
                    Some(before) => documents.insert((kind, change.name), before),
                    None => documents.remove(&(kind, change.name)),
                };
            }
        }
        let objects = documents.values().map(|document| {
            read::object(&document.to_string())
                .map_err(|reason| StoreError::Corrupt { place: "history".to_owned(), reason })
        });
        objects.collect::<Result<_, _>>().map(Some)
    }

    fn record_transaction(
        &self,
        work: &mut dyn FnMut(&mut dyn Records) -> Outcome,
    ) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        let outcome = work(&mut EmbeddedRecords { table: transaction.open_table(RECORDS)? });
        match outcome {
            Outcome::Commit => transaction.commit()?,
            Outcome::Rollback => transaction.abort()?,
        }
        Ok(())
    }
}

fn revision(text: &str) -> Result<Revision, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt { place: "history".to_owned(), reason: error.to_string() }
}

struct EmbeddedRecords<'a> {
    table: Table<'a, (&'static str, &'static str), &'static [u8]>,
}

impl Records for EmbeddedRecords<'_> {
    fn get(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table.get((table, key))?.map(|value| value.value().to_vec()))
    }

    fn list(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut items = Vec::new();
        for item in self.table.range((table, "")..)? {
            let (key, value) = item?;
            let (of, key) = key.value();
            if of != table {
                break;
            }
            items.push((key.to_owned(), value.value().to_vec()));
        }
        Ok(items)
    }

    fn put(&mut self, table: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.table.insert((table, key), value)?;
        Ok(())
    }

    fn remove(&mut self, table: &str, key: &str) -> Result<bool, StoreError> {
        Ok(self.table.remove((table, key))?.is_some())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a process leaves behind that ends between writing and commit.
    pub(in crate::store) fn write_without_commit(store: &EmbeddedStore, changes: &[Change]) {
        let transaction = store.database.begin_write().unwrap();
        let revision = Revision::of(&store.current(), changes, "");
        write(&transaction, changes, &revision, REVISIONS_KEPT).unwrap();
        drop(transaction);
    }

    pub(in crate::store) fn write_schema(store: &EmbeddedStore, schema: u64) {
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(SCHEMA_KEY, schema).unwrap();
        transaction.commit().unwrap();
    }
}
