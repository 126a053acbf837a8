//! `/clusters`.

use serde_json::{Map, Value as Json, json};

use super::query::ClusterStatus;
use super::reply::Reply;
use crate::cluster::health_check::flags::Flag;
use crate::cluster::{Endpoint, Health};
use crate::config::address::Address;
use crate::config::endpoint::HealthStatus;
use crate::stats::{Counter, EndpointCells, Gauge};

/// A counter's name, and where it is.
type NamedCell = (&'static str, fn(&EndpointCells) -> &Counter);

/// Counters of an endpoint, in the order in which Envoy prints them.
const COUNTERS: [NamedCell; 6] = [
    ("cx_connect_fail", |cells| &cells.cx_connect_fail),
    ("cx_total", |cells| &cells.cx_total),
    ("rq_error", |cells| &cells.rq_error),
    ("rq_success", |cells| &cells.rq_success),
    ("rq_timeout", |cells| &cells.rq_timeout),
    ("rq_total", |cells| &cells.rq_total),
];

/// Gauges of an endpoint.
fn gauges(endpoint: &Endpoint) -> [(&'static str, u64); 3] {
    let sum = |gauge: fn(&EndpointCells) -> &Gauge| {
        crate::stats::cell::gauge_sum(endpoint.stats.used().map(|cells| gauge(cells).raw().0))
    };
    [
        ("cx_active", sum(|cells| &cells.cx_active)),
        ("rq_active", u64::from(endpoint.active())),
        ("rq_pending_active", 0),
    ]
}

fn counter(endpoint: &Endpoint, counter: fn(&EndpointCells) -> &Counter) -> u64 {
    endpoint.stats.used().map(|cells| counter(cells).value()).sum()
}

/// Envoy's health flags: `healthy`, or what is wrong.
fn health_flags(endpoint: &Endpoint) -> String {
    let discovered = endpoint.discovered_health();
    let checked = |flag| endpoint.check.has(flag);
    let said = [
        (checked(Flag::Failed), "/failed_active_hc"),
        (endpoint.outlier.ejection().is_some(), "/failed_outlier_check"),
        (discovered.is_unhealthy(), "/failed_eds_health"),
        (checked(Flag::Degraded), "/degraded_active_hc"),
        (discovered == HealthStatus::Degraded, "/degraded_eds_health"),
        (checked(Flag::Left), "/pending_dynamic_removal"),
        (checked(Flag::Pending), "/pending_active_hc"),
        (checked(Flag::Excluded), "/excluded_via_immediate_hc_fail"),
        (checked(Flag::TimedOut), "/active_hc_timeout"),
        (discovered == HealthStatus::Timeout, "/eds_status_timeout"),
        (discovered == HealthStatus::Draining, "/eds_status_draining"),
    ];
    let flags: String = said.into_iter().filter_map(|(said, flag)| said.then_some(flag)).collect();
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

pub(super) fn text(clusters: &[ClusterStatus]) -> Reply {
    let mut out = String::new();
    for ClusterStatus { cluster, added_via_api } in clusters {
        let name = &*cluster.name;
        let config = &cluster.config;
        let observability = config.alt_stat_name.as_deref().unwrap_or(name);
        let mut line = |what: &str| out.push_str(&format!("{name}::{what}\n"));
        line(&format!("observability_name::{observability}"));
        if let Some(comparisons) = cluster.comparisons() {
            for (figure, percent) in [
                ("success_rate_average", &comparisons.external.average),
                ("success_rate_ejection_threshold", &comparisons.external.threshold),
                ("local_origin_success_rate_average", &comparisons.local.average),
                ("local_origin_success_rate_ejection_threshold", &comparisons.local.threshold),
            ] {
                line(&format!("outlier::{figure}::{}", or_minus_one(percent.get())));
            }
        }
        for (priority, limits) in ["default", "high"].iter().zip(&config.circuit_breakers) {
            for (limit, value) in [
                ("max_connections", limits.max_connections),
                ("max_pending_requests", limits.max_pending_requests),
                ("max_requests", limits.max_requests),
                ("max_retries", limits.max_retries),
            ] {
                line(&format!("{priority}_priority::{limit}::{value}"));
            }
        }
        line(&format!("added_via_api::{added_via_api}"));
        let hosts = cluster.hosts.load();
        for (priority, locality, endpoint) in hosts.located() {
            let mut line = |what: &str, value: &dyn std::fmt::Display| {
                out.push_str(&format!("{name}::{}::{what}::{value}\n", endpoint.address));
            };
            let [active, rest @ ..] = gauges(endpoint);
            let counters = COUNTERS.map(|(what, cell)| (what, counter(endpoint, cell)));
            // Envoy sorts counters and gauges together.
            let mut figures: Vec<_> = counters.into_iter().chain(rest).chain([active]).collect();
            figures.sort_unstable();
            for (what, value) in figures {
                line(what, &value);
            }
            line("hostname", &endpoint.hostname);
            line("health_flags", &health_flags(endpoint));
            line("weight", &endpoint.weight());
            line("region", &locality.region);
            line("zone", &locality.zone);
            line("sub_zone", &locality.sub_zone);
            line("canary", &false);
            line("priority", &priority);
            let rates = endpoint.outlier.success_rates();
            line("success_rate", &or_minus_one(rates.external));
            line("local_origin_success_rate", &or_minus_one(rates.local));
            // Ours: Envoy does not say why, and until when.
            if let Some(ejection) = endpoint.outlier.ejection() {
                line("ejected_because", &ejection.reason);
                line("ejected_until", &rfc3339_millis(ejection.until));
            }
        }
    }
    Reply::text(out)
}

/// As Envoy prints a rate: six digits; -1 where an interval had too few requests.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // digits of a percentage
fn or_minus_one(percent: Option<f64>) -> String {
    let percent = percent.unwrap_or(-1.0);
    let before_point = percent.abs().max(1.0).log10().floor() as usize + 1;
    let text = format!("{percent:.*}", 6usize.saturating_sub(before_point));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

pub(super) fn json(clusters: &[ClusterStatus]) -> Reply {
    let statuses: Vec<Json> = clusters.iter().map(cluster_json).collect();
    if statuses.is_empty() {
        return Reply::json(&json!({}));
    }
    Reply::json(&json!({"cluster_statuses": statuses}))
}

fn cluster_json(status: &ClusterStatus) -> Json {
    let ClusterStatus { cluster, added_via_api } = status;
    let config = &cluster.config;
    let hosts = cluster.hosts.load();
    let hosts: Vec<Json> = hosts
        .located()
        .map(|(priority, locality, endpoint)| {
            let mut host = json!({
                "address": address(&endpoint.address),
                "stats": endpoint_stats(endpoint),
                "health_status": health(endpoint),
                "weight": endpoint.weight(),
                "locality": without_empty(json!({
                    "region": &*locality.region,
                    "zone": &*locality.zone,
                    "sub_zone": &*locality.sub_zone,
                })),
            });
            if let Some(host) = host.as_object_mut() {
                if !endpoint.hostname.is_empty() {
                    host.insert("hostname".to_owned(), json!(&*endpoint.hostname));
                }
                let rates = endpoint.outlier.success_rates();
                for (name, rate) in
                    [("success_rate", rates.external), ("local_origin_success_rate", rates.local)]
                {
                    host.extend(rate.map(|rate| (name.to_owned(), json!({"value": rate}))));
                }
                if priority > 0 {
                    host.insert("priority".to_owned(), json!(priority));
                }
            }
            host
        })
        .collect();
    let thresholds: Vec<Json> = ["", "HIGH"]
        .iter()
        .zip(&config.circuit_breakers)
        .map(|(priority, limits)| {
            without_empty(json!({
                "priority": priority,
                "max_connections": limits.max_connections,
                "max_pending_requests": limits.max_pending_requests,
                "max_requests": limits.max_requests,
                "max_retries": limits.max_retries,
            }))
        })
        .collect();
    let mut status = json!({
        "name": &*cluster.name,
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": thresholds},
        "observability_name": config.alt_stat_name.as_deref().unwrap_or(&cluster.name),
    });
    if let Some(status) = status.as_object_mut() {
        let comparisons = cluster.comparisons();
        for (name, percent) in [
            (
                "success_rate_ejection_threshold",
                comparisons.and_then(|comparisons| comparisons.external.threshold.get()),
            ),
            (
                "local_origin_success_rate_ejection_threshold",
                comparisons.and_then(|comparisons| comparisons.local.threshold.get()),
            ),
        ] {
            let shown = percent.filter(|percent| *percent > 0.0);
            status.extend(shown.map(|percent| (name.to_owned(), json!({"value": percent}))));
        }
        if *added_via_api {
            status.insert("added_via_api".to_owned(), json!(true));
        }
        if let crate::config::cluster::Discovery::Eds { service_name, .. } = &config.discovery {
            status.insert("eds_service_name".to_owned(), json!(&**service_name));
        }
    }
    status
}

/// Zeros are left out, and 64-bit numbers are strings: the JSON of protobuf.
fn endpoint_stats(endpoint: &Endpoint) -> Vec<Json> {
    let counters = COUNTERS.map(|(name, cell)| (None, name, counter(endpoint, cell)));
    let gauges = gauges(endpoint).map(|(name, value)| (Some("GAUGE"), name, value));
    let stat = |(kind, name, value): (Option<&str>, &str, u64)| {
        let mut stat = Map::new();
        if let Some(kind) = kind {
            stat.insert("type".to_owned(), json!(kind));
        }
        if value > 0 {
            stat.insert("value".to_owned(), json!(value.to_string()));
        }
        stat.insert("name".to_owned(), json!(name));
        Json::Object(stat)
    };
    counters.into_iter().chain(gauges).map(stat).collect()
}

fn health(endpoint: &Endpoint) -> Json {
    let discovered = match endpoint.discovered_health() {
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Timeout => "TIMEOUT",
        HealthStatus::Degraded => "DEGRADED",
    };
    let mut status = json!({"eds_health_status": discovered});
    for (flag, name) in [
        (Flag::Failed, "failed_active_health_check"),
        (Flag::Degraded, "failed_active_degraded_check"),
        (Flag::Left, "pending_dynamic_removal"),
        (Flag::Pending, "pending_active_hc"),
        (Flag::Excluded, "excluded_via_immediate_hc_fail"),
        (Flag::TimedOut, "active_hc_timeout"),
    ] {
        if endpoint.check.has(flag)
            && let Some(status) = status.as_object_mut()
        {
            status.insert(name.to_owned(), json!(true));
        }
    }
    if let (Some(status), Some(ejection)) = (status.as_object_mut(), endpoint.outlier.ejection()) {
        status.insert("failed_outlier_check".to_owned(), json!(true));
        status.insert("ejected_because".to_owned(), json!(ejection.reason.as_str()));
        status.insert("ejected_until".to_owned(), json!(rfc3339_millis(ejection.until)));
    }
    debug_assert!(endpoint.outlier.ejection().is_none() || endpoint.health() != Health::Healthy);
    status
}

/// An `envoy.config.core.v3.Address`.
pub(super) fn address(address: &Address) -> Json {
    match address {
        Address::Ip(address) => json!({"socket_address": {
            "address": address.ip().to_string(),
            "port_value": address.port(),
        }}),
        Address::Pipe(path) => json!({"pipe": {"path": &**path}}),
    }
}

fn without_empty(mut object: Json) -> Json {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| value != "");
    }
    object
}

/// `2026-11-24T05:38:00.226Z`
pub(super) fn rfc3339_millis(unix_millis: u64) -> String {
    let nanos = i128::from(unix_millis) * 1_000_000;
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_six_digits_and_no_zeros_at_their_end() {
        for (percent, expected) in [
            (None, "-1"),
            (Some(100.0), "100"),
            (Some(0.0), "0"),
            (Some(200.0 / 3.0), "66.6667"),
            (Some(19.526_214_5), "19.5262"),
            (Some(-12.345_678), "-12.3457"),
            (Some(99.95), "99.95"),
        ] {
            assert_eq!(or_minus_one(percent), expected);
        }
    }
}
