//! The control thread.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::data_plane::DataPlane;
use super::dump::Static;
use super::error::Error;
use super::load_reports::LoadReporter;
use super::stats_sinks::Sinks;
use super::streams::Streams;
use super::validate::options;
use crate::admin::{Query, State, Status};
use crate::apart::apart;
use crate::cli::Args;
use crate::config;
use crate::config::bootstrap::{self, Bootstrap, ConfigError};
use crate::config::secret::Secret;
use crate::config::stats::{StatTagValue, StatsConfig, StatsFlush};
use crate::mesh;
use crate::on_demand::{Demand, Wanted};
use crate::stats::settings::{Settings, Tag};
use crate::stats::{Registry, Scope};
use crate::xds::{Discovery, Disk, Event, Kind, Phase, Refusal, StreamId};

mod admin;
mod drain;
mod observations;

/// How often endpoints are reported, and leftovers collected.
const TICK: Duration = Duration::from_millis(250);
/// How long connections may take to end after SIGTERM, unless `--drain-time-s` says otherwise.
const GRACE: Duration = Duration::from_secs(30);
/// How long a start waits for the control plane before it serves from what is kept on disk.
const KEPT_AFTER: Duration = Duration::from_secs(1);
/// Events of the stream that may wait. A server that is faster is held back.
const EVENTS: usize = 4;

/// The bootstrap of the command line.
///
/// # Errors
/// With everything that is wrong with it.
pub(super) fn read_bootstrap(args: &Args) -> Result<Bootstrap, ConfigError> {
    bootstrap::read(args.config_path.as_deref(), args.config_yaml.as_deref(), &options(args))
}

/// Serves until told to stop.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let args = Arc::new(args);
    let (bootstrap, member) = if mesh::is_wanted(&args) {
        let member = mesh::Member::prepare(Arc::clone(&args)).await?;
        (member.bootstrap()?, Some(member))
    } else {
        (apart(|| read_bootstrap(&args))??, None)
    };
    let mut control = Control::new(&args, bootstrap, member)?;
    control.start()?;
    control.serve().await
}

/// A member's connections to its mesh.
struct Membership {
    registry: mesh::Registry,
    secrets: mpsc::UnboundedReceiver<Secret>,
}

/// All that the control thread has.
struct Control {
    args: Arc<Args>,
    data: DataPlane,
    discovery: Discovery,
    /// What happens on the streams of discovery.
    events: mpsc::Receiver<(StreamId, Event)>,
    streams: Streams,
    /// What requests wait for.
    demands: mpsc::UnboundedReceiver<Demand>,
    /// Layers of the runtime that have changed on disk.
    disk_layers: mpsc::Receiver<usize>,
    queries: mpsc::UnboundedReceiver<Query>,
    status: Arc<Status>,
    registry: Arc<Registry>,
    membership: Option<Membership>,
    /// Where statistics are sent.
    sinks: Option<Sinks>,
    /// Where what was discovered is kept.
    disk: Option<Disk>,
    /// Nothing came yet: when what is kept on disk is used instead.
    use_kept: Option<Instant>,
    bootstrap: Bootstrap,
    statics: Static,
    /// Everything that a start waits for is there.
    live: bool,
    /// When listeners close, after a graceful drain of the admin interface.
    listeners_close: Option<(Instant, bool)>,
    started: Instant,
}

/// Why the loop ends.
enum End {
    /// SIGTERM or SIGINT.
    Drain,
    /// `POST /quitquitquit`.
    Quit,
}

impl Control {
    fn new(
        args: &Arc<Args>,
        mut bootstrap: Bootstrap,
        member: Option<mesh::Member>,
    ) -> Result<Self, Error> {
        let workers = match args.concurrency {
            Some(workers) => usize::from(workers),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let registry = Registry::with(workers, statistics(std::mem::take(&mut bootstrap.stats)));
        let status = Status::new(&registry, workers);
        let queries = admin::open(args, &bootstrap, &registry, &status)?;
        let (demands, demanded) = mpsc::unbounded_channel();
        let (local_info, layers) = (bootstrap.local_info(), &bootstrap.runtime);
        let mut data = DataPlane::start(&registry, workers, local_info, layers, demands)?;
        data.manager.set_default_bind(bootstrap.bind.clone());
        if let Some(name) = &bootstrap.local_cluster {
            data.manager.set_local(Arc::clone(name), bootstrap.locality());
        }
        let log = bootstrap.outlier_event_log.as_deref();
        data.log_ejections(log).map_err(|source| Error::File {
            path: log.map(ToOwned::to_owned).unwrap_or_default(),
            source,
        })?;
        for secret in std::mem::take(&mut bootstrap.secrets) {
            let name = Arc::clone(&secret.name);
            data.contexts.set_secret(secret).map_err(|rejected| Error::Static {
                what: Kind::Secret,
                name,
                rejected: vec![rejected],
            })?;
        }
        let mut discovery = Discovery::new(&bootstrap, &registry, Instant::now());
        if args.reject_unknown_dynamic_fields {
            discovery.reject_unknown_fields(outrigger_proto::json::Schema::load()?);
        }
        let (changed, disk_layers) = mpsc::channel(1);
        for layer in data.runtime.disk_layers() {
            tokio::spawn(layer.watch(changed.clone()));
        }
        let names: HashSet<Arc<str>> =
            bootstrap.clusters.iter().map(|cluster| Arc::clone(&cluster.name)).collect();
        let disk = args.data_dir.as_ref().map(|folder| {
            let folder = folder.join("xds");
            Disk::open(folder.clone()).map_err(|source| Error::File { path: folder, source })
        });
        let disk = disk.transpose()?;
        let use_kept = disk.as_ref().map(|_| Instant::now() + KEPT_AFTER);
        let sinks = Sinks::start(&bootstrap.stats_sinks, &registry, &data.shared.server)?;
        let (events, received) = mpsc::channel(EVENTS);
        let cells = registry.scope(Scope::ControlPlane);
        let streams = Streams::new(&bootstrap, args.reject_unknown_dynamic_fields, events, cells);
        let statics = Static::new(std::mem::take(&mut bootstrap.encoded), names);
        let mut control = Self {
            args: Arc::clone(args),
            data,
            discovery,
            events: received,
            disk_layers,
            streams,
            demands: demanded,
            queries,
            status,
            registry,
            membership: None,
            sinks,
            disk,
            use_kept,
            bootstrap,
            statics,
            live: false,
            listeners_close: None,
            started: Instant::now(),
        };
        control.join(member)?;
        Ok(control)
    }

    /// Starts the membership, if this is a member: the aggregated stream then waits for it.
    fn join(&mut self, member: Option<mesh::Member>) -> Result<(), Error> {
        let (Some(member), Some(ads)) = (member, &self.bootstrap.ads) else { return Ok(()) };
        let control_plane =
            self.streams.control_plane(ads, &mut self.data.contexts).map_err(Error::Discovery)?;
        let running = member.start(control_plane);
        self.membership = Some(Membership { registry: running.registry, secrets: running.secrets });
        self.streams.wait_for(running.attached);
        Ok(())
    }

    /// Opens and closes streams as discovery wants it.
    fn follow_streams(&mut self) {
        for id in self.discovery.take_closed() {
            self.streams.close(id);
        }
        for opened in self.discovery.take_opened() {
            self.streams.open(opened, &mut self.data.contexts);
        }
    }

    /// Puts the bootstrap into effect, as far as it is complete. A static part that is refused ends the start, as in Envoy.
    fn start(&mut self) -> Result<(), Error> {
        let refused = self.discovery.begin(&mut self.data, Instant::now());
        if let Some(Refusal { kind, name, rejected }) = refused.into_iter().next() {
            return Err(Error::Static { what: kind, name, rejected });
        }
        self.report_loads();
        self.follow_streams();
        self.advance();
        Ok(())
    }

    /// Begins to report loads, where that is configured.
    fn report_loads(&mut self) {
        let Some(service) = self.bootstrap.load_stats.clone() else { return };
        match self.streams.control_plane(&service, &mut self.data.contexts) {
            Ok(control_plane) => {
                let reporter = LoadReporter {
                    service,
                    control_plane,
                    node: self.bootstrap.node.clone(),
                    snapshot: Arc::clone(&self.data.shared.snapshot),
                    cells: self.registry.scope(Scope::Root("load_reporter")),
                };
                tokio::spawn(reporter.run());
            }
            // A bootstrap that names no such cluster is refused before.
            Err(rejected) => tracing::error!(%rejected, "loads are not reported"),
        }
    }

    /// Goes on with the start as far as it can.
    fn advance(&mut self) {
        if self.live {
            return;
        }
        if self.discovery.phase() > Phase::Clusters {
            self.status.set(State::Initializing);
        }
        let manager = &self.data.manager;
        // Names that are still being resolved: requests would find no endpoint.
        let are_resolved = self.bootstrap.clusters.iter().all(|it| {
            !matches!(it.discovery, config::cluster::Discovery::Dns(_))
                || manager.is_initialized(&it.name)
        });
        if self.discovery.phase() < Phase::Ready || !are_resolved || !manager.is_checked() {
            return;
        }
        self.live = true;
        self.status.set(State::Live);
        let took = self.started.elapsed().as_millis() as u64;
        self.data.shared.server.local().initialization_time_ms.record(took);
        for (listener, addresses) in self.data.open_listeners() {
            for address in addresses {
                tracing::info!(listener = %listener.config.name, %address, "listening");
            }
        }
        tracing::info!("live");
    }

    async fn serve(mut self) -> Result<(), Error> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let end = self.until_end(&mut terminate, &mut interrupt).await?;
        if let End::Drain = end {
            tokio::select! {
                () = self.drain() => {}
                _ = terminate.recv() => tracing::warn!("told to stop again, not waiting any longer"),
                _ = interrupt.recv() => tracing::warn!("told to stop again, not waiting any longer"),
            }
        }
        if let Some(disk) = self.disk.take() {
            disk.save(self.discovery.resources_mut());
            disk.finish();
        }
        self.data.stop().await;
        Ok(())
    }

    async fn until_end(
        &mut self,
        terminate: &mut Signal,
        interrupt: &mut Signal,
    ) -> Result<End, Error> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flush = match self.bootstrap.stats_flush {
            StatsFlush::Every(every) => Some(interval(every)),
            StatsFlush::OnAdmin => None,
        };
        if let Some(flush) = &mut flush {
            flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let deadline = self.discovery.deadline();
            let close = self.listeners_close;
            let use_kept = self.use_kept;
            tokio::select! {
                Some((id, event)) = self.events.recv() => {
                    match &event {
                        Event::Response(_) => self.use_kept = None,
                        Event::Disconnected(_) => self.use_kept(),
                        Event::Connected(_) | Event::Unusable => {}
                    }
                    self.discovery.on_event(id, event, &mut self.data, Instant::now());
                }
                Some(demand) = self.demands.recv() => self.demand(demand),
                Some(layer) = self.disk_layers.recv() => self.data.runtime.read_disk(layer),
                () = at(use_kept) => self.use_kept(),
                // It has taken effect already.
                ready = self.data.manager.next() => self.data.clusters_changed(ready.is_some()),
                () = at(deadline) => self.discovery.on_time(&mut self.data, Instant::now()),
                () = at(close.map(|(at, _)| at)) => {
                    self.listeners_close = None;
                    self.data.stop_listening(close.is_some_and(|(_, inbound_only)| inbound_only));
                }
                Some(query) = self.queries.recv() => {
                    if self.answer(query) {
                        return Ok(End::Quit);
                    }
                }
                secret = next_secret(&mut self.membership) => {
                    let name = Arc::clone(&secret.name);
                    if let Err(rejected) = self.data.contexts.set_secret(secret) {
                        tracing::error!(%name, %rejected, "a renewed secret cannot be used");
                    }
                }
                _ = tick.tick() => self.tick(),
                () = next_tick(&mut flush) => self.flush_stats(),
                _ = terminate.recv() => return Ok(End::Drain),
                _ = interrupt.recv() => return Ok(End::Drain),
                _ = hangup.recv() => self.data.reopen_logs(),
            }
            self.follow_streams();
            self.advance();
            let Self { discovery, data, .. } = &mut *self;
            discovery.settle_clusters(&|name| data.manager.is_initialized(name));
        }
    }

    /// A request waits for something.
    fn demand(&mut self, demand: Demand) {
        let Demand { wanted, settled } = demand;
        let now = Instant::now();
        match wanted {
            Wanted::VirtualHost { routes, host } => {
                self.discovery.demand_virtual_host(&routes, &host, settled, &mut self.data, now);
            }
            Wanted::Cluster { name, from } => {
                self.discovery.demand_cluster(&name, &from.source, settled, &mut self.data, now);
            }
        }
    }

    /// The control plane is away, or slow: serves from what it said last, unless it has said something since.
    fn use_kept(&mut self) {
        let (Some(_), Some(disk)) = (self.use_kept.take(), &self.disk) else { return };
        let kept = disk.load();
        if !kept.is_empty() {
            tracing::warn!(resources = kept.len(), "no control plane: serving what it said last");
            self.discovery.restore(kept, &mut self.data, Instant::now());
        }
    }

    /// Ends the interval of histograms, and sends statistics where they are to be sent.
    fn flush_stats(&self) {
        self.registry.flush_histograms();
        if let Some(sinks) = &self.sinks {
            sinks.flush();
        }
    }

    fn tick(&mut self) {
        self.data.collect();
        if let Some(disk) = &self.disk {
            disk.save(self.discovery.resources_mut());
        }
        if let Some(membership) = &self.membership {
            membership.registry.observe(observations::of(&mut self.data));
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn next_tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}

async fn next_secret(membership: &mut Option<Membership>) -> Secret {
    let secret = match membership {
        Some(membership) => membership.secrets.recv().await,
        None => None,
    };
    match secret {
        Some(secret) => secret,
        None => pending().await,
    }
}

/// What the bootstrap wants of statistics.
fn statistics(config: StatsConfig) -> Settings {
    let StatsConfig { matcher, default_tags, tags, buckets } = config;
    let tags = tags.into_iter().map(|tag| {
        let value = match tag.value {
            StatTagValue::Fixed(value) => Tag::Fixed(value.into()),
            StatTagValue::Regex(regex) => Tag::Regex(regex),
        };
        (tag.name.into(), value)
    });
    let buckets = buckets.into_iter().map(|buckets| {
        let names = buckets.names;
        let matches: crate::stats::settings::Names =
            Box::new(move |name| names.matches(name.as_bytes()));
        (matches, buckets.bounds)
    });
    let keeps = matcher.map(|matcher| -> crate::stats::settings::Names {
        Box::new(move |name| matcher.keeps(name))
    });
    Settings { keeps, default_tags, tags: tags.collect(), buckets: buckets.collect() }
}
