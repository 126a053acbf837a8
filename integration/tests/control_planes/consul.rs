//! Consul Connect: public listeners with intentions, upstreams, and the listener of transparent proxies.

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;
use outrigger_integration::foreign::Foreign;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::Kind;
use outrigger_integration::tcp::TcpUpstream;
use outrigger_integration::upstream::Upstream;
use serde_json::json;

use crate::{certificate, greeting, logged, told};

const TRUST_DOMAIN: &str =
    "spiffe://2f1c6f0e-6d5a-4b8e-9a43-70c1d2e3f405.consul/ns/default/dc/dc1/svc";

#[tokio::test]
async fn what_consul_sends_is_accepted_and_traffic_flows_as_intended() -> Result<()> {
    for kind in told() {
        tell(kind).await.with_context(|| kind.to_string())?;
    }
    Ok(())
}

async fn tell(kind: Kind) -> Result<()> {
    let (app, db) = (Upstream::start("app").await?, TcpUpstream::start("db").await?);
    let authority = Authority::new("consul")?;
    let mut values = Values::new();
    values.address("APP", app.address());
    values.address("DB", db.address());
    let names =
        ["PUBLIC_DB", "PUBLIC_API", "UPSTREAM_DB", "UPSTREAM_OTHER", "UPSTREAM_API", "OUTBOUND"];
    let mut places = Vec::new();
    for name in names {
        let place = address::free()?;
        values.address(name, place);
        places.push(place);
    }
    let &[public_db, _, to_db, as_other, to_api, _] = places.as_slice() else {
        unreachable!("as many as names")
    };
    values.text("CA", &json!(authority.pem()).to_string());
    for (name, service) in [("WEB", "web"), ("DB", "db"), ("API", "api"), ("OTHER", "other")] {
        certificate(&mut values, &authority, name, &format!("{TRUST_DOMAIN}/{service}"))?;
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    values.text("LOG", &log.display().to_string());

    let foreign = Foreign::start(kind, "consul", &["resources.yaml"], &values).await?;
    foreign.accepted().await?;

    // TCP, by mTLS from sidecar to sidecar; an intention lets `web` in and nobody else.
    ensure!(greeting(to_db).await? == "db");
    ensure!(greeting(as_other).await?.is_empty(), "`other` may speak to db");
    ensure!(greeting(public_db).await?.is_empty(), "it speaks without TLS");
    let denied = foreign.proxy.stat("connect_authzrbac.denied").await?
        + foreign.proxy.stat("connect_authz.rbac.denied").await?;
    ensure!(denied == 1, "{denied} are denied");

    // HTTP: routes, and intentions by path, method and header.
    for (request, status) in [
        (Request::get("/v1/users"), 200),
        (Request::new("HEAD", "/v1/users"), 200),
        (Request::post("/v1/users", ""), 403),
        (Request::get("/other"), 403),
        (Request::get("/users").header("x-version", "2"), 200),
        (Request::get("/users/1").header("x-version", "2"), 403),
        (Request::get("/users").header("x-version", "2").header("x-deny", "1"), 403),
    ] {
        let outcome = request.send(to_api).await;
        ensure!(outcome.status() == status, "{request:?}: {outcome:?}");
    }
    let seen = app.take();
    let paths: Vec<&str> = seen.iter().map(|request| request.path.as_str()).collect();
    ensure!(paths == ["/v1/users", "/v1/users", "/v2/users"], "{paths:?}");
    let header = |name: &str| {
        let last = seen.last()?;
        last.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    ensure!(header("x-route") == Some("second"));
    let caller = header("x-forwarded-client-cert").unwrap_or_default();
    ensure!(caller.contains(&format!("URI={TRUST_DOMAIN}/web")), "{caller}");

    let line = logged(&log, "/v1/users").await?;
    let line: serde_json::Value = serde_json::from_str(&line)?;
    ensure!(line["response_code"] == 200 && line["method"] == "GET", "{line}");
    Ok(())
}
