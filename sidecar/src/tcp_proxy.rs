//! The TCP proxy filter: pick an endpoint, connect, copy both ways until both sides are done.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::access_log::{LogRecord, LogType, Loggers, ResponseFlags, unique_id};
use crate::cluster::{
    ClusterId, Context, Endpoint, EndpointId, Outcome, RoutingPriority, address_hash,
};
use crate::config;
use crate::config::subset::MetadataCriteria;
use crate::copy::{self, Ended};
use crate::drain::Listening;
use crate::local::{ClusterRef, Local};
use crate::log_facts::{self, upstream_of};
use crate::stats::{Sharded, TcpCells};
use crate::tls::TlsFacts;
use crate::transport::{Ends, Meter, Transport};
use crate::upstream::{ConnectionFacts, Failure, connect};

/// A TCP proxy, compiled: the end of a filter chain.
pub(crate) struct TcpProxy {
    config: Arc<config::tcp_proxy::TcpProxy>,
    /// The running sum of the weights, and the cluster.
    clusters: Box<[(u64, Target)]>,
    stats: Arc<Sharded<TcpCells>>,
    loggers: Loggers,
}

impl TcpProxy {
    /// Compiles the filter; `resolve` says which id a cluster name has.
    pub(crate) fn build(
        config: &Arc<config::tcp_proxy::TcpProxy>,
        stats: Arc<Sharded<TcpCells>>,
        loggers: Loggers,
        resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId,
    ) -> Self {
        let mut sum = 0;
        let clusters = config
            .clusters
            .iter()
            .map(|target| {
                sum += u64::from(target.weight);
                let metadata_match = target.metadata_match.clone();
                (sum, Target { cluster: resolve(&target.cluster), metadata_match })
            })
            .collect();
        Self { config: Arc::clone(config), clusters, stats, loggers }
    }

    /// Counts the bytes of a client's connection.
    pub(crate) fn meter(&self) -> Arc<dyn Meter> {
        Arc::new(TcpMeter(Arc::clone(&self.stats)))
    }

    /// When a connection that began then has to end, if it must.
    fn longest(&self, began: Instant) -> Option<Instant> {
        let longest = self.config.max_downstream_connection_duration?;
        let jitter = longest.mul_f64(self.config.duration_jitter * fastrand::f64());
        began.checked_add(longest)?.checked_add(jitter)
    }

    fn choose(&self) -> Option<&Target> {
        let (total, last) = self.clusters.last()?;
        if self.clusters.len() == 1 {
            return Some(last);
        }
        let draw = fastrand::u64(0..(*total).max(1));
        let index = self.clusters.partition_point(|(sum, _)| *sum <= draw);
        self.clusters.get(index).map(|(_, target)| target)
    }
}

/// Where a connection may go.
struct Target {
    cluster: ClusterId,
    /// What the metadata of the endpoint must hold.
    metadata_match: Option<Arc<MetadataCriteria>>,
}

struct TcpMeter(Arc<Sharded<TcpCells>>);

impl Meter for TcpMeter {
    fn received(&self, bytes: u64) {
        self.0.local().downstream_cx_rx_bytes_total.add(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.0.local().downstream_cx_tx_bytes_total.add(bytes);
    }
}

/// Who connects.
pub(crate) struct Client {
    pub(crate) ends: Ends,
    pub(crate) server_name: Option<Box<str>>,
    /// Name of the cluster that it goes to, if a filter has said so.
    pub(crate) cluster: Option<Box<str>>,
    pub(crate) chain: Arc<str>,
    /// Given when the chain goes away. A connection of bytes has no point at which it could be asked to end: it is left to
    /// end by itself, as in Envoy, until the process ends.
    pub(crate) drain: Listening,
    pub(crate) tls: Option<TlsFacts>,
    /// The logs of its listener.
    pub(crate) listener_loggers: Arc<Loggers>,
}

impl Client {
    fn is_logged(&self, proxy: &TcpProxy) -> bool {
        !proxy.loggers.is_empty() || !self.listener_loggers.is_empty()
    }
}

/// What is known of a connection at its end.
struct Report {
    began: Instant,
    start: SystemTime,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// Its number and what stands for the id of a request. Made for logs.
    ids: OnceCell<(u64, String)>,
    flags: ResponseFlags,
    cluster: Option<ClusterRef>,
    endpoint: Option<Arc<Endpoint>>,
    /// Kept only for logs.
    upstream: Option<ConnectionFacts>,
    failure: Option<String>,
    attempts: u32,
    /// Why we ended it.
    details: Option<Box<str>>,
}

impl Report {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            start: SystemTime::now(),
            received: Cell::new(0),
            sent: Cell::new(0),
            ids: OnceCell::new(),
            flags: ResponseFlags::NONE,
            cluster: None,
            endpoint: None,
            upstream: None,
            failure: None,
            attempts: 0,
            details: None,
        }
    }
}

/// Counts and logs a connection that a filter before this one has not let in.
pub(crate) fn refused(local: &Local, proxy: &TcpProxy, who: &Client, details: Option<Box<str>>) {
    proxy.stats.local().downstream_cx_total.inc();
    if who.is_logged(proxy) {
        log_end(local, proxy, who, &Report { details, ..Report::new() });
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(local: Rc<Local>, proxy: &TcpProxy, client: Transport, who: Client) {
    proxy.stats.local().downstream_cx_total.inc();
    let mut report = Report::new();
    if proxy.config.log_options.on_start {
        log(&local, proxy, &who, &report, LogType::TcpConnectionStart);
    }
    Box::pin(run(&local, proxy, client, &who, &mut report)).await;
    if who.drain.is_given() {
        proxy.stats.local().downstream_cx_drain_close.inc();
    }
    if who.is_logged(proxy) {
        log_end(&local, proxy, &who, &report);
    }
}

async fn run(
    local: &Rc<Local>,
    proxy: &TcpProxy,
    mut client: Transport,
    who: &Client,
    report: &mut Report,
) {
    let view = local.view();
    let target = match &who.cluster {
        Some(name) => local
            .cluster_named(&view, name)
            .and_then(|id| Some((ClusterRef::new(&view, id)?, None))),
        None => proxy.choose().and_then(|target| {
            Some((ClusterRef::new(&view, target.cluster)?, target.metadata_match.as_deref()))
        }),
    };
    let Some((cluster, metadata)) = target else {
        proxy.stats.local().downstream_cx_no_route.inc();
        report.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
        return;
    };
    report.cluster = Some(cluster.clone());
    let connected = connect_any(&cluster, proxy, metadata, who, report).await;
    let Some((mut upstream, active)) = connected else { return };
    let options = proxy.config.log_options;
    if options.on_connected {
        log(local, proxy, who, report, LogType::TcpUpstreamConnected);
    }
    let end = proxy.longest(report.began);
    let so_far = &*report;
    let mut count = |received, sent| {
        so_far.received.set(so_far.received.get() + received);
        so_far.sent.set(so_far.sent.get() + sent);
    };
    let idle_timeout = proxy.config.idle_timeout;
    let copying = copy::both_ways(&mut client, &mut upstream, idle_timeout, &mut count);
    let copying = cluster.while_healthy(&active.0, copying);
    let copying = async {
        match end {
            None => Some(copying.await),
            Some(end) => tokio::time::timeout_at(end, copying).await.ok(),
        }
    };
    let ended = match options.interval {
        None => copying.await,
        Some(interval) => {
            tokio::select! {
                biased;
                ended = copying => ended,
                never = log_each(interval, local, proxy, who, so_far) => match never {},
            }
        }
    };
    match ended {
        Some(Some(ended)) => conclude(ended, proxy, &mut client, &mut upstream, report),
        Some(None) => tracing::debug!("the endpoint became unhealthy"),
        None => {
            proxy.stats.local().max_downstream_connection_duration.inc();
            report.flags.insert(ResponseFlags::DURATION_TIMEOUT);
        }
    }
}

fn conclude(
    ended: Ended,
    proxy: &TcpProxy,
    client: &mut Transport,
    upstream: &mut Transport,
    report: &mut Report,
) {
    match ended {
        Ended::BothDone => {}
        Ended::Idle => {
            proxy.stats.local().idle_timeout.inc();
            report.flags.insert(ResponseFlags::STREAM_IDLE_TIMEOUT);
        }
        // What one side did to us is done to the other: it must not take a broken stream for a whole one.
        Ended::FirstFailed(error) => {
            tracing::debug!(%error, "the client's connection failed");
            upstream.reset_on_close();
            report.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        }
        Ended::SecondFailed(error) => {
            tracing::debug!(%error, "the endpoint's connection failed");
            client.reset_on_close();
            report.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        }
    }
}

/// A connection to some endpoint, within the allowed attempts.
async fn connect_any(
    cluster: &ClusterRef,
    proxy: &TcpProxy,
    metadata: Option<&MetadataCriteria>,
    who: &Client,
    report: &mut Report,
) -> Option<(Transport, Active)> {
    let ends = &who.ends;
    let hashes = proxy.config.hash_source_ip
        && (cluster.config.load_balancer.hashing().is_some() || cluster.members.is_some());
    let hash = ends.peer.ip().filter(|_| hashes).map(address_hash);
    let priority = RoutingPriority::Default;
    let stats = cluster.stats.local();
    let mut tried: Vec<EndpointId> = Vec::new();
    while report.attempts < proxy.config.max_connect_attempts.max(1) {
        report.attempts += 1;
        let destination = cluster.original_destination(None, ends.original_destination());
        let chosen = {
            let (avoid, destination) = (&*tried, destination.as_ref());
            let context =
                Context { hash, metadata, avoid, attempts: 3, destination, ..Context::default() };
            cluster.choose(&context, Arc::clone)
        };
        let Some((member, endpoint)) = chosen else {
            stats.upstream_cx_none_healthy.inc();
            report.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return None;
        };
        report.endpoint = Some(Arc::clone(&endpoint));
        let target = member.as_ref().unwrap_or(cluster);
        let target_stats = target.stats.local();
        // An aggregate has no connection of its own that would count: it is open, or shut altogether.
        let shut = member.is_some() && cluster.config.circuit_breakers[0].max_connections == 0;
        if shut || !target.breaker(priority).try_connection() {
            report.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        }
        // A connection of bytes is one request that waits for it, and then has it, as in Envoy.
        target_stats.upstream_rq_pending_total.inc();
        match connect::connect(target, &endpoint, priority, "", &[], Some(ends)).await {
            Ok(transport) => {
                target_stats.upstream_rq_total.inc();
                endpoint.stats.local().rq_total.inc();
                target.report(&endpoint, Outcome::ConnectSuccessFinal);
                report.flags = ResponseFlags::NONE;
                if who.is_logged(proxy) {
                    report.upstream = Some(ConnectionFacts::of(&transport, &endpoint));
                }
                return Some((transport, Active::begin(endpoint)));
            }
            Err(failure) => {
                let outcome = match failure {
                    Failure::ConnectTimeout => Outcome::Timeout,
                    _ => Outcome::ConnectFailure,
                };
                target.report(&endpoint, outcome);
                report.failure = Some(failure.cause().unwrap_or(failure.text()).to_owned());
                report.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                tried.push(endpoint.id);
            }
        }
    }
    stats.upstream_cx_connect_attempts_exceeded.inc();
    report.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
    None
}

/// A connection counts as one request for load balancing.
struct Active(Arc<Endpoint>);

impl Active {
    fn begin(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self(endpoint)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Writes a line each time that the interval is over.
async fn log_each(
    interval: Duration,
    local: &Local,
    proxy: &TcpProxy,
    who: &Client,
    report: &Report,
) -> Infallible {
    let mut next = report.began;
    loop {
        next = next.checked_add(interval).unwrap_or(next).max(Instant::now());
        tokio::time::sleep_until(next).await;
        log(local, proxy, who, report, LogType::TcpPeriodic);
    }
}

/// Writes the logs of the filter.
fn log(local: &Local, proxy: &TcpProxy, who: &Client, report: &Report, log_type: LogType) {
    if !proxy.loggers.is_empty() {
        proxy.loggers.log(&record(local, who, report, log_type));
    }
}

/// Writes all logs at the end of a connection.
fn log_end(local: &Local, proxy: &TcpProxy, who: &Client, report: &Report) {
    let mut record = record(local, who, report, LogType::TcpConnectionEnd);
    proxy.loggers.log(&record);
    record.log_type = LogType::NotSet;
    who.listener_loggers.log(&record);
}

fn record<'a>(
    local: &Local,
    who: &'a Client,
    report: &'a Report,
    log_type: LogType,
) -> LogRecord<'a> {
    // A connection has no request whose id it could have.
    let (number, id) = report.ids.get_or_init(|| (local.next_id(), unique_id()));
    let mut record = LogRecord::new(report.start);
    record.log_type = log_type;
    record.flags = report.flags;
    record.bytes_received = report.received.get();
    record.bytes_sent = report.sent.get();
    record.duration = Some(report.began.elapsed());
    record.upstream_host = report.endpoint.as_ref().map(|endpoint| endpoint.address.clone());
    record.upstream_host_name = report
        .endpoint
        .as_ref()
        .map(|endpoint| &*endpoint.hostname)
        .filter(|name| !name.is_empty());
    record.upstream = report.upstream.as_ref().and_then(|facts| upstream_of(facts, None));
    record.upstream_cluster_name = report.cluster.as_ref().map(|cluster| &*cluster.name);
    record.upstream_cluster = report.cluster.as_ref().map(|cluster| cluster.observed_name());
    record.upstream_transport_failure_reason = report.failure.as_deref();
    record.attempt_count = report.attempts;
    record.connection_termination_details = report.details.as_deref();
    record.downstream_remote = Some(who.ends.peer.clone());
    record.downstream_direct_remote = Some(who.ends.direct_peer.clone());
    record.downstream_local = Some(who.ends.local.clone());
    record.requested_server_name = who.server_name.as_deref();
    record.filter_chain_name = Some(&*who.chain).filter(|name| !name.is_empty());
    record.connection_id = Some(*number);
    if let Some(tls) = &who.tls {
        log_facts::downstream_tls(&mut record, tls);
    }
    record.stream_id = Some(id);
    record
}
