use super::*;
use crate::model::plan::plan;
use crate::model::read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

const API: &str = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}]}}";
const POLICY: &str = "{kind: Policy, name: p, spec: {to: [{service: api}], action: deny}}";

fn changes(config: &Config, text: &str) -> Vec<Change> {
    plan(config, &read::documents(text).0).unwrap().changes
}

fn apply(store: &EmbeddedStore, text: &str) -> Config {
    let current = store.current();
    store.transaction(current.revision(), &changes(&current, text), "somebody").unwrap()
}

fn names(objects: impl IntoIterator<Item = Object>) -> Vec<String> {
    objects.into_iter().map(|object| format!("{} {}", object.kind(), object.name())).collect()
}

fn current_names(store: &EmbeddedStore) -> Vec<String> {
    names(store.current().objects().map(|(object, _)| object))
}

#[test]
fn a_transaction_is_one_revision_and_there_after_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(store.current().revision(), 0);
    assert_eq!(apply(&store, &format!("{API}\n---\n{POLICY}")).revision(), 1);
    assert_eq!(apply(&store, "{kind: Policy, name: p, delete: true}").revision(), 2);
    let before = store.current();
    drop(store);

    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(store.current().revision(), 2);
    assert_eq!(current_names(&store), ["Service api"]);
    let changed = store.current().object(crate::model::Kind::Service, "api").unwrap();
    assert_eq!(changed, before.object(crate::model::Kind::Service, "api").unwrap());
    assert_eq!(changed.1, 1, "the revision that last changed it");
}

#[test]
fn a_transaction_for_an_old_revision_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let base = store.current();
    apply(&store, API);
    let late = store.transaction(base.revision(), &changes(&base, API), "late");
    assert!(matches!(late, Err(StoreError::Conflict { base: 0, current: 1 })));
    assert_eq!(store.current().revision(), 1);
    assert_eq!(store.history(0, 10).unwrap().len(), 1);
}

#[test]
fn a_transaction_that_was_not_committed_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    apply(&store, API);
    embedded::tests::write_without_commit(&store, &changes(&store.current(), POLICY));
    drop(store);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    assert_eq!(
        (store.current().revision(), current_names(&store)),
        (1, vec!["Service api".to_owned()])
    );
    assert_eq!(store.history(0, 10).unwrap().len(), 1);
}

#[test]
fn what_a_killed_process_left_on_disk_opens_at_the_last_answered_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    apply(&store, API);
    apply(&store, POLICY);
    // The file as it is while the database is still open, never closed in order.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join("mesh.redb"), copy.path().join("mesh.redb")).unwrap();
    let store = EmbeddedStore::open(copy.path()).unwrap();
    assert_eq!(store.current().revision(), 2);
    assert_eq!(current_names(&store), ["Service api", "Policy p"]);
}

#[test]
fn watchers_see_the_newest_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let mut watch = store.watch();
    assert!(!watch.has_changed().unwrap());
    apply(&store, API);
    apply(&store, POLICY);
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().revision(), 2);
    assert!(!watch.has_changed().unwrap());
}

#[test]
fn history_tells_who_changed_what_and_resumes_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    apply(&store, API);
    apply(&store, &API.replace("9000", "9001"));
    apply(&store, "{kind: Service, name: api, delete: true}");
    let history = store.history(0, 10).unwrap();
    let actions: Vec<_> = history.iter().map(|it| (it.revision, it.changes[0].action())).collect();
    assert_eq!(
        actions,
        [(1, ChangeKind::Created), (2, ChangeKind::Updated), (3, ChangeKind::Deleted)]
    );
    assert_eq!(history[0].author, "somebody");
    assert_eq!(store.history(1, 1).unwrap()[0].revision, 2);
    assert!(store.history(3, 10).unwrap().is_empty());
    assert!(store.history(u64::MAX, 10).unwrap().is_empty());
}

#[test]
fn every_kept_revision_can_be_looked_at_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    apply(&store, API);
    apply(&store, POLICY);
    apply(
        &store,
        "{kind: Policy, name: p, delete: true}\n---\n{kind: Service, name: api, delete: true}",
    );
    let at = |revision| store.objects_at(revision).unwrap().map(names);
    assert_eq!(at(0).unwrap(), [""; 0]);
    assert_eq!(at(1).unwrap(), ["Service api"]);
    assert_eq!(at(2).unwrap(), ["Service api", "Policy p"]);
    assert_eq!(at(3).unwrap(), [""; 0]);
    assert_eq!(at(4), None);
}

#[test]
fn old_revisions_are_forgotten_and_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_keeping(directory.path(), 2).unwrap();
    for port in 1..=4 {
        apply(&store, &API.replace("9000", &port.to_string()));
    }
    let kept: Vec<_> = store.history(0, 10).unwrap().iter().map(|it| it.revision).collect();
    assert_eq!(kept, [3, 4]);
    assert!(store.objects_at(1).unwrap().is_none());
    assert_eq!(store.objects_at(2).unwrap().unwrap().len(), 1, "what revision 3 changed is known");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    embedded::tests::write_schema(&EmbeddedStore::open(directory.path()).unwrap(), 2);
    let error = EmbeddedStore::open(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1 }), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.redb");
    std::fs::write(&path, "something else").unwrap();
    assert!(matches!(EmbeddedStore::open(directory.path()), Err(StoreError::Database(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"something else");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named_in_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = EmbeddedStore::open(&file.join("data")).err().unwrap();
    assert!(error.to_string().contains("file/data"), "{error}");
}
