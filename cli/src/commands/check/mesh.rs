//! Checks of a running mesh, from what its API says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, State};
use crate::client::{Api, ApiError, Apply};

/// A sidecar that is connected says something at least so often; in seconds.
const SILENCE: f64 = 60.0;

/// What the checks look at.
#[derive(Default)]
struct Seen {
    status: Value,
    endpoints: Value,
    identities: Value,
    authority: Value,
    services: Value,
    gateways: Value,
    meshes: Value,
    metrics: String,
    /// What applying the mesh to itself would be warned of.
    warnings: Value,
}

pub(super) async fn checks(api: &Api) -> Vec<Check> {
    let status = match api.get("/v1/status").await {
        Ok(status) => status,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut checks = vec![Check::ok("api-reachable", format!("{} answers", api.url()))];
    checks.push(match api.get_text("/readyz").await {
        Ok(_) => Check::ok("api-ready", "the control plane serves"),
        Err(error) => Check::failed(
            "api-ready",
            error.to_string(),
            "outrigger control-plane --log-level debug",
        ),
    });
    let get = async |path: &str| api.get(path).await.unwrap_or_default();
    let export = api.get_text("/v1/export").await.unwrap_or_default();
    let dry_run = Apply { dry_run: true, wait: None };
    let again = match export.trim().is_empty() {
        true => Value::Null,
        false => api.apply(&export, dry_run).await.unwrap_or_default(),
    };
    let seen = Seen {
        status,
        endpoints: get("/v1/endpoints").await,
        identities: get("/v1/identities").await,
        authority: get("/v1/ca").await,
        services: get("/v1/services").await,
        gateways: get("/v1/gateways").await,
        meshes: get("/v1/meshes").await,
        metrics: api.get_text("/metrics").await.unwrap_or_default(),
        warnings: again["warnings"].clone(),
    };
    checks.extend(seen.control_plane());
    checks.extend(seen.sidecars());
    checks.extend(seen.certificates());
    checks.extend(seen.objects());
    checks.extend(seen.instances());
    checks
}

fn unreachable(error: &ApiError) -> Check {
    Check::failed("api-reachable", error.to_string(), "outrigger control-plane")
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

const TYPES: [&str; 5] = ["listeners", "routes", "clusters", "endpoints", "secrets"];

impl Seen {
    fn control_plane(&self) -> Vec<Check> {
        let ours = env!("CARGO_PKG_VERSION");
        let line = self.metrics.lines().find(|line| line.starts_with("outrigger_build_info"));
        let theirs = line.and_then(|line| line.split('"').nth(1)).unwrap_or("unknown");
        let mesh = items(&self.meshes, "items").next().unwrap_or(&Value::Null);
        vec![
            match theirs == ours {
                true => Check::ok("version", format!("both are {ours}")),
                false => Check::warning(
                    "version",
                    format!("this is {ours}, the control plane is {theirs}"),
                    "install the same version of outrigger on both sides",
                ),
            },
            match text(&mesh["spec"], "mtls") {
                "permissive" => Check::warning(
                    "mtls",
                    "plaintext callers are served too (`mtls: permissive`)",
                    "outrigger apply -f -  <<< '{kind: Mesh, name: default, spec: {mtls: strict}}'",
                ),
                _ => Check::ok("mtls", "only members of the mesh are served"),
            },
        ]
    }

    fn sidecars(&self) -> Vec<Check> {
        let all = || items(&self.status, "sidecars");
        let connected = || all().filter(|it| it["connected"] == true);
        let revision = self.status["revision"].as_u64();
        let in_state = |state: &str| {
            let mut found = Vec::new();
            for sidecar in connected() {
                for name in TYPES.into_iter().filter(|name| sidecar[*name]["state"] == state) {
                    let reason = text(&sidecar[name], "reason");
                    let reason =
                        if reason.is_empty() { String::new() } else { format!(": {reason}") };
                    found.push(format!("{} {name}{reason}", text(sidecar, "node")));
                }
            }
            found
        };
        let gone = all().filter(|it| it["connected"] != true).map(|it| text(it, "node").to_owned());
        let behind = connected().filter(|it| it["revision"].as_u64() != revision);
        let behind = behind.map(|it| format!("{} serves r{}", text(it, "node"), it["revision"]));
        let silent = connected().filter(|it| {
            crate::output::seconds_since(text(it, "lastContact")).is_some_and(|age| age > SILENCE)
        });
        let silent = silent.map(|it| text(it, "node").to_owned());
        let watch = "outrigger status --watch";
        vec![
            Check::none_of(
                "sidecars-connected",
                gone.collect(),
                "every sidecar that was seen lately is connected",
                State::Warning,
                "outrigger status; start the sidecar again, or forget it",
            ),
            Check::none_of(
                "sidecars-accepting",
                in_state("REJECTED"),
                "no sidecar rejects anything",
                State::Failed,
                "outrigger rollback REV (outrigger history shows which)",
            ),
            Check::none_of(
                "sidecars-answering",
                in_state("pending"),
                "nothing is pending",
                State::Warning,
                watch,
            ),
            Check::none_of(
                "sidecars-current",
                behind.collect(),
                "every sidecar serves the revision in force",
                State::Warning,
                watch,
            ),
            Check::none_of(
                "sidecars-heard",
                silent.collect(),
                "every sidecar was heard of lately",
                State::Warning,
                watch,
            ),
        ]
    }

    fn certificates(&self) -> Vec<Check> {
        let alarms = |codes: &[&str]| {
            let alarms = items(&self.status, "alarms");
            let alarms = alarms.filter(|it| codes.contains(&text(it, "code")));
            alarms.map(|it| text(it, "detail").to_owned()).collect::<Vec<_>>()
        };
        let identities = || items(&self.identities, "items");
        let revoked = identities().filter(|it| it["revoked"] == true && it["connected"] == true);
        let revoked = revoked.map(|it| text(it, "instance").to_owned());
        let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for it in identities() {
            services.entry(text(it, "instance")).or_default().insert(text(it, "service"));
        }
        let shared = services.iter().filter(|(_, services)| services.len() > 1);
        let shared = shared.map(|(name, _)| (*name).to_owned());
        let waiting = items(&self.authority["rotation"], "waitingFor");
        let waiting = waiting.map(|it| format!("{} {}", text(it, "node"), text(it, "reason")));
        vec![
            Check::none_of(
                "certificates-valid",
                alarms(&["certificate_expired"]),
                "no certificate has expired",
                State::Failed,
                "outrigger token create --service SERVICE, and join again",
            ),
            Check::none_of(
                "certificates-renewed",
                alarms(&["certificate_expires"]),
                "every certificate is renewed in time",
                State::Warning,
                "outrigger identity list",
            ),
            Check::none_of(
                "root-valid",
                alarms(&["root_expires"]),
                "the root lasts",
                State::Warning,
                "outrigger ca rotate --wait 1m",
            ),
            Check::none_of(
                "issuing-valid",
                alarms(&["issuing_expires"]),
                "the issuing certificate lasts",
                State::Failed,
                "outrigger control-plane --log-level debug (start it again)",
            ),
            Check::none_of(
                "rotation",
                waiting.collect(),
                "no rotation of the root waits for anybody",
                State::Warning,
                "outrigger ca status; outrigger identity revoke NAME for who is gone for good",
            ),
            Check::none_of(
                "revoked-gone",
                revoked.collect(),
                "nobody who was revoked is connected",
                State::Failed,
                "outrigger identity revoke NAME",
            ),
            Check::none_of(
                "instance-names",
                shared.collect(),
                "no two services have instances of one name",
                State::Warning,
                "outrigger sidecar --instance NAME",
            ),
        ]
    }

    fn objects(&self) -> Vec<Check> {
        let in_state = |states: &[&str]| {
            let objects = items(&self.status, "objects");
            let objects = objects.filter(|it| states.contains(&text(it, "state")));
            let named = objects.map(|it| {
                format!("{}/{} is {}", text(it, "kind"), text(it, "name"), text(it, "state"))
            });
            named.collect::<Vec<_>>()
        };
        let warnings = self.warnings.as_array().into_iter().flatten();
        let warnings = warnings.map(|it| {
            let (kind, name, field) = (text(it, "kind"), text(it, "name"), text(it, "field"));
            format!("{kind}/{name} {field}: {}", text(it, "reason"))
        });
        vec![
            Check::none_of(
                "objects-accepted",
                in_state(&["Rejected", "Partial"]),
                "no object was rejected",
                State::Failed,
                "outrigger status KIND NAME",
            ),
            Check::none_of(
                "objects-in-effect",
                in_state(&["Pending"]),
                "every object is in effect",
                State::Warning,
                "outrigger status --watch",
            ),
            Check::none_of(
                "objects-sensible",
                warnings.collect(),
                "no rule is shadowed, no policy without effect, no subset empty",
                State::Warning,
                "outrigger export > mesh.yaml; edit it; outrigger diff -f mesh.yaml",
            ),
        ]
    }

    fn instances(&self) -> Vec<Check> {
        let endpoints = || items(&self.endpoints, "items");
        let served: BTreeSet<&str> = endpoints().map(|it| text(it, "service")).collect();
        let empty = items(&self.services, "items").map(|it| text(it, "name"));
        let empty = empty.filter(|name| !served.contains(name)).map(str::to_owned);
        let sidecars: BTreeSet<&str> = items(&self.status, "sidecars")
            .filter(|it| it["connected"] == true)
            .map(|it| text(it, "service"))
            .collect();
        let closed = items(&self.gateways, "items").map(|it| text(it, "name"));
        let closed = closed.filter(|name| !sidecars.contains(name)).map(str::to_owned);
        let mut at: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for it in endpoints() {
            let address = format!("{}:{}", text(it, "address"), it["port"]);
            at.entry(address).or_default().push(text(it, "instance"));
        }
        let twice = at.iter().filter(|(_, names)| names.len() > 1);
        let twice = twice.map(|(address, names)| format!("{address} is {}", names.join(" and ")));
        let of_health = |health: &str| {
            let found = endpoints().filter(|it| text(it, "health") == health);
            let named = found.map(|it| match text(it, "ejectedBecause") {
                "" => text(it, "instance").to_owned(),
                because => format!("{}: {because}", text(it, "instance")),
            });
            named.collect::<Vec<_>>()
        };
        let dead = empty_of_health(&self.endpoints);
        vec![
            Check::none_of(
                "services-have-instances",
                empty.collect(),
                "every service has an instance",
                State::Warning,
                "outrigger token create --service SERVICE, and start a sidecar with it",
            ),
            Check::none_of(
                "services-have-healthy-instances",
                dead,
                "every service with instances has one that gets requests",
                State::Failed,
                "outrigger endpoints",
            ),
            Check::none_of(
                "gateways-open",
                closed.collect(),
                "every gateway has a sidecar",
                State::Warning,
                "outrigger token create --service GATEWAY, and start a sidecar with it",
            ),
            Check::none_of(
                "addresses-unique",
                twice.collect(),
                "no two instances have one address",
                State::Failed,
                "outrigger sidecar --inbound-port PORT",
            ),
            Check::none_of(
                "endpoints-ejected",
                of_health("ejected"),
                "nobody is ejected",
                State::Warning,
                "outrigger endpoints",
            ),
            Check::none_of(
                "endpoints-healthy",
                of_health("unhealthy"),
                "nobody is unhealthy",
                State::Warning,
                "outrigger endpoints",
            ),
            Check::none_of(
                "endpoints-draining",
                of_health("draining"),
                "nobody drains",
                State::Warning,
                "outrigger endpoints",
            ),
        ]
    }
}

/// Services of which no instance is healthy.
fn empty_of_health(endpoints: &Value) -> Vec<String> {
    let mut healthy: BTreeMap<&str, bool> = BTreeMap::new();
    for it in items(endpoints, "items") {
        *healthy.entry(text(it, "service")).or_default() |= text(it, "health") == "healthy";
    }
    healthy.into_iter().filter(|(_, any)| !any).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fine() -> Seen {
        let sidecar = json!({"node": "api-1", "service": "api", "connected": true, "revision": 3,
            "listeners": {"state": "ok"}, "lastContact": ""});
        Seen {
            status: json!({"revision": 3, "sidecars": [sidecar], "alarms": [],
                "objects": [{"kind": "Service", "name": "api", "state": "Accepted"}]}),
            endpoints: json!({"items": [{"service": "api", "instance": "api-1", "address": "127.0.0.1", "port": 1, "health": "healthy"}]}),
            identities: json!({"items": [{"service": "api", "instance": "api-1", "connected": true, "revoked": false}]}),
            authority: json!({"roots": []}),
            services: json!({"items": [{"name": "api"}]}),
            gateways: json!({"items": []}),
            meshes: json!({"items": []}),
            metrics: format!(
                "outrigger_build_info{{version=\"{}\"}} 1\n",
                env!("CARGO_PKG_VERSION")
            ),
            warnings: Value::Null,
        }
    }

    /// Codes of the checks that are not ok.
    fn found(seen: &Seen) -> Vec<&'static str> {
        let parts = [
            seen.control_plane(),
            seen.sidecars(),
            seen.certificates(),
            seen.objects(),
            seen.instances(),
        ];
        let all: Vec<Check> = parts.into_iter().flatten().collect();
        assert!(all.len() >= 20, "{}", all.len());
        let wrong = all.into_iter().filter(|check| check.state != State::Ok);
        wrong
            .inspect(|check| assert!(!check.fix.is_empty(), "{}", check.code))
            .map(|check| check.code)
            .collect()
    }

    #[test]
    fn a_mesh_that_is_fine_passes() {
        assert_eq!(found(&fine()), Vec::<&str>::new());
    }

    #[test]
    fn each_check_finds_its_own() {
        type Change = fn(&mut Seen);
        let cases: Vec<(Change, &str)> = vec![
            (|it| it.metrics = "outrigger_build_info{version=\"9.9.9\"} 1".to_owned(), "version"),
            (|it| it.meshes = json!({"items": [{"spec": {"mtls": "permissive"}}]}), "mtls"),
            (|it| it.status["sidecars"][0]["connected"] = json!(false), "sidecars-connected"),
            (
                |it| {
                    it.status["sidecars"][0]["routes"] = json!({"state": "REJECTED", "reason": "x"})
                },
                "sidecars-accepting",
            ),
            (
                |it| it.status["sidecars"][0]["routes"] = json!({"state": "pending"}),
                "sidecars-answering",
            ),
            (|it| it.status["sidecars"][0]["revision"] = json!(2), "sidecars-current"),
            (
                |it| it.status["sidecars"][0]["lastContact"] = json!("2020-01-01T00:00:00Z"),
                "sidecars-heard",
            ),
            (
                |it| it.status["alarms"] = json!([{"code": "certificate_expired", "detail": "x"}]),
                "certificates-valid",
            ),
            (
                |it| it.status["alarms"] = json!([{"code": "certificate_expires", "detail": "x"}]),
                "certificates-renewed",
            ),
            (
                |it| it.status["alarms"] = json!([{"code": "root_expires", "detail": "x"}]),
                "root-valid",
            ),
            (
                |it| it.status["alarms"] = json!([{"code": "issuing_expires", "detail": "x"}]),
                "issuing-valid",
            ),
            (
                |it| {
                    it.authority["rotation"] = json!({"waitingFor": [{"node": "a", "reason": "b"}]})
                },
                "rotation",
            ),
            (|it| it.identities["items"][0]["revoked"] = json!(true), "revoked-gone"),
            (
                |it| {
                    it.identities["items"]
                        .as_array_mut()
                        .unwrap()
                        .push(json!({"service": "web", "instance": "api-1"}))
                },
                "instance-names",
            ),
            (|it| it.status["objects"][0]["state"] = json!("Partial"), "objects-accepted"),
            (|it| it.status["objects"][0]["state"] = json!("Pending"), "objects-in-effect"),
            (
                |it| {
                    it.warnings =
                        json!([{"kind": "Route", "name": "r", "field": "f", "reason": "x"}])
                },
                "objects-sensible",
            ),
            (
                |it| it.services["items"].as_array_mut().unwrap().push(json!({"name": "web"})),
                "services-have-instances",
            ),
            (|it| it.gateways = json!({"items": [{"name": "edge"}]}), "gateways-open"),
        ];
        for (change, code) in cases {
            let mut seen = fine();
            change(&mut seen);
            assert_eq!(found(&seen), [code]);
        }
        let mut seen = fine();
        let other = json!({"service": "api", "instance": "api-2", "address": "127.0.0.1", "port": 1, "health": "ejected", "ejectedBecause": "consecutive_5xx"});
        seen.endpoints["items"].as_array_mut().unwrap().push(other);
        assert_eq!(found(&seen), ["addresses-unique", "endpoints-ejected"]);
        for (health, code) in
            [("unhealthy", "endpoints-healthy"), ("draining", "endpoints-draining")]
        {
            let mut seen = fine();
            seen.endpoints["items"][0]["health"] = json!(health);
            assert_eq!(found(&seen), ["services-have-healthy-instances", code]);
        }
    }
}
