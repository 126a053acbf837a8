//! Kind `Service`: its ports, and how to talk to it.

use super::duration;
use super::object::Labels;
use serde::Serialize;
use std::time::Duration;

/// A service of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// A DNS label.
    #[serde(skip)]
    pub name: String,
    /// Labels of the object.
    #[serde(skip)]
    pub labels: Labels,
    /// At least one; port numbers are unique.
    pub ports: Vec<ServicePort>,
    /// Named parts of its instances; names are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subsets: Vec<Subset>,
    /// How an instance is picked.
    pub load_balancer: LoadBalancer,
    /// How callers find out for themselves whether an instance works. Absent: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// When an instance is taken out of the rotation. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Limits of what one caller has open at a time. Absent: Envoy's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Time limits.
    #[serde(skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    /// Retries of requests to this service, unless their route says otherwise. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// The subset with this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// The ports that carry HTTP of any version.
    pub fn http_ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.ports.iter().filter(|port| port.protocol.is_http())
    }
}

/// A port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS of its own (the mesh adds it).
    Http2,
    /// gRPC, on HTTP/2.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS that the application ends itself: bytes to the mesh.
    Tls,
}

impl Protocol {
    /// Whether requests are visible to the mesh: HTTP of any version.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// Whether the application speaks HTTP/2 on it.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// A named part of a service's instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// A DNS label, unique within the service.
    pub name: String,
    /// An instance belongs to the subset if it has all of these; at least one.
    pub labels: Labels,
}

impl Subset {
    /// Whether an instance with these labels belongs to it.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// How an instance is picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The algorithm.
    pub policy: LoadBalancerPolicy,
    /// What of a request decides where it goes; what a request does not have counts for nothing. Not empty for the
    /// policies that hash, empty for the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hash_on: Vec<HashKey>,
    /// A new instance gets its whole share only after so long; more than zero. Absent: at once.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub slow_start: Option<Duration>,
    /// Whether requests are divided among localities by the weights of their instances before one is picked within.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub locality_weighted: bool,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            policy: LoadBalancerPolicy::LeastRequest,
            hash_on: Vec::new(),
            slow_start: None,
            locality_weighted: false,
        }
    }
}

/// A part of a request that is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// The header with this name, in lower case.
    Header(String),
    /// The cookie with this name.
    Cookie(String),
    /// The query parameter with this name.
    Query(String),
    /// The address of the client. Always `true`.
    SourceIp(bool),
}

/// How callers find out whether an instance works, as in Envoy's `HealthCheck`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// Time between two checks, more than zero; 5 s.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// An answer that takes longer is none, more than zero; 1 s.
    #[serde(serialize_with = "duration::serialize")]
    pub timeout: Duration,
    /// So many failures in a row make an instance unhealthy, 1 or more; 3.
    pub unhealthy_threshold: u32,
    /// So many successes in a row make it healthy again, 1 or more; 2.
    pub healthy_threshold: u32,
}

/// What a health check asks. One of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// A GET that is to be answered with 200.
    Http {
        /// The path.
        path: String,
    },
    /// The gRPC health service.
    Grpc {
        /// The service that is asked about; empty: the server.
        #[serde(skip_serializing_if = "String::is_empty")]
        service: String,
    },
    /// A connection.
    Tcp {},
}

/// A load-balancing algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancerPolicy {
    /// One after the other, by weight.
    RoundRobin,
    /// The less busy of two random picks.
    LeastRequest,
    /// Of two random picks the one that is likely to answer sooner, by how long its answers took lately; for clients that
    /// are not our sidecars the less busy.
    PeakEwma,
    /// Any.
    Random,
    /// By the hash of a part of the request, on a ring: few requests move when an instance comes or goes.
    RingHash,
    /// By the hash of a part of the request, from a table: even shares, and more that move.
    Maglev,
}

impl LoadBalancerPolicy {
    /// Whether it goes by a hash.
    pub const fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// When an instance is taken out of the rotation, as in Envoy's `OutlierDetection`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// So many 5xx answers in a row; absent: not a reason. Without `consecutiveGatewayFailure` it is 5 when not given.
    #[serde(skip_serializing_if = "Option::is_none", rename = "consecutive5xx")]
    pub consecutive_5xx: Option<u32>,
    /// So many answers 502, 503 or 504 (or connections that failed) in a row; absent: not a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_failure: Option<u32>,
    /// Time between two sweeps that take instances back. More than zero; 10 s.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// The first ejection lasts so long, the n-th n times as long. More than zero; 30 s.
    #[serde(serialize_with = "duration::serialize")]
    pub base_ejection_time: Duration,
    /// At most this share of the instances is ejected at a time, 0 to 100; 50.
    pub max_ejection_percent: u8,
    /// One instance may be ejected whatever the share says; true.
    pub always_eject_one: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_failure: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 50,
            always_eject_one: true,
        }
    }
}

/// Limits of what one caller has open at a time. What is absent has Envoy's default (1024; 3 retries).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Retries. Beside a budget, what is allowed whatever the budget is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Retries may be such a share of the requests, 0 to 100; absent: `max_retries` alone counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget_percent: Option<u8>,
}

/// Time limits of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the end of the request to the end of the response; zero: no limit. Absent: 15 s, Envoy's default.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub request: Option<Duration>,
    /// Until a connection stands, more than zero. Absent: 5 s, Envoy's default.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub connect: Option<Duration>,
    /// A connection without a request is closed after so long; zero: never. Absent: 1 h, Envoy's default.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub idle: Option<Duration>,
}

impl Timeouts {
    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Retries. A field that is absent in a route's has the value of its service's, see [`Retry::over`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries after the first, 0 to 10. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What is retried; not empty. Absent: `connect-failure` and `refused-stream`, which are safe for any request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryOn>>,
    /// Time limit of one try, more than zero. Absent: the request's.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub per_try_timeout: Option<Duration>,
    /// Base of the exponential back-off, more than zero. Absent: 25 ms, Envoy's default.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "duration::serialize_optional"
    )]
    pub backoff: Option<Duration>,
}

impl Retry {
    /// These retries of a route, with what they do not say taken from `service`.
    pub fn over(&self, service: Option<&Self>) -> Self {
        let base = service.cloned().unwrap_or_default();
        Self {
            attempts: self.attempts.or(base.attempts),
            on: self.on.clone().or(base.on),
            per_try_timeout: self.per_try_timeout.or(base.per_try_timeout),
            backoff: self.backoff.or(base.backoff),
        }
    }

    /// Tries after the first, default applied.
    pub fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(1)
    }

    /// What is retried, default applied.
    pub fn on(&self) -> &[RetryOn] {
        self.on.as_deref().unwrap_or(&[RetryOn::ConnectFailure, RetryOn::RefusedStream])
    }
}

/// A condition under which a request is retried. Names are Envoy's (`x-envoy-retry-on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No connection could be made.
    ConnectFailure,
    /// The stream was refused before the application saw it.
    RefusedStream,
    /// The answer is 502, 503 or 504.
    GatewayError,
    /// The connection ended before the answer came.
    Reset,
    /// The answer is any 5xx.
    #[serde(rename = "5xx")]
    ServerError,
}

impl RetryOn {
    /// Every condition.
    pub const ALL: [Self; 5] = [
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::GatewayError,
        Self::Reset,
        Self::ServerError,
    ];

    /// The name, as documents and Envoy spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ServerError => "5xx",
        }
    }
}
