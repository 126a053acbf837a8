//! [`Remembered`]: who was attached, kept over a restart of the control plane.
//!
//! After a restart the sidecars come back one by one, within their back-off. If the first to come were told of those only
//! that came before it, its endpoints would shrink and grow again, for no reason that lies in the mesh.

use crate::registry::instance::{Instance, InstanceName};
use crate::registry::live::{Attachment, Registry};
use crate::store::{Store, StoreError, records};
use outrigger_proto::registry::v1::Hello;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Of the store: `SERVICE/INSTANCE` to its Hello.
const TABLE: &str = "instances";

/// Changes within this time are written together. Also the time in which a control plane that stops gets to know that it
/// is not the sidecars that leave.
const SETTLE: Duration = Duration::from_millis(200);

/// Those that were attached, as the store has them.
pub(crate) struct Remembered {
    store: Arc<dyn Store>,
    kept: BTreeMap<String, Vec<u8>>,
}

impl Remembered {
    /// What an earlier run left.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let kept = records(&*store, |records| records.list(TABLE))?;
        Ok(Self { store, kept: kept.into_iter().collect() })
    }

    /// Takes those that are remembered for attached until `grace` has passed, and from now on remembers who is, until
    /// `stopping`. One that has come back by then stays, one that has not is gone.
    ///
    /// To be called before the first sidecar can attach: its place must not be taken by the memory of it.
    pub(crate) fn start(
        self,
        registry: Arc<Registry>,
        grace: Duration,
        stopping: CancellationToken,
    ) -> JoinHandle<()> {
        let returning = self.attach(&registry);
        let until = stopping.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(grace) => {}
                () = until.cancelled() => {}
            }
            drop(returning);
        });
        tokio::spawn(async move { self.follow(&registry, &stopping).await })
    }

    fn attach(&self, registry: &Arc<Registry>) -> Vec<Attachment> {
        let mut attachments = Vec::new();
        for (name, hello) in &self.kept {
            match instance(name, hello) {
                // Nobody is there yet whose place it could take.
                Ok(instance) => attachments.extend(registry.attach(instance).ok()),
                Err(reason) => {
                    tracing::warn!(name, reason, "a remembered instance cannot be read");
                }
            }
        }
        attachments
    }

    async fn follow(mut self, registry: &Registry, stopping: &CancellationToken) {
        let mut changes = registry.changes();
        // Some may have attached before this began to look.
        changes.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SETTLE) => {}
            }
            changes.borrow_and_update();
            let now = introductions(registry);
            if now == self.kept {
                continue;
            }
            match self.write(now.clone()).await {
                Ok(()) => self.kept = now,
                Err(error) => tracing::warn!(%error, "who is attached could not be remembered"),
            }
        }
    }

    async fn write(&self, now: BTreeMap<String, Vec<u8>>) -> Result<(), StoreError> {
        let store = self.store.clone();
        let before = self.kept.clone();
        let written = tokio::task::spawn_blocking(move || {
            records(&*store, |records| {
                for name in before.keys().filter(|name| !now.contains_key(*name)) {
                    records.remove(TABLE, name)?;
                }
                for (name, hello) in now.iter().filter(|(name, it)| before.get(*name) != Some(it)) {
                    records.put(TABLE, name, hello)?;
                }
                Ok(())
            })
        });
        written.await.unwrap_or_else(|error| {
            let place = TABLE.to_owned();
            Err(StoreError::Corrupt { place, reason: error.to_string() })
        })
    }
}

/// Those that are attached and stay, as they are kept.
fn introductions(registry: &Registry) -> BTreeMap<String, Vec<u8>> {
    let live = registry.live();
    let instances = live.services.values().flatten().filter(|it| !it.draining);
    let introduction = |it: &Arc<Instance>| {
        (format!("{}/{}", it.name.service, it.name.instance), it.hello.encode_to_vec())
    };
    instances.map(introduction).collect()
}

fn instance(name: &str, hello: &[u8]) -> Result<Instance, String> {
    let (service, instance) = name.split_once('/').ok_or("its name has no slash")?;
    let hello = Hello::decode(hello).map_err(|error| error.to_string())?;
    let name = InstanceName { service: service.into(), instance: instance.into() };
    Instance::from_hello(name, hello).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::live::tests::instance;
    use crate::store::EmbeddedStore;

    const GRACE: Duration = Duration::from_secs(4);

    struct Run {
        registry: Arc<Registry>,
        stopping: CancellationToken,
        task: JoinHandle<()>,
    }

    fn run(store: &Arc<dyn Store>) -> Run {
        let registry = Registry::new();
        let stopping = CancellationToken::new();
        let remembered = Remembered::load(store.clone()).unwrap();
        let task = remembered.start(registry.clone(), GRACE, stopping.clone());
        Run { registry, stopping, task }
    }

    impl Run {
        async fn stop(self) {
            self.stopping.cancel();
            self.task.await.unwrap();
        }

        fn names(&self) -> Vec<String> {
            introductions(&self.registry).into_keys().collect()
        }
    }

    /// Long enough for what changed to be written, on a paused clock; the writing itself takes real time.
    async fn written(store: &Arc<dyn Store>, names: &[&str]) {
        for _ in 0..10_000 {
            tokio::time::sleep(SETTLE).await;
            let kept = Remembered::load(store.clone()).unwrap().kept;
            if kept.keys().eq(names) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{names:?} are not what is kept");
    }

    fn store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(folder.path()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn those_attached_when_the_control_plane_stopped_are_there_until_they_had_time_to_return()
    {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let first = run(&store);
        let a = first.registry.attach(instance("api", "a", 1)).unwrap();
        let b = first.registry.attach(instance("api", "b", 2)).unwrap();
        written(&store, &["api/a", "api/b"]).await;
        first.stopping.cancel();
        // The streams end because the control plane stops, which takes nobody away.
        drop((a, b));
        first.stop().await;

        let second = run(&store);
        assert_eq!(second.names(), ["api/a", "api/b"]);
        let back = second.registry.attach(instance("api", "a", 1)).unwrap();
        tokio::time::sleep(GRACE - Duration::from_millis(100)).await;
        assert_eq!(second.names(), ["api/a", "api/b"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(second.names(), ["api/a"]);
        written(&store, &["api/a"]).await;
        drop(back);
        second.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_or_drains_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let first = run(&store);
        let stays = first.registry.attach(instance("api", "a", 1)).unwrap();
        let drains = first.registry.attach(instance("api", "b", 2)).unwrap();
        let leaves = first.registry.attach(instance("api", "c", 3)).unwrap();
        written(&store, &["api/a", "api/b", "api/c"]).await;
        drains.drain();
        drop(leaves);
        written(&store, &["api/a"]).await;
        drop((stays, drains));
        first.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        records(&*store, |records| {
            records.put(TABLE, "noslash", b"")?;
            records.put(TABLE, "api/a", b"\xff\xff")?;
            records.put(TABLE, "api/b", &instance("api", "b", 2).hello.encode_to_vec())
        })
        .unwrap();
        let run = run(&store);
        assert_eq!(run.names(), ["api/b"]);
        run.stop().await;
    }
}
