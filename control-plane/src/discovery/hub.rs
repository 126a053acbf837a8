//! [`Hub`]: the world as it is now, and who is connected to see it.

use crate::discovery::status::{Client, Departed, NodeName};
use crate::identity::{Ledger, Trust};
use crate::model::Config;
use crate::registry::{EndpointsTaken, LEASE, Live, Registry};
use crate::translate::{Inputs, World};
use dashmap::DashMap;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After a start, sidecars have their lease and this time to attach before an empty load assignment is believed.
pub(crate) const ATTACH_GRACE: Duration = Duration::from_secs(2);

/// After the last Endpoint object of a service went, sidecars have so long to forget it before their way to it goes too.
const LINGER: Duration = Duration::from_secs(5);

/// At most so many clients that left are remembered: their names are theirs to choose.
const MAX_DEPARTED: usize = 1000;

/// Joins the parts of discovery: a new configuration, or a change among the live instances, becomes a new world, which
/// every stream is told of at once.
pub(crate) struct Hub {
    world: watch::Sender<Arc<World>>,
    pub(crate) registry: Arc<Registry>,
    /// Connected clients by number of their stream.
    pub(crate) clients: DashMap<u64, Arc<Client>>,
    streams: AtomicU64,
    /// Clients that left lately.
    pub(crate) departed: DashMap<NodeName, Departed>,
    /// What was issued to whom.
    pub(crate) ledger: Arc<Ledger>,
    status: watch::Sender<u64>,
    /// The control plane is about to stop.
    pub(crate) stopping: CancellationToken,
}

impl Hub {
    /// A hub whose world follows `config` and `registry` until `stopping`. Sidecars of the `awaited` services, which may be
    /// there from before a restart, are given the time to attach.
    pub(crate) fn start(
        config: watch::Receiver<Config>,
        registry: Arc<Registry>,
        ledger: Arc<Ledger>,
        trust: watch::Receiver<Arc<Trust>>,
        awaited: BTreeSet<Arc<str>>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let mut inputs = Inputs { awaited: Arc::new(awaited), ..Inputs::default() };
        inputs.trust = trust.borrow().clone();
        inputs.config = config.borrow().clone();
        let world = World::after(&World::default(), inputs.clone());
        let hub = Arc::new(Self {
            world: watch::Sender::new(Arc::new(world)),
            registry,
            clients: DashMap::new(),
            streams: AtomicU64::new(0),
            departed: DashMap::new(),
            ledger,
            status: watch::Sender::new(0),
            stopping,
        });
        tokio::spawn(hub.clone().follow(config, trust, inputs));
        hub
    }

    async fn follow(
        self: Arc<Self>,
        mut config: watch::Receiver<Config>,
        mut trust: watch::Receiver<Arc<Trust>>,
        mut inputs: Inputs,
    ) {
        let mut live = self.registry.changes();
        let mut observed = self.registry.observed();
        let grace = tokio::time::sleep(LEASE + ATTACH_GRACE);
        tokio::pin!(grace);
        let mut lingering: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
        loop {
            let linger_ends = lingering.values().min().copied();
            tokio::select! {
                changed = config.changed() => if changed.is_err() {
                    return;
                },
                _ = live.changed() => {}
                changed = trust.changed() => if changed.is_err() {
                    return;
                },
                () = &mut grace, if !inputs.awaited.is_empty() => inputs.awaited = Arc::default(),
                () = sleep_until(linger_ends) => {}
                _ = observed.changed() => {
                    self.status_changed();
                    continue;
                }
                () = self.stopping.cancelled() => return,
            }
            // Whatever changed meanwhile is taken along.
            inputs.config = config.borrow_and_update().clone();
            live.borrow_and_update();
            inputs.trust = trust.borrow_and_update().clone();
            inputs.live = self.registry.live();
            let before = self.world();
            let now = Instant::now();
            let has: HashSet<&str> =
                inputs.config.endpoints().map(|it| it.service.as_str()).collect();
            for service in before.services_with_objects().filter(|it| !has.contains(it)) {
                lingering.insert(service.into(), now + LINGER);
            }
            lingering.retain(|service, until| *until > now && !has.contains(&**service));
            inputs.lingering = Arc::new(lingering.keys().cloned().collect());
            let world = World::after(&before, inputs.clone());
            self.world.send_replace(Arc::new(world));
            self.status_changed();
        }
    }

    /// The world now.
    pub(crate) fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// Notified of every new world.
    pub(crate) fn worlds(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    /// Notified whenever status may have changed.
    pub(crate) fn statuses(&self) -> watch::Receiver<u64> {
        self.status.subscribe()
    }

    /// Status may have changed.
    pub(crate) fn status_changed(&self) {
        self.status.send_modify(|it| *it = it.wrapping_add(1));
    }

    /// A client is connected until the answer is dropped.
    pub(crate) fn connected(self: &Arc<Self>, client: Client) -> Connection {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(client);
        self.departed.remove(&client.name());
        self.clients.insert(stream, client.clone());
        self.status_changed();
        Connection { hub: self.clone(), stream, client }
    }

    /// Connected clients, in order of connection.
    pub(crate) fn connected_clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<(u64, Arc<Client>)> =
            self.clients.iter().map(|it| (*it.key(), it.value().clone())).collect();
        clients.sort_by_key(|(stream, _)| *stream);
        clients.into_iter().map(|(_, client)| client).collect()
    }

    /// The live instances that the world was made of.
    pub(crate) fn live(&self) -> Live {
        self.world().live().clone()
    }
}

/// Keeps a client in the hub.
pub(crate) struct Connection {
    hub: Arc<Hub>,
    stream: u64,
    pub(crate) client: Arc<Client>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.clients.remove(&self.stream);
        let name = self.client.name();
        let connected = self.hub.clients.iter().any(|it| it.value().name() == name);
        if !connected && self.hub.departed.len() < MAX_DEPARTED {
            let departed = Departed { status: self.client.status(false), at: SystemTime::now() };
            self.hub.departed.insert(name, departed);
        }
        self.hub.status_changed();
    }
}

impl EndpointsTaken for Hub {
    fn taken_since(&self, version: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut statuses = self.statuses();
            loop {
                statuses.borrow_and_update();
                let taken = |client: &Arc<Client>| {
                    client.stream().endpoints_taken().is_none_or(|taken| taken >= version)
                };
                if self.connected_clients().iter().all(taken) {
                    return;
                }
                if statuses.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

/// Until then; for ever, if there is no such time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
