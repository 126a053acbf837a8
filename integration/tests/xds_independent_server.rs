//! Our sidecar as a client of an xDS server that shares no code with us (`fixtures/ads_server.py`, on grpcio and
//! xds-protos), by state of the world and by delta. The same story is told to Envoy once, which checks the server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::client::{Connection, Protocol, Request, Tls};
use outrigger_integration::peers::peers;
use outrigger_integration::pki::{Authority, Leaf};
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{
    Scene, cluster, endpoints, listener, routes, socket_address, until,
};
use outrigger_integration::upstream::Upstream;
use serde_json::{Value, json};

macro_rules! with_each_variant {
    ($($name:ident)*) => {$(
        mod $name {
            use super::{Kind, Result, Variant, play};

            #[tokio::test]
            async fn by_state_of_the_world() -> Result<()> {
                play(Kind::Outrigger, super::$name(Kind::Outrigger, Variant::Sotw)).await
            }

            #[tokio::test]
            async fn by_delta() -> Result<()> {
                play(Kind::Outrigger, super::$name(Kind::Outrigger, Variant::Delta)).await
            }

            #[tokio::test]
            async fn of_envoy_too() -> Result<()> {
                play(Kind::Envoy, super::$name(Kind::Envoy, Variant::Sotw)).await?;
                play(Kind::Envoy, super::$name(Kind::Envoy, Variant::Delta)).await
            }
        }
    )*};
}

with_each_variant! {
    starts_and_follows_every_change
    a_rejection_keeps_the_last_good_configuration
    a_reconnect_keeps_the_versions
    a_server_that_is_away_does_not_disturb
    secrets_change_without_dropping_a_connection
    a_cluster_of_the_bootstrap_cannot_be_replaced
    each_type_may_have_a_stream_of_its_own
    overload_is_dropped_without_a_request_to_an_endpoint
}

async fn play(kind: Kind, story: impl Future<Output = Result<()>>) -> Result<()> {
    if peers().is_none() || !kind.is_runnable() {
        return Ok(());
    }
    story.await
}

/// Resources come, endpoints move, routes change, a listener is added and removed.
async fn starts_and_follows_every_change(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;

    let mark = scene.server.mark();
    scene.server.set("eds", "2", &[endpoints("one", &[scene.b.address()])])?;
    scene.server.acknowledged(mark, "eds").await?;
    scene.until_body("/", "b").await?;

    let mark = scene.server.mark();
    scene.server.set("rds", "2", &[routes(&json!([
        {"match": {"path": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}},
    ]))])?;
    scene.server.acknowledged(mark, "rds").await?;
    scene.until_body("/direct", "direct").await?;
    scene.until_body("/", "b").await?;

    // Make before break: the new cluster, its endpoints, then the route to it; the old cluster goes last.
    scene.server.set(
        "eds",
        "3",
        &[endpoints("one", &[scene.b.address()]), endpoints("two", &[scene.a.address()])],
    )?;
    let mark = scene.server.mark();
    scene.server.set("cds", "3", &[cluster("one"), cluster("two")])?;
    scene.server.acknowledged(mark, "cds").await?;
    scene.server.set(
        "rds",
        "3",
        &[routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "two"}}]))],
    )?;
    scene.until_body("/", "a").await?;
    let mark = scene.server.mark();
    scene.server.set("cds", "4", &[cluster("two")])?;
    scene.server.acknowledged(mark, "cds").await?;
    scene.until_body("/", "a").await?;

    let second = address::free()?;
    let mark = scene.server.mark();
    scene.server.set(
        "lds",
        "2",
        &[listener("main", scene.listener), listener("second", second)],
    )?;
    scene.server.acknowledged(mark, "lds").await?;
    until(second, "/", |outcome| outcome.body() == "a").await?;
    scene.server.set("lds", "3", &[listener("main", scene.listener)])?;
    until(second, "/", |outcome| outcome.status() == 0).await?;
    scene.until_body("/", "a").await
}

/// One bad resource is rejected by name and field; what served before serves on, and the next good one is taken.
async fn a_rejection_keeps_the_last_good_configuration(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;

    let mark = scene.server.mark();
    let bad = json!([{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "one"}}]);
    scene.server.set("rds", "bad", &[routes(&bad)])?;
    let error = scene.server.rejected(mark, "rds").await?;
    if kind == Kind::Outrigger {
        ensure!(error.contains("routes"), "the resource is not named: {error}");
        let field = "virtual_hosts[0].routes[0].match.safe_regex.regex";
        ensure!(error.contains(field), "the field is not named: {error}");
    }
    scene.stays("a").await?;

    let mark = scene.server.mark();
    let good = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "good"}}}]);
    scene.server.set("rds", "good", &[routes(&good)])?;
    let answer = scene.server.acknowledged(mark, "rds").await?;
    if variant == Variant::Sotw {
        ensure!(answer["version"] == "good", "{answer}");
    }
    scene.until_body("/", "good").await?;

    // Of two clusters in one response the good one is applied.
    let mut bad = cluster("bad");
    bad["connect_timeout"] = json!("0s");
    let mark = scene.server.mark();
    scene.server.set(
        "eds",
        "2",
        &[endpoints("one", &[scene.a.address()]), endpoints("new", &[scene.b.address()])],
    )?;
    scene.server.set("cds", "bad", &[cluster("one"), bad, cluster("new")])?;
    let error = scene.server.rejected(mark, "cds").await?;
    if kind == Kind::Outrigger {
        ensure!(error.contains("bad") && error.contains("connect_timeout"), "{error}");
        scene.server.set(
            "rds",
            "3",
            &[routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "new"}}]))],
        )?;
        scene.until_body("/", "b").await?;
    }
    let rejections = scene.proxy.stat("cluster_manager.cds.update_rejected").await?;
    ensure!(rejections >= 1, "update_rejected is {rejections}");

    let mark = scene.server.mark();
    scene.server.set("cds", "good", &[cluster("one"), cluster("new")])?;
    scene.server.acknowledged(mark, "cds").await?;
    scene.server.set(
        "rds",
        "4",
        &[routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]))],
    )?;
    scene.until_body("/", "a").await
}

/// A server may send the cluster by which it is reached to everyone: it is ignored, neither applied nor rejected.
async fn a_cluster_of_the_bootstrap_cannot_be_replaced(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    let mark = scene.server.mark();
    scene.server.set("cds", "2", &[cluster("one"), cluster("xds")])?;
    scene.server.acknowledged(mark, "cds").await?;
    let mark = scene.server.mark();
    scene.server.set("cds", "3", &[cluster("one")])?;
    scene.server.acknowledged(mark, "cds").await?;
    let rejections = scene.proxy.stat("cluster_manager.cds.update_rejected").await?;
    ensure!(rejections == 0, "update_rejected is {rejections}");
    scene.server.disconnect()?;
    let mark = scene.server.mark();
    scene.server.wait_since(mark, "new stream", |event| event["event"] == "stream").await?;
    scene.stays("a").await
}

/// No ADS: each type comes from a service of its own, the certificate over a Unix socket.
async fn each_type_may_have_a_stream_of_its_own(kind: Kind, variant: Variant) -> Result<()> {
    let mut server = AdsServer::start(peers().context("peers")?)?;
    let (a, b) = (Upstream::start("a").await?, Upstream::start("b").await?);
    let source = |cluster: &str| {
        json!({"resource_api_version": "V3", "initial_fetch_timeout": "0s", "api_config_source": {
            "api_type": variant.api_type(),
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}],
        }})
    };
    let address = address::free()?;
    let mut one = cluster("one");
    one["eds_cluster_config"]["eds_config"] = source("xds");
    let mut main = listener("main", address);
    let chain = &mut main["filter_chains"][0];
    chain["filters"][0]["typed_config"]["rds"]["config_source"] = source("xds");
    chain["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{
            "name": "server", "sds_config": source("sds-grpc"),
        }]},
    }});
    let authority = Authority::new("test")?;
    let leaf = authority.leaf(&["server.example"])?;
    let secret = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "server",
        "tls_certificate": {
            "certificate_chain": {"inline_string": leaf.certificate},
            "private_key": {"inline_string": leaf.key},
        },
    });
    server.set("cds", "1", &[one])?;
    server.set("eds", "1", &[endpoints("one", &[a.address()])])?;
    server.set("lds", "1", &[main])?;
    server.set(
        "rds",
        "1",
        &[routes(&json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]))],
    )?;
    server.set("sds", "1", &[secret])?;
    let grpc_cluster = |name: &str, address: Value| {
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address}},
            ]}]},
        })
    };
    let clusters = json!([
        grpc_cluster("xds", socket_address(server.address())),
        grpc_cluster("sds-grpc", json!({"pipe": {"path": server.socket()}})),
    ]);
    let (cds, lds) = (source("xds"), source("xds"));
    let bootstrap = format!(
        "
node: {{id: node-1, cluster: test}}
dynamic_resources: {{cds_config: {cds}, lds_config: {lds}}}
static_resources: {{clusters: {clusters}}}
"
    );
    let _proxy = Proxy::start(kind, &bootstrap).await?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authority.roots()?)
        .with_no_client_auth();
    let tls = Tls { config: config.into(), server_name: "server.example".to_owned() };
    let mut connection = connected(address, &tls).await?;
    ensure!(connection.send(&Request::get("/")).await?.body == "a");

    let mark = server.mark();
    server.set("eds", "2", &[endpoints("one", &[b.address()])])?;
    server.acknowledged(mark, "eds").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while connected(address, &tls).await?.send(&Request::get("/")).await?.body != "b" {
        ensure!(Instant::now() < deadline, "the new endpoints are not used");
    }
    for service in ["cds", "eds", "lds", "rds", "sds"] {
        let is_stream = |event: &Value| event["event"] == "stream" && event["service"] == service;
        server.wait_since(0, &format!("stream of {service}"), is_stream).await?;
    }
    Ok(())
}

/// `drop_overloads` of a load assignment. Envoy takes a change of it only together with one of the endpoints.
async fn overload_is_dropped_without_a_request_to_an_endpoint(
    kind: Kind,
    variant: Variant,
) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    let dropping = |address: SocketAddr, percent: u32| {
        let mut endpoints = endpoints("one", &[address]);
        endpoints["policy"] = json!({"drop_overloads": [
            {"category": "load", "drop_percentage": {"numerator": percent, "denominator": "HUNDRED"}},
        ]});
        endpoints
    };
    let other = if kind == Kind::Outrigger { scene.a.address() } else { scene.b.address() };
    scene.server.set("eds", "2", &[dropping(other, 100)])?;
    until(scene.listener, "/", |outcome| outcome.status() == 503).await?;
    let outcome = Request::get("/").send(scene.listener).await;
    ensure!(outcome.body() == "unconditional drop overload", "{outcome:?}");
    let header = outcome.header("x-envoy-unconditional-drop-overload").unwrap_or_default();
    ensure!(header == "true", "{outcome:?}");
    scene.server.set("eds", "3", &[dropping(scene.a.address(), 0)])?;
    scene.until_body("/", "a").await?;
    scene.stays("a").await
}

/// Everything comes from files. One is replaced by a rename; a bad one changes nothing, and the log says where it is bad.
#[tokio::test]
async fn files_are_followed_and_a_bad_one_changes_nothing() -> Result<()> {
    for kind in [Kind::Outrigger, Kind::Envoy] {
        if kind.is_runnable() {
            follow_files(kind).await.with_context(|| kind.to_string())?;
        }
    }
    Ok(())
}

async fn follow_files(kind: Kind) -> Result<()> {
    let (a, b) = (Upstream::start("a").await?, Upstream::start("b").await?);
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(format!("{name}.yaml"));
    let source = |name: &str| json!({"resource_api_version": "V3", "path_config_source": {"path": path(name)}});
    let write = |name: &str, version: &str, resource: &Value| -> Result<()> {
        let beside = folder.path().join("beside");
        let response = json!({"version_info": version, "resources": [resource]});
        std::fs::write(&beside, serde_json::to_string_pretty(&response)?)?;
        std::fs::rename(&beside, path(name))?;
        Ok(())
    };
    let address = address::free()?;
    let mut one = cluster("one");
    one["eds_cluster_config"]["eds_config"] = source("eds");
    let mut main = listener("main", address);
    let manager = &mut main["filter_chains"][0]["filters"][0]["typed_config"];
    manager["rds"]["config_source"] = source("rds");
    let to_one = json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]);
    write("cds", "1", &one)?;
    write("eds", "1", &endpoints("one", &[a.address()]))?;
    write("lds", "1", &main)?;
    write("rds", "1", &routes(&to_one))?;
    let (cds, lds) = (source("cds"), source("lds"));
    let bootstrap = format!(
        "
node: {{id: node-1, cluster: test}}
dynamic_resources: {{cds_config: {cds}, lds_config: {lds}}}
"
    );
    let mut proxy = Proxy::start(kind, &bootstrap).await?;
    until(address, "/", |outcome| outcome.body() == "a").await?;
    write("eds", "2", &endpoints("one", &[b.address()]))?;
    until(address, "/", |outcome| outcome.body() == "b").await?;
    let bad = json!([{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "one"}}]);
    write("rds", "2", &routes(&bad))?;
    if kind == Kind::Outrigger {
        let deadline = Instant::now() + Duration::from_secs(20);
        let field = "resources[0].virtual_hosts[0].routes[0].match.safe_regex.regex";
        let is_named = |line: &String| line.contains("rds.yaml:") && line.contains(field);
        while !proxy.process().log().iter().any(is_named) {
            ensure!(Instant::now() < deadline, "not named: {:?}", proxy.process().log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    until(address, "/", |outcome| outcome.body() == "b").await?;
    let direct = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "direct"}}}]);
    write("rds", "3", &routes(&direct))?;
    until(address, "/", |outcome| outcome.body() == "direct").await
}

/// The stream breaks; the next one says what is there already, and traffic does not notice.
async fn a_reconnect_keeps_the_versions(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    // Its last request of the start has been reported, so every stream before it has been too.
    let answered = |event: &Value| event["type"] == "rds" && event["nonce"] != "";
    scene.server.wait_since(0, "answer to rds", answered).await?;
    let streams = scene.server.events().iter().filter(|event| event["event"] == "stream").count();
    ensure!(streams == 1, "{streams} streams for one client");

    let mark = scene.server.mark();
    scene.server.disconnect()?;
    for kind in ["cds", "eds", "lds", "rds"] {
        let first = |event: &Value| event["event"] == "request" && event["type"] == kind;
        let request = scene.server.wait_since(mark, &format!("first {kind}"), first).await?;
        ensure!(request["nonce"] == "", "nonces end with their stream: {request}");
        match variant {
            Variant::Sotw => ensure!(request["version"] == "1", "{request}"),
            Variant::Delta => {
                let known = request["initial"].as_object().context("initial versions")?;
                ensure!(known.len() == 1, "{request}");
            }
        }
    }
    scene.stays("a").await?;
    let mark = scene.server.mark();
    scene.server.set("eds", "2", &[endpoints("one", &[scene.b.address()])])?;
    scene.server.acknowledged(mark, "eds").await?;
    scene.until_body("/", "b").await
}

/// Nobody listens for a while: the sidecar serves on, comes back by itself, and takes what changed meanwhile.
async fn a_server_that_is_away_does_not_disturb(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    scene.server.stop()?;
    scene.server.wait_since(0, "stop", |event| event["event"] == "stopped").await?;
    scene.server.set("eds", "2", &[endpoints("one", &[scene.b.address()])])?;
    scene.stays("a").await?;
    let mark = scene.server.mark();
    scene.server.restart()?;
    scene.server.wait_since(mark, "new stream", |event| event["event"] == "stream").await?;
    scene.until_body("/", "b").await
}

/// A listener's certificate comes by SDS; a new one is shown to new connections, old connections stay.
async fn secrets_change_without_dropping_a_connection(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let authority = Authority::new("test")?;
    let secured = address::free()?;
    let tls_listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "secured",
        "address": socket_address(secured),
        "filter_chains": [{
            "filters": listener("", secured)["filter_chains"][0]["filters"],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificate_sds_secret_configs": [{
                    "name": "server", "sds_config": {"ads": {}, "resource_api_version": "V3"},
                }]},
            }},
        }],
    });
    let secret = |leaf: &Leaf| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "server",
            "tls_certificate": {
                "certificate_chain": {"inline_string": leaf.certificate},
                "private_key": {"inline_string": leaf.key},
            },
        })
    };
    let first = authority.leaf(&["first.example"])?;
    let second = authority.leaf(&["second.example"])?;
    scene.server.set("sds", "1", &[secret(&first)])?;
    scene.server.set("lds", "2", &[listener("main", scene.listener), tls_listener])?;
    let tls = |name: &str| -> Result<Tls> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authority.roots()?)
            .with_no_client_auth();
        // A resumed session would not look at the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Tls { config: config.into(), server_name: name.to_owned() })
    };
    // The name in the certificate tells which one is shown.
    let (one, two) = (tls("first.example")?, tls("second.example")?);
    let mut old = connected(secured, &one).await?;
    ensure!(old.send(&Request::get("/")).await?.status == 200);

    let mark = scene.server.mark();
    scene.server.set("sds", "2", &[secret(&second)])?;
    scene.server.acknowledged(mark, "sds").await?;
    let mut new = connected(secured, &two).await?;
    ensure!(new.send(&Request::get("/")).await?.status == 200);
    ensure!(old.send(&Request::get("/")).await?.status == 200, "the old connection was dropped");
    ensure!(Connection::open(secured, Protocol::Http1, Some(&one)).await.is_err());

    let mark = scene.server.mark();
    let mut bad = secret(&first);
    bad["tls_certificate"]["private_key"] = json!({"inline_string": second.key});
    scene.server.set("sds", "3", &[bad])?;
    let error = scene.server.rejected(mark, "sds").await?;
    if kind == Kind::Outrigger {
        ensure!(error.contains("server") && error.contains("private_key"), "{error}");
    }
    let mut still = connected(secured, &two).await?;
    ensure!(still.send(&Request::get("/")).await?.status == 200);
    Ok(())
}

/// Opens a TLS connection as soon as the server shows the right certificate.
async fn connected(address: SocketAddr, tls: &Tls) -> Result<Connection> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Connection::open(address, Protocol::Http1, Some(tls)).await {
            Ok(connection) => return Ok(connection),
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
