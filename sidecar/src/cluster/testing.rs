//! Clusters and endpoints for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointId};
use super::host_set::{LocalityHosts, Members};
use crate::config::cluster::{
    CircuitBreakers, Cluster, Discovery, FailurePercentage, HealthRules, OutlierDetection,
    SuccessRate, UpstreamProtocol,
};
use crate::config::endpoint::{
    self, AssignmentPolicy, EndpointAddress, HealthStatus, LoadAssignment, Locality,
    LocalityEndpoints,
};
use crate::config::http_connection_manager::Http2Options;
use crate::config::http1::UpstreamHttp1;
use crate::config::load_balancer::{LoadBalancer, ZoneAware};

/// A STATIC cluster without an endpoint, with Envoy's defaults.
pub(crate) fn config(name: &str) -> Cluster {
    let breakers = CircuitBreakers {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        retry_budget: None,
        track_remaining: false,
    };
    Cluster {
        name: name.into(),
        alt_stat_name: None,
        discovery: Discovery::Static(Arc::new(assignment(name, Vec::new()))),
        load_balancer: LoadBalancer::RoundRobin,
        override_host: None,
        healthy_panic_threshold: 50,
        slow_start: None,
        locality_weighted: false,
        zone_aware: ZoneAware::default(),
        subsets: None,
        fail_traffic_on_panic: false,
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit: 1 << 20,
        transport: None,
        proxy_protocol: None,
        transport_socket_matches: Vec::new(),
        protocol: UpstreamProtocol::Http1,
        http1: UpstreamHttp1::default(),
        http2: Http2Options {
            max_concurrent_streams: 1024,
            initial_stream_window_size: 1 << 16,
            initial_connection_window_size: 1 << 20,
            allow_connect: false,
            header_table_size: 4096,
            keepalive: None,
        },
        idle_timeout: None,
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_response_headers_count: 100,
        max_response_headers_bytes: 60 * 1024,
        circuit_breakers: [breakers.clone(), breakers],
        outlier_detection: None,
        health_check: None,
        health: HealthRules::default(),
        tcp_keepalive: None,
        bind: None,
        happy_eyeballs: None,
        auto_sni: false,
        metadata: Arc::default(),
        fingerprint: 0,
    }
}

/// Envoy's defaults, but every host may be ejected.
pub(crate) fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        success_rate: SuccessRate {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
            enforcing: 100,
            enforcing_local_origin: 100,
        },
        failure_percentage: FailurePercentage {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
            enforcing: 0,
            enforcing_local_origin: 0,
        },
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        uneject_on_passed_check: true,
    }
}

/// A load assignment of groups.
pub(crate) fn assignment(name: &str, localities: Vec<LocalityEndpoints>) -> LoadAssignment {
    let policy = AssignmentPolicy::default();
    LoadAssignment { cluster_name: name.into(), localities, policy, drop_category: None }
}

/// A group of endpoints in one unnamed locality.
pub(crate) fn group(priority: u32, endpoints: Vec<endpoint::Endpoint>) -> LocalityEndpoints {
    LocalityEndpoints { locality: Arc::new(Locality::default()), priority, weight: None, endpoints }
}

/// The endpoint 127.0.0.1:PORT of weight 1.
pub(crate) fn endpoint(port: u16) -> endpoint::Endpoint {
    endpoint::Endpoint {
        address: EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], port))),
        hostname: "".into(),
        weight: 1,
        health: HealthStatus::Unknown,
        metadata: Arc::default(),
        check: None,
        additional_addresses: Arc::default(),
    }
}

/// The members of one priority: endpoints of these weights and states, on ports from `port` on.
pub(super) fn members(port: u16, endpoints: &[(u32, HealthStatus)]) -> Members {
    let made = endpoints.iter().zip(port..).map(|(&(weight, health), port)| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let endpoint = Endpoint::new(EndpointId(port.into()), address.into(), "".into(), None, 1);
        endpoint.update(weight, health, &Arc::default());
        Arc::new(endpoint)
    });
    Members { all: made.collect(), localities: [].into() }
}

/// The members of one priority in localities of these weights; the ports of each begin at the next ten.
pub(super) fn located(port: u16, localities: &[(Option<u32>, &[HealthStatus])]) -> Members {
    let (mut all, mut ranges) = (Vec::new(), Vec::new());
    for (number, (weight, states)) in (0u16..).zip(localities) {
        let endpoints: Vec<_> = states.iter().map(|state| (1, *state)).collect();
        let locality = Locality { zone: format!("zone-{number}").into(), ..Locality::default() };
        ranges.push(LocalityHosts {
            locality: Arc::new(locality),
            weight: *weight,
            start: all.len(),
            count: endpoints.len(),
        });
        all.extend(members(port + 10 * number, &endpoints).all.iter().cloned());
    }
    Members { all: all.into(), localities: ranges.into() }
}
