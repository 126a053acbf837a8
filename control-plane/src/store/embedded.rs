//! [`EmbeddedStore`]: one redb file in the data directory, readable by its owner only.

use super::{Outcome, Records, Store, StoreError};
use redb::backends::FileBackend;
use redb::{Database, ReadableTable, Table, TableDefinition};
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Format of the tables below. A file of a newer format is refused, never guessed at.
const SCHEMA: u64 = 1;

/// Numbers: [`SCHEMA_KEY`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";

/// The small tables: (table, key) to bytes.
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");

/// A store in one file.
pub struct EmbeddedStore {
    database: Database,
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
        }
        transaction.commit()?;
        Ok(Self { database, _lock: lock })
    }
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
mod tests {
    use super::*;
    use crate::store::records;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_data_directory_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let _store = EmbeddedStore::open(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("mesh.redb")), 0o600);
        assert_eq!(mode(&directory.join("lock")), 0o600);
    }

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let second = EmbeddedStore::open(directory.path());
        assert!(matches!(second, Err(StoreError::InUse { .. })));
        drop(store);
        assert!(EmbeddedStore::open(directory.path()).is_ok());
    }

    #[test]
    fn records_that_were_committed_are_there_after_a_reopen_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let kept: Result<(), StoreError> = records(&store, |records| {
            records.put("ca", "root", b"kept")?;
            records.put("tokens", "t1", b"1")?;
            records.put("tokens", "t2", b"2")
        });
        kept.unwrap();
        let aborted: Result<(), StoreError> = records(&store, |records| {
            records.put("ca", "root", b"lost")?;
            assert!(records.remove("tokens", "t1")?);
            Err(StoreError::Corrupt { place: String::new(), reason: String::new() })
        });
        aborted.unwrap_err();
        drop(store);

        let store = EmbeddedStore::open(directory.path()).unwrap();
        let read: Result<_, StoreError> = records(&store, |records| {
            assert!(!records.remove("tokens", "t3")?);
            Ok((records.get("ca", "root")?, records.list("tokens")?, records.list("none")?))
        });
        let (root, tokens, none) = read.unwrap();
        assert_eq!(root.unwrap(), b"kept");
        assert_eq!(tokens, [("t1".to_owned(), b"1".to_vec()), ("t2".to_owned(), b"2".to_vec())]);
        assert!(none.is_empty());
    }
}
