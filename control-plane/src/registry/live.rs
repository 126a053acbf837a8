//! [`Registry`]: the instances that are connected.

use crate::registry::instance::{Instance, InstanceName};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The instances that are connected. Whoever attached last, with the same epoch or a newer one, is the instance; what is
/// left of an earlier connection takes nothing away from it.
#[derive(Debug)]
pub(crate) struct Registry {
    instances: DashMap<InstanceName, Entry>,
    attachments: AtomicU64,
    /// Counts changes that endpoints depend on.
    version: watch::Sender<u64>,
    /// Counts observations.
    observed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    attachment: u64,
    instance: Arc<Instance>,
    observations: Arc<[Observation]>,
    superseded: CancellationToken,
    renew: Arc<Notify>,
}

/// What one instance sees of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observation {
    /// Where the endpoint is.
    pub(crate) address: SocketAddr,
    /// Requests under way to it.
    pub(crate) active_requests: u32,
    /// When its ejection ends, and why it was ejected; absent if it is not.
    pub(crate) ejected: Option<(SystemTime, String)>,
    /// Its health checks fail.
    pub(crate) check_failed: bool,
}

/// The instances at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    /// Grows with every change.
    pub(crate) version: u64,
    /// By service and, within it, in order of name.
    pub(crate) services: BTreeMap<Arc<str>, Vec<Arc<Instance>>>,
}

impl Live {
    /// The instances of a service.
    pub(crate) fn of(&self, service: &str) -> &[Arc<Instance>] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// One of them.
    pub(crate) fn find(&self, name: &InstanceName) -> Option<&Arc<Instance>> {
        self.of(&name.service).iter().find(|it| it.name == *name)
    }
}

/// An instance that started later is attached under this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance of this name that started later (epoch {newer}) is attached")]
pub(crate) struct Superseded {
    /// Epoch of that one.
    pub(crate) newer: u64,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            instances: DashMap::new(),
            attachments: AtomicU64::new(0),
            version: watch::Sender::new(0),
            observed: watch::Sender::new(0),
        })
    }

    /// The instance is there until the attachment is dropped.
    ///
    /// # Errors
    /// If one that started later (by the epoch in its introduction) is there.
    pub(crate) fn attach(self: &Arc<Self>, instance: Instance) -> Result<Attachment, Superseded> {
        let epoch = instance.hello.epoch;
        let name = instance.name.clone();
        let attachment = self.attachments.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        let renew = Arc::new(Notify::new());
        let entry = Entry {
            renew: renew.clone(),
            epoch,
            attachment,
            instance: Arc::new(instance),
            observations: Arc::new([]),
            superseded: superseded.clone(),
        };
        match self.instances.entry(name.clone()) {
            MapEntry::Occupied(there) if there.get().epoch > epoch => {
                return Err(Superseded { newer: there.get().epoch });
            }
            MapEntry::Occupied(mut there) => there.insert(entry).superseded.cancel(),
            MapEntry::Vacant(place) => drop(place.insert(entry)),
        }
        self.changed();
        Ok(Attachment { registry: self.clone(), name, attachment, superseded, renew })
    }

    /// Asks an instance to renew its certificate now. Whether it is there to be asked.
    pub(crate) fn ask_to_renew(&self, name: &InstanceName) -> bool {
        self.instances.get(name).map(|entry| entry.renew.notify_one()).is_some()
    }

    /// The instances now.
    pub(crate) fn live(&self) -> Live {
        // The version first: what changes meanwhile is seen, and announced by a later version again.
        let version = *self.version.borrow();
        let mut services: BTreeMap<Arc<str>, Vec<Arc<Instance>>> = BTreeMap::new();
        for entry in &self.instances {
            services.entry(entry.key().service.clone()).or_default().push(entry.instance.clone());
        }
        for instances in services.values_mut() {
            instances.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Live { version, services }
    }

    /// Notified of every change that endpoints depend on, with a number that grows.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Notified of observations.
    pub(crate) fn observed(&self) -> watch::Receiver<u64> {
        self.observed.subscribe()
    }

    /// What every instance sees, with who sees it.
    pub(crate) fn observations(&self) -> Vec<(InstanceName, Arc<[Observation]>)> {
        let seen = self.instances.iter().map(|it| (it.key().clone(), it.observations.clone()));
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        seen
    }

    fn changed(&self) -> u64 {
        let mut version = 0;
        self.version.send_modify(|it| {
            *it += 1;
            version = *it;
        });
        version
    }
}

/// Keeps an instance in the registry. Dropped, the instance is gone, unless another attachment took its place.
#[derive(Debug)]
pub(crate) struct Attachment {
    registry: Arc<Registry>,
    name: InstanceName,
    attachment: u64,
    superseded: CancellationToken,
    renew: Arc<Notify>,
}

impl Attachment {
    /// Completes when the instance is to renew its certificate.
    pub(crate) async fn asked_to_renew(&self) {
        self.renew.notified().await;
    }

    /// Completes when another attachment took the place of this one.
    pub(crate) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// No new traffic is to reach the instance. Answers with the version of the registry from which on that is so.
    pub(crate) fn drain(&self) -> u64 {
        self.change(|entry| {
            let instance = Instance { draining: true, ..(*entry.instance).clone() };
            entry.instance = Arc::new(instance);
        });
        self.registry.changed()
    }

    /// What the instance sees now, in place of what it saw.
    pub(crate) fn observe(&self, observations: Vec<Observation>) {
        self.change(|entry| entry.observations = observations.into());
        self.registry.observed.send_modify(|it| *it += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.registry.instances.get_mut(&self.name)
            && entry.attachment == self.attachment
        {
            change(&mut entry);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mine = |_: &InstanceName, entry: &Entry| entry.attachment == self.attachment;
        if self.registry.instances.remove_if(&self.name, mine).is_some() {
            self.registry.changed();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use outrigger_proto::registry::v1 as wire;

    /// An instance `NAME` of `SERVICE` for tests, listening at 127.0.0.1.
    pub(crate) fn instance(service: &str, name: &str, inbound_port: u16) -> Instance {
        let hello = wire::Hello {
            advertise: "127.0.0.1".to_owned(),
            inbound_port: inbound_port.into(),
            epoch: 1,
            app_ports: vec![wire::AppPort { port: 9000, ..Default::default() }],
            ..Default::default()
        };
        let name = InstanceName { service: service.into(), instance: name.into() };
        Instance::from_hello(name, hello).unwrap()
    }

    /// The same instance, started again.
    fn later(instance: Instance) -> Instance {
        let hello = wire::Hello { epoch: instance.hello.epoch + 1, ..(*instance.hello).clone() };
        Instance { hello: Arc::new(hello), ..instance }
    }

    fn names(registry: &Registry) -> Vec<(u16, bool)> {
        let live = registry.live();
        live.of("api").iter().map(|it| (it.needs.inbound_port, it.draining)).collect()
    }

    #[test]
    fn an_instance_is_there_as_long_as_it_is_attached() {
        let registry = Registry::new();
        let mut changes = registry.changes();
        let attachment = registry.attach(instance("api", "a", 1)).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(names(&registry), [(1, false)]);
        drop(attachment);
        assert!(changes.has_changed().unwrap());
        assert_eq!(names(&registry), []);
    }

    #[test]
    fn an_older_epoch_neither_replaces_nor_removes_a_newer_one() {
        let registry = Registry::new();
        let old = registry.attach(instance("api", "a", 1)).unwrap();
        let new = registry.attach(later(instance("api", "a", 2))).unwrap();
        assert_eq!(registry.attach(instance("api", "a", 1)).unwrap_err(), Superseded { newer: 2 });
        old.drain();
        drop(old);
        assert_eq!(names(&registry), [(2, false)]);
        drop(new);
        assert_eq!(names(&registry), []);
    }

    #[tokio::test]
    async fn a_reconnect_takes_the_place_of_the_connection_before() {
        let registry = Registry::new();
        let first = registry.attach(instance("api", "a", 1)).unwrap();
        let second = registry.attach(instance("api", "a", 2)).unwrap();
        first.superseded().await;
        drop(first);
        assert_eq!(names(&registry), [(2, false)]);
        drop(second);
    }

    #[test]
    fn a_draining_instance_is_marked_from_a_version_on() {
        let registry = Registry::new();
        let attachment = registry.attach(instance("api", "a", 1)).unwrap();
        let version = attachment.drain();
        assert_eq!(names(&registry), [(1, true)]);
        assert!(registry.live().version >= version);
    }
}
