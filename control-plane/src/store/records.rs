//! Small tables of bytes beside the objects: certificate authority, tokens.

use super::{Outcome, Store, StoreError};

/// Small tables inside one transaction. Tables and keys are free names; a table exists once something is in it.
pub trait Records {
    /// The value of a key.
    ///
    /// # Errors
    /// If the store fails.
    fn get(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keys and values of a table, in order of key.
    ///
    /// # Errors
    /// If the store fails.
    fn list(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Sets a key.
    ///
    /// # Errors
    /// If the store fails.
    fn put(&mut self, table: &str, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    /// If the store fails.
    fn remove(&mut self, table: &str, key: &str) -> Result<bool, StoreError>;
}

/// Runs `work` in one transaction, which is durable when `Ok` comes back and leaves no trace when an error does. `work`
/// may run more than once.
///
/// # Errors
/// What `work` says, or what the store says.
pub fn records<T, E: From<StoreError>>(
    store: &dyn Store,
    mut work: impl FnMut(&mut dyn Records) -> Result<T, E>,
) -> Result<T, E> {
    let mut result = None;
    store.record_transaction(&mut |records| {
        let answer = work(records);
        let outcome = if answer.is_ok() { Outcome::Commit } else { Outcome::Rollback };
        result = Some(answer);
        outcome
    })?;
    result.unwrap_or_else(|| {
        let reason = "the transaction was not run".to_owned();
        Err(StoreError::Corrupt { place: "records".to_owned(), reason }.into())
    })
}
