//! go-control-plane: the snapshot of its own test, by both variants.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_integration::address;
use outrigger_integration::ads::Variant;
use outrigger_integration::als::LogServer;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;
use outrigger_integration::foreign::Foreign;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::Kind;
use outrigger_integration::upstream::Upstream;

use crate::told;

#[tokio::test]
async fn what_go_control_plane_sends_is_accepted_and_traffic_flows_as_intended() -> Result<()> {
    for kind in told() {
        for variant in [Variant::Sotw, Variant::Delta] {
            tell(kind, variant).await.with_context(|| format!("{kind}, {variant:?}"))?;
        }
    }
    Ok(())
}

async fn tell(kind: Kind, variant: Variant) -> Result<()> {
    let upstream = Upstream::start("echo").await?;
    let log = LogServer::start().await?;
    let authority = Authority::new("go-control-plane")?;
    let leaf = authority.leaf(&["server.example"])?;
    let mut values = Values::new();
    values.address("UPSTREAM", upstream.address());
    values.address("ALS", log.address());
    values.text("API_TYPE", variant.api_type());
    for (name, text) in [
        ("CERT_BYTES", &leaf.certificate),
        ("KEY_BYTES", &leaf.key),
        ("CA_BYTES", &authority.pem()),
    ] {
        values.text(name, &STANDARD.encode(text));
    }
    let mut places = Vec::new();
    for name in ["HTTP", "VHDS", "TCP"] {
        let place = address::free()?;
        values.address(name, place);
        places.push(place);
    }
    // Virtual hosts are discovered by the incremental variant only.
    let files: &[&str] = match variant {
        Variant::Sotw => &["resources.yaml"],
        Variant::Delta => &["resources.yaml", "virtual_hosts.yaml"],
    };
    let foreign = Foreign::start(kind, "go-control-plane", files, &values).await?;
    foreign.accepted().await?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authority.roots()?)
        .with_no_client_auth();
    let config = Arc::new(config);
    for place in [places[0], places[2]] {
        for request in [Request::get("/"), Request::get("/").http2()] {
            let outcome = request.tls(&config, "server.example").send(place).await;
            ensure!(outcome.body() == "echo", "{place}: {outcome:?}");
        }
    }
    if variant == Variant::Delta {
        let request = Request::get("/").host("vhds.example");
        let outcome = request.tls(&config, "server.example").send(places[1]).await;
        ensure!(outcome.body() == "echo", "{outcome:?}");
    }
    let runtime = foreign.proxy.admin("/runtime").await?;
    ensure!(runtime.contains("foobar"), "{runtime}");
    Ok(())
}
