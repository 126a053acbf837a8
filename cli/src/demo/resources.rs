//! The mesh resources of the demo: the files of `examples/mesh`, compiled in.

use outrigger_control_plane::model::duration;
use serde_json::{Value, json};
use std::time::Duration;

use super::topology::OUTSIDER;

/// Everything but the gateway.
pub(crate) const MESH: &str = include_str!("../../../examples/mesh/demo.yaml");
/// The gateway and its route.
const GATEWAY: &str = include_str!("../../../examples/mesh/gateway.yaml");
/// What act 7 tries to apply.
pub(crate) const THREE_ERRORS: &str = include_str!("../../../examples/broken/three-errors.yaml");

/// The port that stands in the file.
const GATEWAY_PORT: &str = "port: 8080";

/// The gateway at a port of our own choice.
pub(crate) fn gateway(port: u16) -> String {
    GATEWAY.replace(GATEWAY_PORT, &format!("port: {port}"))
}

/// The route of all calls to `api`: `x-canary: 1` goes to v2, the others by weight.
pub(crate) fn api_route(v1: u32, v2: u32) -> Value {
    let mut backends = Vec::new();
    for (subset, weight) in [("v1", v1), ("v2", v2)] {
        if weight > 0 {
            backends.push(json!({"name": "api", "subset": subset, "weight": weight}));
        }
    }
    json!({
        "kind": "Route",
        "name": "api-canary",
        "spec": {
            "hosts": ["api"],
            "rules": [
                {
                    "matches": [{"headers": [{"name": "x-canary", "value": "1"}]}],
                    "backendRefs": [{"name": "api", "subset": "v2"}],
                },
                {"backendRefs": backends},
            ],
        },
    })
}

/// The service `api`, as far as acts change it.
#[derive(Debug, Clone)]
pub(crate) struct ApiService {
    /// `least_request`, `round_robin`, ...
    pub(crate) policy: &'static str,
    /// Errors in a row that eject.
    pub(crate) consecutive_5xx: u32,
    /// How long the first ejection lasts.
    pub(crate) ejection: Duration,
    /// How long a request may take.
    pub(crate) timeout: Duration,
}

impl Default for ApiService {
    fn default() -> Self {
        Self {
            policy: "least_request",
            consecutive_5xx: 5,
            ejection: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl ApiService {
    /// The document.
    pub(crate) fn document(&self) -> Value {
        json!({
            "kind": "Service",
            "name": "api",
            "spec": {
                "ports": [{"port": 9000, "protocol": "http"}],
                "subsets": [
                    {"name": "v1", "labels": {"version": "v1"}},
                    {"name": "v2", "labels": {"version": "v2"}},
                ],
                "loadBalancer": {"policy": self.policy},
                "outlierDetection": {
                    "consecutive5xx": self.consecutive_5xx,
                    "interval": "1s",
                    "baseEjectionTime": duration::format(self.ejection),
                    "maxEjectionPercent": 50,
                },
                // When an instance crashes, everything that was under way there is sent again at once.
                "circuitBreaker": {"maxRetries": 100},
                "timeouts": {"request": duration::format(self.timeout), "connect": "1s"},
                "retry": {
                    "attempts": 2,
                    "on": ["connect-failure", "refused-stream", "reset", "gateway-error"],
                    "backoff": "10ms",
                },
            },
        })
    }
}

/// The Endpoint object of the instance without a sidecar.
pub(crate) fn outsider(address: &str, port: u16) -> Value {
    json!({
        "kind": "Endpoint",
        "name": OUTSIDER.name,
        "spec": {
            "service": OUTSIDER.service,
            "address": address,
            "port": port,
            "labels": {"version": OUTSIDER.version},
        },
    })
}

/// Lets a service call another.
pub(crate) fn allow(name: &str, from: &str, to: &str) -> Value {
    json!({
        "kind": "Policy",
        "name": name,
        "spec": {"to": [{"service": to}], "action": "allow", "from": [{"service": from}]},
    })
}

/// The settings of the whole mesh.
pub(crate) fn mesh(leaf_ttl: Duration) -> Value {
    json!({
        "kind": "Mesh",
        "name": "default",
        "spec": {"mtls": "strict", "defaultAction": "deny", "leafTtl": duration::format(leaf_ttl)},
    })
}

/// Deletes an object as part of a transaction.
pub(crate) fn deletion(kind: &str, name: &str) -> Value {
    json!({ "kind": kind, "name": name, "delete": true })
}

/// Several documents as one text that `apply` takes.
pub(crate) fn documents(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}
