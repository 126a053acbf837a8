//! Event logs: what outlier detection and health checks decide, a line of JSON for each event, in the form of Envoy's
//! `OutlierDetectionEvent` and `HealthCheckEvent` (every field is written, zeros too).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::health_check::FailureKind;
use super::outlier_detection::EjectionReason;
use crate::config;
use crate::config::endpoint::Locality;
use crate::config::health_check::Check;

/// Writes lines to files.
pub(crate) trait EventLog: Send + Sync {
    /// Appends a line.
    fn write(&self, path: &Path, line: &str);
}

/// Nobody wants to know.
pub(super) struct Nowhere;

impl EventLog for Nowhere {
    fn write(&self, _: &Path, _: &str) {}
}

/// Where ejections are written to.
#[derive(Clone)]
pub(super) struct OutlierLog {
    pub(super) events: Arc<dyn EventLog>,
    pub(super) path: Arc<Path>,
}

/// What is known of an endpoint's ejections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ejected {
    /// How often it was ejected.
    pub(super) count: u32,
    /// The time since it last returned (where it is ejected) or was ejected (where it returns).
    pub(super) since: Option<Duration>,
}

/// Figures by which an endpoint was found to be bad, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) host: Option<f64>,
    pub(super) average: Option<f64>,
    pub(super) threshold: Option<f64>,
}

impl OutlierLog {
    /// An endpoint is ejected; not `enforced`: it would be, but for the percentage that is enforced.
    pub(super) fn ejected(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        reason: EjectionReason,
        enforced: bool,
        ejected: Ejected,
    ) {
        let rates = endpoint.outlier.success_rates();
        let comparisons = cluster.comparisons();
        let (kind, rates) = match reason {
            EjectionReason::Consecutive5xx => ("CONSECUTIVE_5XX", None),
            EjectionReason::ConsecutiveGatewayFailure => ("CONSECUTIVE_GATEWAY_FAILURE", None),
            EjectionReason::ConsecutiveLocalOriginFailure => {
                ("CONSECUTIVE_LOCAL_ORIGIN_FAILURE", None)
            }
            EjectionReason::SuccessRate => {
                let compared = comparisons.map(|both| &both.external);
                let average = compared.and_then(|it| it.average.get());
                let threshold = compared.and_then(|it| it.threshold.get());
                ("SUCCESS_RATE", Some((true, Rates { host: rates.external, average, threshold })))
            }
            EjectionReason::LocalOriginSuccessRate => {
                let compared = comparisons.map(|both| &both.local);
                let average = compared.and_then(|it| it.average.get());
                let threshold = compared.and_then(|it| it.threshold.get());
                let rates = Rates { host: rates.local, average, threshold };
                ("SUCCESS_RATE_LOCAL_ORIGIN", Some((true, rates)))
            }
            EjectionReason::FailurePercentage => {
                let rates = Rates { host: rates.external, ..Rates::default() };
                ("FAILURE_PERCENTAGE", Some((false, rates)))
            }
            EjectionReason::LocalOriginFailurePercentage => {
                let rates = Rates { host: rates.local, ..Rates::default() };
                ("FAILURE_PERCENTAGE_LOCAL_ORIGIN", Some((false, rates)))
            }
        };
        let mut event = OutlierEvent::new(kind, "EJECT", cluster, endpoint, ejected);
        event.enforced = enforced;
        match rates {
            None => event.eject_consecutive_event = Some(Empty {}),
            Some((true, rates)) => {
                event.eject_success_rate_event = Some(SuccessRate {
                    host_success_rate: whole(rates.host),
                    cluster_average_success_rate: whole(rates.average),
                    cluster_success_rate_ejection_threshold: whole(rates.threshold),
                });
            }
            Some((false, rates)) => {
                event.eject_failure_percentage_event =
                    Some(FailurePercentage { host_success_rate: whole(rates.host) });
            }
        }
        self.write(&event);
    }

    /// An endpoint returns.
    pub(super) fn returned(&self, cluster: &Cluster, endpoint: &Endpoint, ejected: Ejected) {
        // The type is the first of the enumeration: Envoy does not say why it was ejected.
        self.write(&OutlierEvent::new("CONSECUTIVE_5XX", "UNEJECT", cluster, endpoint, ejected));
    }

    fn write(&self, event: &OutlierEvent<'_>) {
        if let Ok(line) = serde_json::to_string(event) {
            self.events.write(&self.path, &line);
        }
    }
}

/// As Envoy cuts a rate to an unsigned integer.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a percentage
fn whole(percent: Option<f64>) -> u32 {
    percent.unwrap_or(0.0).max(0.0) as u32
}

/// In the order of the proto, with oneofs at the end.
#[derive(Serialize)]
struct OutlierEvent<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    /// 64 bits in JSON are a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    secs_since_last_action: Option<String>,
    cluster_name: &'a str,
    upstream_url: String,
    action: &'static str,
    num_ejections: u32,
    enforced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_success_rate_event: Option<SuccessRate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_consecutive_event: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_failure_percentage_event: Option<FailurePercentage>,
}

impl<'a> OutlierEvent<'a> {
    fn new(
        kind: &'static str,
        action: &'static str,
        cluster: &'a Cluster,
        endpoint: &Endpoint,
        ejected: Ejected,
    ) -> Self {
        Self {
            r#type: kind,
            timestamp: Timestamp::now(),
            secs_since_last_action: ejected.since.map(|since| since.as_secs().to_string()),
            cluster_name: &cluster.name,
            upstream_url: endpoint.address.to_string(),
            action,
            num_ejections: ejected.count,
            enforced: false,
            eject_success_rate_event: None,
            eject_consecutive_event: None,
            eject_failure_percentage_event: None,
        }
    }
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct SuccessRate {
    host_success_rate: u32,
    cluster_average_success_rate: u32,
    cluster_success_rate_ejection_threshold: u32,
}

#[derive(Serialize)]
struct FailurePercentage {
    host_success_rate: u32,
}

/// What a health check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthNews {
    /// The endpoint is unhealthy now.
    EjectUnhealthy {
        /// How the check failed.
        kind: FailureKind,
        /// The HTTP status; 0 for none.
        status: u16,
    },
    /// The endpoint is healthy now.
    AddHealthy {
        /// By its first check.
        first: bool,
    },
    /// A check passed.
    Successful,
    /// A check failed.
    Failure {
        /// How.
        kind: FailureKind,
        /// The HTTP status; 0 for none.
        status: u16,
        /// It was the first.
        first: bool,
    },
    /// The endpoint says that it is degraded now.
    Degraded,
    /// The endpoint says so no more.
    NoLongerDegraded,
}

/// Writes what a health check found to the logs of its cluster.
pub(super) fn health(
    events: &dyn EventLog,
    cluster: &Cluster,
    check: &config::health_check::HealthCheck,
    endpoint: &Endpoint,
    news: HealthNews,
) {
    if check.event_logs.is_empty() {
        return;
    }
    let hosts = cluster.hosts.load();
    let mut located = hosts.located();
    let locality = located.find(|(_, _, other)| other.id == endpoint.id).map(|(_, it, _)| it);
    let mut event = HealthEvent {
        health_checker_type: match check.check {
            Check::Http(_) => "HTTP",
            Check::Grpc(_) => "GRPC",
            Check::Tcp(_) => "TCP",
        },
        host: Address::of(&endpoint.address),
        cluster_name: &cluster.name,
        eject_unhealthy_event: None,
        add_healthy_event: None,
        timestamp: Timestamp::now(),
        health_check_failure_event: None,
        degraded_healthy_host: None,
        no_longer_degraded_host: None,
        locality: Place::of(locality.map(|locality| &**locality)),
        successful_health_check_event: None,
    };
    match news {
        HealthNews::EjectUnhealthy { kind, status } => {
            let failure_type = failure_type(kind);
            event.eject_unhealthy_event =
                Some(Unhealthy { failure_type, http_status_code: status });
        }
        HealthNews::AddHealthy { first } => {
            event.add_healthy_event = Some(Healthy { first_check: first });
        }
        HealthNews::Successful => event.successful_health_check_event = Some(Empty {}),
        HealthNews::Failure { kind, status, first } => {
            let failed = Failed {
                failure_type: failure_type(kind),
                first_check: first,
                http_status_code: status,
            };
            event.health_check_failure_event = Some(failed);
        }
        HealthNews::Degraded => event.degraded_healthy_host = Some(Empty {}),
        HealthNews::NoLongerDegraded => event.no_longer_degraded_host = Some(Empty {}),
    }
    if let Ok(line) = serde_json::to_string(&event) {
        check.event_logs.iter().for_each(|path| events.write(path, &line));
    }
}

fn failure_type(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Answer | FailureKind::Retriable => "ACTIVE",
        FailureKind::Told => "PASSIVE",
        FailureKind::Network => "NETWORK",
        FailureKind::Timeout => "NETWORK_TIMEOUT",
    }
}

#[derive(Serialize)]
struct HealthEvent<'a> {
    health_checker_type: &'static str,
    host: Address,
    cluster_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    eject_unhealthy_event: Option<Unhealthy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add_healthy_event: Option<Healthy>,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_failure_event: Option<Failed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_healthy_host: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_longer_degraded_host: Option<Empty>,
    locality: Place<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successful_health_check_event: Option<Empty>,
}

#[derive(Serialize)]
struct Unhealthy {
    failure_type: &'static str,
    http_status_code: u16,
}

#[derive(Serialize)]
struct Healthy {
    first_check: bool,
}

#[derive(Serialize)]
struct Failed {
    failure_type: &'static str,
    first_check: bool,
    http_status_code: u16,
}

/// An `envoy.config.core.v3.Address`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Address {
    SocketAddress(SocketAddressJson),
    Pipe { path: String, mode: u32 },
}

#[derive(Serialize)]
struct SocketAddressJson {
    protocol: &'static str,
    address: String,
    port_value: u16,
    resolver_name: &'static str,
    ipv4_compat: bool,
    network_namespace_filepath: &'static str,
}

impl Address {
    fn of(address: &config::address::Address) -> Self {
        let address = match address {
            config::address::Address::Ip(address) => address,
            config::address::Address::Pipe(path) => {
                return Self::Pipe { path: path.to_string(), mode: 0 };
            }
        };
        Self::SocketAddress(SocketAddressJson {
            protocol: "TCP",
            address: address.ip().to_string(),
            port_value: address.port(),
            resolver_name: "",
            ipv4_compat: false,
            network_namespace_filepath: "",
        })
    }
}

#[derive(Serialize)]
struct Place<'a> {
    region: &'a str,
    zone: &'a str,
    sub_zone: &'a str,
}

impl<'a> Place<'a> {
    fn of(locality: Option<&'a Locality>) -> Self {
        locality.map_or(Self { region: "", zone: "", sub_zone: "" }, |locality| Self {
            region: &locality.region,
            zone: &locality.zone,
            sub_zone: &locality.sub_zone,
        })
    }
}

/// `2026-11-24T05:38:00.226123456Z`
struct Timestamp(OffsetDateTime);

impl Timestamp {
    fn now() -> Self {
        Self(OffsetDateTime::from(SystemTime::now()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let format = time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z"
        );
        let text = self.0.format(format).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Keeps lines, as JSON, without their times.
    #[derive(Default)]
    pub(crate) struct Kept(Mutex<Vec<(std::path::PathBuf, serde_json::Value)>>);

    impl EventLog for Kept {
        fn write(&self, path: &Path, line: &str) {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            let at = event.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push((path.to_owned(), event));
        }
    }

    impl Kept {
        /// What was written since the last call.
        pub(crate) fn take(&self) -> Vec<(std::path::PathBuf, serde_json::Value)> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}
