//! Kuma: inbounds in permissive mode, outbounds with routes over tagged subsets and over a MeshService, permissions.

use std::sync::Arc;

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

#[tokio::test]
async fn what_kuma_sends_is_accepted_and_traffic_flows_as_intended() -> Result<()> {
    for kind in told() {
        tell(kind).await.with_context(|| kind.to_string())?;
    }
    Ok(())
}

async fn tell(kind: Kind) -> Result<()> {
    let (app, redis) = (Upstream::start("app").await?, TcpUpstream::start("redis").await?);
    let authority = Authority::new("kuma")?;
    let mut values = Values::new();
    values.address("APP", app.address());
    values.address("REDIS", redis.address());
    let names = ["IN_HTTP", "IN_HTTP_NEW", "IN_TCP", "OUT_HTTP", "OUT_TCP", "PASSTHROUGH"];
    let mut places = Vec::new();
    for name in names {
        let place = address::free()?;
        values.address(name, place);
        places.push(place);
    }
    let &[in_http, in_new, in_tcp, out_http, out_tcp, _] = places.as_slice() else {
        unreachable!("as many as names")
    };
    values.text("CA", &json!(authority.pem()).to_string());
    certificate(&mut values, &authority, "WEB", "spiffe://default/web")?;
    certificate(&mut values, &authority, "BACKEND", "spiffe://default/backend")?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    values.text("LOG", &log.display().to_string());

    let foreign = Foreign::start(kind, "kuma", &["resources.yaml"], &values).await?;
    foreign.accepted().await?;

    for (request, path) in [
        (Request::get("/v1"), "/v1"),
        (Request::get("/v2"), "/v2"),
        (Request::get("/v2/users"), "/v2/users"),
        (Request::get("/service/a?q=1").header("x-via", "msvc"), "/renamed/a?q=1"),
    ] {
        let outcome = request.send(out_http).await;
        ensure!(outcome.status() == 200, "{request:?}: {outcome:?}");
        let seen = app.take();
        let [seen] = seen.as_slice() else { anyhow::bail!("{} requests came", seen.len()) };
        ensure!(seen.path == path, "{} is not {path}", seen.path);
        let tags = seen.headers.iter().any(|(name, _)| name == "x-kuma-tags");
        ensure!(!tags, "the tags of the caller reach the application");
        let caller = seen.headers.iter().find(|(name, _)| name == "x-forwarded-client-cert");
        if path == "/v1" {
            let caller = caller.map(|(_, value)| value.as_str()).unwrap_or_default();
            ensure!(caller.contains("URI=spiffe://default/web"), "{caller}");
        }
    }
    ensure!(greeting(out_tcp).await? == "redis");
    ensure!(logged(&log, "\"GET /v1 HTTP/1.1\" 200").await?.contains("\"web\" \"backend\""));

    // Permissive: who is not in the mesh may speak plaintext where there is a chain for it, and nowhere else.
    let outcome = Request::get("/plain").send(in_http).await;
    ensure!(outcome.status() == 200, "{outcome:?}");
    let outcome = Request::get("/plain").send(in_new).await;
    ensure!(outcome.status() == 0, "{outcome:?}");

    // In the mesh, but not permitted.
    let leaf = authority.leaf(&["spiffe://default/other"])?;
    let (chain, key) = leaf.to_rustls()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(outrigger_integration::pki::any_server())
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"kuma".to_vec()];
    let config = Arc::new(config);
    for place in [in_http, in_new] {
        let outcome = Request::get("/").tls(&config, "backend").send(place).await;
        ensure!(outcome.status() == 403, "{place}: {outcome:?}");
    }
    let outcome = Request::get("/").tls(&config, "backend").send(in_tcp).await;
    ensure!(outcome.status() == 0, "{outcome:?}");
    // Envoy connects before it asks.
    let expected = if kind == Kind::Envoy { 2 } else { 1 };
    ensure!(redis.connections() == expected, "the application got a connection that was denied");
    Ok(())
}
