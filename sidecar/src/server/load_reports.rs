//! Load reports: how many requests went where, told to a server that asks for it
//! (`envoy.service.load_stats.v3.LoadReportingService`; `cluster_manager.load_stats_config` of the bootstrap).
//!
//! [`LoadReporter`] keeps a stream open, says who we are, and then sends a report as often as the server said; [`Tracked`]
//! knows what was reported already. As in Envoy a cluster counts from the moment at which the server asks for it, a report
//! that could not be sent is part of the next one, and what the endpoints of a cluster are is looked up with each report.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::PathAndQuery;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::endpoint::v3::cluster_stats::DroppedRequests;
use outrigger_proto::envoy::config::endpoint::v3::{
    ClusterStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use outrigger_proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use outrigger_proto::google::protobuf::Duration as DurationProto;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::access_log::grpc::entry::address_proto;
use crate::cluster::{Cluster, ClusterTable, Endpoint, EndpointId};
use crate::config::bootstrap::DiscoveryService;
use crate::config::cluster::Discovery;
use crate::snapshot::Snapshot;
use crate::stats::{ClusterCells, Counter, EndpointCells, LoadReporterCells, Sharded};
use crate::xds::{Backoff, ControlPlane, Node, StreamError, metadata};

const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
/// By this a server knows that it need not list the clusters.
const SEND_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";
/// Reports are not sent more often than so, whatever a server says: it may say nothing, which is zero.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Reports loads for as long as it is polled.
pub(super) struct LoadReporter {
    /// How the service is spoken to.
    pub(super) service: DiscoveryService,
    /// Where it is.
    pub(super) control_plane: ControlPlane,
    /// Who we are.
    pub(super) node: Node,
    /// Where the clusters are.
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    /// What is counted about it.
    pub(super) cells: Arc<Sharded<LoadReporterCells>>,
}

impl LoadReporter {
    /// Keeps a stream open.
    pub(super) async fn run(mut self) {
        self.node.client_features.push(SEND_ALL_CLUSTERS.to_owned());
        let mut backoff = Backoff::new(self.service.backoff);
        let mut tracked = Tracked::default();
        let mut is_failing = false;
        loop {
            let error = match Box::pin(self.stream(&mut tracked, &mut backoff)).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if !matches!(error, StreamError::Closed) {
                self.cells.local().errors.inc();
                if !is_failing {
                    tracing::warn!(%error, cluster = %self.service.cluster, "loads cannot be reported");
                }
                is_failing = true;
            }
            sleep(backoff.next()).await;
            self.cells.local().retries.inc();
        }
    }

    /// One stream from its connection to its end.
    async fn stream(
        &self,
        tracked: &mut Tracked,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, StreamError> {
        let channel = self.control_plane.connect(self.service.authority.as_deref()).await?;
        // A server that does not read finds more in the next report.
        let (reports, sent) = mpsc::channel(1);
        // There is nothing in the channel yet, so that it has room.
        let _ = reports.try_send(self.report(tracked));
        self.cells.local().responses.inc();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut call = Request::new(ReceiverStream::new(sent));
        *call.metadata_mut() = metadata(&self.service);
        let codec: ProstCodec<LoadStatsRequest, LoadStatsResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static(METHOD);
        let mut asked: Streaming<LoadStatsResponse> =
            client.streaming(call, path, codec).await?.into_inner();
        let mut next = None;
        loop {
            tokio::select! {
                response = asked.message() => {
                    let response = response?.ok_or(StreamError::Closed)?;
                    backoff.reset();
                    self.cells.local().requests.inc();
                    next = Some(Instant::now() + tracked.ask(response, &self.clusters()));
                }
                () = at(next) => {
                    if let Ok(place) = reports.try_reserve() {
                        place.send(self.report(tracked));
                        self.cells.local().responses.inc();
                    }
                    next = Some(Instant::now() + tracked.interval);
                }
            }
        }
    }

    fn clusters(&self) -> ClusterTable {
        self.snapshot.load().clusters.clone()
    }

    fn report(&self, tracked: &mut Tracked) -> LoadStatsRequest {
        LoadStatsRequest {
            node: Some(self.node.clone()),
            cluster_stats: tracked.report(&self.clusters()),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// What the server wants to know, and what it was told.
#[derive(Default)]
struct Tracked {
    asked: LoadStatsResponse,
    interval: Duration,
    clusters: BTreeMap<Arc<str>, Told>,
}

/// What the server was told of a cluster.
struct Told {
    /// When it was told last, or began to be interested.
    at: Instant,
    dropped: u64,
    dropped_by_overload: u64,
    endpoints: HashMap<EndpointId, Counts>,
}

/// What an endpoint has counted since it is there.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    successful: u64,
    failed: u64,
    issued: u64,
}

impl Tracked {
    /// The server wants to know something else from now on. Returns how long it wants to wait.
    fn ask(&mut self, asked: LoadStatsResponse, clusters: &ClusterTable) -> Duration {
        let interval = asked.load_reporting_interval;
        self.interval = interval.map_or(Duration::ZERO, interval_of).max(SHORTEST_INTERVAL);
        self.asked = asked;
        self.follow(clusters);
        self.interval
    }

    /// Tracks the clusters that are wanted: those that are not tracked yet count from now.
    fn follow(&mut self, clusters: &ClusterTable) {
        let mut before = std::mem::take(&mut self.clusters);
        let mut track = |name: &Arc<str>, cluster: Option<&Arc<Cluster>>| {
            let told = before.remove(name).unwrap_or_else(|| Told::now(cluster));
            self.clusters.insert(Arc::clone(name), told);
        };
        if self.asked.send_all_clusters {
            clusters.iter().for_each(|cluster| track(&cluster.name, Some(cluster)));
            return;
        }
        let known: HashMap<&str, &Arc<Cluster>> =
            clusters.iter().map(|cluster| (&*cluster.name, cluster)).collect();
        for name in &self.asked.clusters {
            match known.get(name.as_str()) {
                Some(cluster) => track(&cluster.name, Some(cluster)),
                None => track(&name.as_str().into(), None),
            }
        }
    }

    /// What there is to tell since the last time.
    fn report(&mut self, clusters: &ClusterTable) -> Vec<ClusterStats> {
        let by_endpoint = self.asked.report_endpoint_granularity;
        let exist = clusters.iter().filter_map(|cluster| {
            let told = self.clusters.get_mut(&cluster.name)?;
            Some(told.report(cluster, by_endpoint))
        });
        let stats = exist.collect();
        self.follow(clusters);
        stats
    }
}

impl Told {
    /// Nothing of what was before this moment is told.
    fn now(cluster: Option<&Arc<Cluster>>) -> Self {
        let hosts = cluster.map(|cluster| cluster.hosts.load());
        let endpoints = hosts.iter().flat_map(|hosts| hosts.endpoints());
        Self {
            at: Instant::now(),
            dropped: cluster.map_or(0, |cluster| sum(cluster, |cells| &cells.rq_dropped)),
            dropped_by_overload: cluster
                .map_or(0, |cluster| sum(cluster, |cells| &cells.rq_drop_overload)),
            endpoints: endpoints.map(|endpoint| (endpoint.id, Counts::of(endpoint))).collect(),
        }
    }

    fn report(&mut self, cluster: &Cluster, by_endpoint: bool) -> ClusterStats {
        let told = std::mem::take(&mut self.endpoints);
        let hosts = cluster.hosts.load();
        let mut localities = Vec::new();
        for (level, priority) in hosts.priorities.iter().enumerate() {
            for group in priority.localities.iter() {
                let locality = &group.locality;
                let mut stats = UpstreamLocalityStats {
                    locality: Some(core::Locality {
                        region: locality.region.to_string(),
                        zone: locality.zone.to_string(),
                        sub_zone: locality.sub_zone.to_string(),
                    }),
                    priority: u32::try_from(level).unwrap_or(u32::MAX),
                    ..UpstreamLocalityStats::default()
                };
                for endpoint in priority.all.list.iter().skip(group.start).take(group.count) {
                    let counts = Counts::of(endpoint);
                    self.endpoints.insert(endpoint.id, counts);
                    let since = counts.since(told.get(&endpoint.id).copied().unwrap_or_default());
                    let active = u64::from(endpoint.active());
                    stats.total_successful_requests += since.successful;
                    stats.total_error_requests += since.failed;
                    stats.total_issued_requests += since.issued;
                    stats.total_requests_in_progress += active;
                    if by_endpoint && (since.successful | since.failed | since.issued | active) != 0
                    {
                        stats.upstream_endpoint_stats.push(UpstreamEndpointStats {
                            address: Some(address_proto(&endpoint.address)),
                            total_successful_requests: since.successful,
                            total_error_requests: since.failed,
                            total_issued_requests: since.issued,
                            total_requests_in_progress: active,
                            ..UpstreamEndpointStats::default()
                        });
                    }
                }
                let any = stats.total_successful_requests
                    | stats.total_error_requests
                    | stats.total_issued_requests
                    | stats.total_requests_in_progress;
                if any != 0 {
                    localities.push(stats);
                }
            }
        }
        let dropped = sum(cluster, |cells| &cells.rq_dropped);
        let overload = sum(cluster, |cells| &cells.rq_drop_overload);
        let dropped_since = dropped.saturating_sub(std::mem::replace(&mut self.dropped, dropped));
        let before = std::mem::replace(&mut self.dropped_by_overload, overload);
        let by_category = Some(overload.saturating_sub(before)).filter(|count| *count > 0);
        let now = Instant::now();
        let interval = now - std::mem::replace(&mut self.at, now);
        let service = match &cluster.config.discovery {
            Discovery::Eds { service_name, .. } if *service_name != cluster.name => {
                service_name.to_string()
            }
            _ => String::new(),
        };
        ClusterStats {
            cluster_name: cluster.name.to_string(),
            cluster_service_name: service,
            upstream_locality_stats: localities,
            total_dropped_requests: dropped_since,
            dropped_requests: by_category
                .map(|dropped_count| DroppedRequests {
                    category: cluster.drop_category(),
                    dropped_count,
                })
                .into_iter()
                .collect(),
            load_report_interval: Some(DurationProto {
                seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(interval.subsec_nanos()).unwrap_or(0),
            }),
        }
    }
}

impl Counts {
    fn of(endpoint: &Endpoint) -> Self {
        let sum = |counter: fn(&EndpointCells) -> &Counter| {
            endpoint.stats.used().map(|cells| counter(cells).value()).sum()
        };
        Self {
            successful: sum(|cells| &cells.rq_success),
            failed: sum(|cells| &cells.rq_error),
            issued: sum(|cells| &cells.rq_total),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            successful: self.successful.saturating_sub(before.successful),
            failed: self.failed.saturating_sub(before.failed),
            issued: self.issued.saturating_sub(before.issued),
        }
    }
}

fn sum(cluster: &Cluster, counter: fn(&ClusterCells) -> &Counter) -> u64 {
    cluster.stats.used().map(|cells| counter(cells).value()).sum()
}

/// One that is negative or no duration at all is none.
fn interval_of(proto: DurationProto) -> Duration {
    let seconds = u64::try_from(proto.seconds).unwrap_or(0);
    let nanos = u32::try_from(proto.nanos).unwrap_or(0).min(999_999_999);
    // A server that wants a report in a hundred years may as well say so in one.
    Duration::new(seconds.min(31_536_000), nanos)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::cluster::Manager;
    use crate::cluster::testing::{assignment, config, endpoint, group};
    use crate::stats::Registry;

    fn asked(clusters: &[&str], all: bool) -> LoadStatsResponse {
        LoadStatsResponse {
            clusters: clusters.iter().map(ToString::to_string).collect(),
            send_all_clusters: all,
            load_reporting_interval: Some(DurationProto { seconds: 2, nanos: 0 }),
            report_endpoint_granularity: true,
        }
    }

    /// Two clusters with an endpoint each.
    fn clusters() -> (Manager, ClusterTable) {
        let mut manager = Manager::new(&Registry::new(0));
        let mut contexts = crate::tls::Contexts::new();
        for name in ["a", "b"] {
            let assignment = assignment(name, vec![group(0, vec![endpoint(1)])]);
            let discovery = Discovery::Static(Arc::new(assignment));
            let config = crate::config::cluster::Cluster { discovery, ..config(name) };
            manager.set(Arc::new(config), &mut contexts).unwrap();
        }
        let table = manager.table();
        (manager, table)
    }

    fn named<'t>(table: &'t ClusterTable, name: &str) -> &'t Arc<Cluster> {
        table.iter().find(|cluster| &*cluster.name == name).unwrap()
    }

    fn requested(cluster: &Cluster) {
        let hosts = cluster.hosts.load();
        let cells = hosts.endpoints().next().unwrap().stats.local();
        cells.rq_total.inc();
        cells.rq_success.inc();
    }

    fn issued(stats: &ClusterStats) -> u64 {
        stats.upstream_locality_stats.iter().map(|stats| stats.total_issued_requests).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_before_it_is_asked_for() {
        let (_manager, table) = clusters();
        requested(named(&table, "a"));
        assert_eq!(Tracked::default().report(&table), []);
    }

    #[tokio::test(start_paused = true)]
    async fn each_report_tells_what_came_since_the_last_one() {
        let (_manager, table) = clusters();
        let a = named(&table, "a");
        requested(a);
        let mut tracked = Tracked::default();
        assert_eq!(tracked.ask(asked(&["a", "none"], false), &table), Duration::from_secs(2));
        requested(a);
        requested(named(&table, "b"));
        tokio::time::advance(Duration::from_secs(3)).await;
        let report = tracked.report(&table);
        assert_eq!(report.len(), 1, "what is not asked for and what does not exist is left out");
        assert_eq!((report[0].cluster_name.as_str(), issued(&report[0])), ("a", 1));
        assert_eq!(report[0].load_report_interval.unwrap().seconds, 3);
        let locality = &report[0].upstream_locality_stats[0];
        assert_eq!(locality.locality, Some(core::Locality::default()));
        assert_eq!(locality.upstream_endpoint_stats[0].total_successful_requests, 1);

        // Asked for once more, it goes on counting.
        requested(a);
        tracked.ask(asked(&["a"], false), &table);
        requested(a);
        assert_eq!(issued(&tracked.report(&table)[0]), 2);
        assert_eq!(tracked.report(&table)[0].upstream_locality_stats, []);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_are_told_again_and_again() {
        let (_manager, table) = clusters();
        let mut tracked = Tracked::default();
        tracked.ask(asked(&["a"], false), &table);
        let hosts = named(&table, "a").hosts.load();
        hosts.endpoints().next().unwrap().active.fetch_add(1, Relaxed);
        for _ in 0..2 {
            let report = tracked.report(&table);
            assert_eq!(report[0].upstream_locality_stats[0].total_requests_in_progress, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_clusters_are_told_where_all_are_wanted() {
        let (_manager, table) = clusters();
        let mut tracked = Tracked::default();
        tracked.ask(asked(&[], true), &table);
        requested(named(&table, "b"));
        named(&table, "b").stats.local().rq_dropped.inc();
        let report = tracked.report(&table);
        let told: Vec<_> = report
            .iter()
            .map(|it| (it.cluster_name.as_str(), issued(it), it.total_dropped_requests))
            .collect();
        assert_eq!(told, [("a", 0, 0), ("b", 1, 1)]);
    }

    #[test]
    fn an_interval_that_is_none_is_the_shortest() {
        let mut tracked = Tracked::default();
        for interval in [None, Some(DurationProto { seconds: -1, nanos: -5 })] {
            let asked = LoadStatsResponse { load_reporting_interval: interval, ..asked(&[], true) };
            assert_eq!(tracked.ask(asked, &ClusterTable::default()), SHORTEST_INTERVAL);
        }
    }
}
