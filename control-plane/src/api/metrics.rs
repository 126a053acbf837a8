//! `GET /metrics`: the control plane's own figures, in Prometheus' text format.

use super::Api;
use super::failure::Failure;
use super::input::Parameters;
use super::view::{EndpointHealth, TypeStatus};
use crate::model::Kind;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is counted.
#[derive(Default)]
pub(super) struct Metrics {
    answers: Mutex<BTreeMap<u16, u64>>,
    pub(super) applies: Applies,
}

/// Transactions by outcome.
#[derive(Default)]
pub(super) struct Applies {
    changed: AtomicU64,
    unchanged: AtomicU64,
    rejected: AtomicU64,
}

impl Applies {
    pub(super) fn changed(&self) {
        self.changed.fetch_add(1, Relaxed);
    }

    pub(super) fn unchanged(&self) {
        self.unchanged.fetch_add(1, Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }
}

impl Metrics {
    pub(super) fn answered(&self, status: StatusCode) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status.as_u16()).or_default() += 1;
    }
}

pub(super) async fn scrape(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Failure> {
    parameters.finish(&[])?;
    let text = Exposition::default().of(&api).text;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn of(mut self, api: &Api) -> Self {
        let config = api.store.current();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.family("outrigger_build_info", "gauge", "The software that runs.");
        self.sample("outrigger_build_info", &version, 1);
        self.family("outrigger_config_revision", "gauge", "The revision in force.");
        self.sample("outrigger_config_revision", &[], config.revision());
        self.family("outrigger_objects", "gauge", "Objects of the mesh.");
        for kind in Kind::ALL {
            let count = config.objects_of(kind).len() as u64;
            self.sample("outrigger_objects", &[("kind", kind.as_str())], count);
        }
        self.clients(api);
        self.certificates(api);
        self.endpoints(api);
        self.family("outrigger_transactions_total", "counter", "Transactions by outcome.");
        for (outcome, count) in [
            ("changed", &api.metrics.applies.changed),
            ("unchanged", &api.metrics.applies.unchanged),
            ("rejected", &api.metrics.applies.rejected),
        ] {
            let labels = [("outcome", outcome)];
            self.sample("outrigger_transactions_total", &labels, count.load(Relaxed));
        }
        self.family("outrigger_api_responses_total", "counter", "Answers of this API by status.");
        let answers = api.metrics.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (code, count) in answers {
            let code = code.to_string();
            self.sample("outrigger_api_responses_total", &[("code", code.as_str())], count);
        }
        self
    }

    fn clients(&mut self, api: &Api) {
        let sidecars = api.view.sidecars();
        let count = |predicate: &dyn Fn(&super::view::SidecarStatus) -> bool| {
            sidecars.iter().filter(|sidecar| predicate(sidecar)).count() as u64
        };
        self.family("outrigger_clients", "gauge", "Clients of discovery by connection.");
        let connected = count(&|sidecar| sidecar.connected);
        self.sample("outrigger_clients", &[("state", "connected")], connected);
        let gone = count(&|sidecar| !sidecar.connected);
        self.sample("outrigger_clients", &[("state", "disconnected")], gone);
        let help = "Clients whose last answer to a resource type was a rejection.";
        self.family("outrigger_clients_rejecting", "gauge", help);
        let rejecting = count(&|sidecar| {
            let types = [
                &sidecar.listeners,
                &sidecar.routes,
                &sidecar.clusters,
                &sidecar.endpoints,
                &sidecar.secrets,
            ];
            types.into_iter().any(|status| matches!(status, TypeStatus::Rejected { .. }))
        });
        self.sample("outrigger_clients_rejecting", &[], rejecting);
    }

    fn certificates(&mut self, api: &Api) {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let authority = api.identities.authority();
        let name = "outrigger_certificate_expiry_timestamp_seconds";
        self.family(
            name,
            "gauge",
            "When a certificate ends; of sidecars, the one that ends first.",
        );
        for root in authority.roots.iter().take(1) {
            self.sample(name, &[("certificate", "root")], seconds(root.expires));
        }
        let issuing = seconds(authority.issuing_expires);
        self.sample(name, &[("certificate", "issuing")], issuing);
        let sidecars = api.view.sidecars().into_iter().filter(|it| it.connected);
        if let Some(first) = sidecars.filter_map(|it| it.certificate_expires).min() {
            self.sample(name, &[("certificate", "sidecar")], seconds(first));
        }
        self.family("outrigger_alarms", "gauge", "What will go wrong if nobody does anything.");
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for alarm in api.alarms() {
            *counts.entry(alarm.code).or_default() += 1;
        }
        for code in
            ["root_expires", "issuing_expires", "certificate_expires", "certificate_expired"]
        {
            let count = counts.get(code).copied().unwrap_or_default();
            self.sample("outrigger_alarms", &[("code", code)], count);
        }
    }

    fn endpoints(&mut self, api: &Api) {
        let endpoints = api.view.endpoints(None);
        self.family("outrigger_endpoints", "gauge", "Endpoints by health.");
        for (name, health) in [
            ("healthy", EndpointHealth::Healthy),
            ("unhealthy", EndpointHealth::Unhealthy),
            ("draining", EndpointHealth::Draining),
            ("ejected", EndpointHealth::Ejected),
        ] {
            let count = endpoints.iter().filter(|endpoint| endpoint.health == health).count();
            self.sample("outrigger_endpoints", &[("health", name)], count as u64);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Label values are words of ours: nothing in them needs an escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}
