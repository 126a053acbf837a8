//! Where Envoy 1.40 falls short as a client of xDS, and we do not: one test a point. The server shares no code with us.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::peers::peers;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{
    Scene, bootstrap, cluster, endpoints, listener, routes, socket_address, until,
};
use outrigger_integration::upstream::{Reply, Upstream};
use serde_json::{Value, json};

const VARIANTS: [Variant; 2] = [Variant::Sotw, Variant::Delta];

/// Runs a story by each variant.
macro_rules! by_each_variant {
    ($variant:ident, $story:block) => {{
        if peers().is_none() || !Kind::Outrigger.is_runnable() {
            return Ok(());
        }
        for $variant in VARIANTS {
            let story = async { $story };
            story.await.with_context(|| format!("{:?}", $variant))?;
        }
        Ok(())
    }};
}

async fn scene(variant: Variant) -> Result<Scene> {
    let scene = Scene::start(Kind::Outrigger, variant).await?;
    scene.until_body("/", "a").await?;
    Ok(scene)
}

async fn dump(proxy: &Proxy, kind: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&proxy.admin("/config_dump").await?)?;
    let url = format!("type.googleapis.com/envoy.admin.v3.{kind}");
    let configs = all["configs"].as_array().into_iter().flatten();
    configs.into_iter().find(|config| config["@type"] == url.as_str()).cloned().context("no dump")
}

/// 1: a change that concerns no connection keeps connections, ejections and the counts of health.
#[tokio::test]
async fn a_harmless_change_of_a_cluster_keeps_its_connections_and_ejections() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let ejecting = |connections: u32| {
            let mut one = cluster("one");
            one["outlier_detection"] = json!({
                "consecutive_5xx": 1, "interval": "0.1s", "base_ejection_time": "60s",
                "max_ejection_percent": 50, "enforcing_success_rate": 0,
            });
            one["circuit_breakers"] = json!({"thresholds": [{"max_connections": connections}]});
            one
        };
        let both = endpoints("one", &[scene.a.address(), scene.b.address()]);
        scene.server.set("eds", "2", &[both])?;
        let mark = scene.server.mark();
        scene.server.set("cds", "2", &[ejecting(100)])?;
        scene.server.acknowledged(mark, "cds").await?;
        scene.b.default_reply(Some(Reply::status(500)));
        let ejected = "cluster.one.outlier_detection.ejections_active";
        let deadline = Instant::now() + Duration::from_secs(20);
        while scene.proxy.stat(ejected).await? == 0 {
            Request::get("/").send(scene.listener).await;
            ensure!(Instant::now() < deadline, "nothing is ejected");
        }
        scene.stays("a").await?;
        let connections = scene.proxy.stat("cluster.one.upstream_cx_total").await?;

        let mark = scene.server.mark();
        scene.server.set("cds", "3", &[ejecting(50)])?;
        scene.server.acknowledged(mark, "cds").await?;
        let limit = "cluster.one.circuit_breakers.default.remaining_cx";
        scene.proxy.stat(limit).await?;
        scene.stays("a").await?;
        let active = scene.proxy.stat(ejected).await?;
        ensure!(active == 1, "the ejection is forgotten: {active}");
        let after = scene.proxy.stat("cluster.one.upstream_cx_total").await?;
        ensure!(after == connections, "{connections} connections have become {after}");
        Ok(())
    })
}

/// 1, second half: a change of how health is checked waits for no new round of it, and forgets nothing.
#[tokio::test]
async fn a_change_of_a_health_check_keeps_what_is_known_of_endpoints() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let checking = |timeout: &str| {
            let mut one = cluster("one");
            one["health_checks"] = json!([{
                "timeout": timeout, "interval": "60s", "no_traffic_interval": "60s",
                "unhealthy_threshold": 1, "healthy_threshold": 1,
                "http_health_check": {"path": "/health"},
            }]);
            one
        };
        let mark = scene.server.mark();
        scene.server.set("cds", "2", &[checking("1s")])?;
        scene.server.acknowledged(mark, "cds").await?;
        scene
            .proxy
            .wait_for_stat("cluster.one.health_check.success", Duration::from_secs(20), |count| {
                count > 0
            })
            .await?;
        scene.stays("a").await?;
        let connections = scene.proxy.stat("cluster.one.upstream_cx_total").await?;
        let mark = scene.server.mark();
        scene.server.set("cds", "3", &[checking("2s")])?;
        scene.server.acknowledged(mark, "cds").await?;
        scene.stays("a").await?;
        let healthy = scene.proxy.stat("cluster.one.membership_healthy").await?;
        ensure!(healthy == 1, "{healthy} endpoints are healthy");
        let after = scene.proxy.stat("cluster.one.upstream_cx_total").await?;
        ensure!(after == connections, "{connections} connections have become {after}");
        Ok(())
    })
}

/// 2: a changed cluster takes effect with the endpoints that are known, whether the server repeats them or not.
#[tokio::test]
async fn a_changed_cluster_uses_the_endpoints_that_are_known() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let eds = scene.server.mark();
        let mut one = cluster("one");
        one["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
        one["circuit_breakers"] = json!({"thresholds": [{"max_requests": 0}]});
        scene.server.set("cds", "2", &[one])?;
        // The new limit shows that the change is in force; the endpoints were not sent again.
        until(scene.listener, "/", |outcome| {
            outcome.status() == 503 && outcome.body().contains("overflow")
        })
        .await?;
        let events = scene.server.events();
        let since = events.get(eds..).unwrap_or_default();
        let asked = since.iter().any(|event| {
            event["type"] == "eds" && event["event"] == "request" && event["nonce"] == ""
        });
        ensure!(!asked, "the endpoints were asked for again");
        Ok(())
    })
}

/// 2, second half: with EDS on a stream of its own no empty cluster is swapped in.
#[tokio::test]
async fn a_changed_cluster_with_a_stream_of_its_own_never_is_empty() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let of_its_own = |timeout: &str| {
            let mut one = cluster("one");
            one["connect_timeout"] = json!(timeout);
            one["eds_cluster_config"]["eds_config"] = json!({
                "resource_api_version": "V3", "initial_fetch_timeout": "0.2s",
                "api_config_source": {"api_type": variant.api_type(), "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            });
            one
        };
        let mark = scene.server.mark();
        scene.server.set("cds", "2", &[of_its_own("1s")])?;
        let is_stream = |event: &Value| event["event"] == "stream" && event["service"] == "eds";
        scene.server.wait_since(mark, "stream of EDS", is_stream).await?;
        scene.until_body("/", "a").await?;
        let mark = scene.server.mark();
        scene.server.set("cds", "3", &[of_its_own("2s")])?;
        scene.server.acknowledged(mark, "cds").await?;
        // Longer than the initial fetch timeout, after which Envoy has an empty cluster.
        scene.stays("a").await
    })
}

/// 3: a change of `drop_overloads` alone counts, and there may be several categories.
#[tokio::test]
async fn overload_is_dropped_by_several_categories_and_without_a_change_of_endpoints() -> Result<()>
{
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let mut dropping = endpoints("one", &[scene.a.address()]);
        let category = |name: &str, percent: u32| json!({"category": name, "drop_percentage": {"numerator": percent, "denominator": "HUNDRED"}});
        dropping["policy"] = json!({"drop_overloads": [category("a", 0), category("b", 100)]});
        let mark = scene.server.mark();
        scene.server.set("eds", "2", &[dropping])?;
        scene.server.acknowledged(mark, "eds").await?;
        until(scene.listener, "/", |outcome| outcome.status() == 503).await?;
        scene.server.set("eds", "3", &[endpoints("one", &[scene.a.address()])])?;
        scene.until_body("/", "a").await
    })
}

/// 4: heartbeats keep a listener alive that has a time to live, and without them it goes.
#[tokio::test]
async fn heartbeats_keep_a_listener_alive() -> Result<()> {
    if peers().is_none() || !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    let mut scene = scene(Variant::Sotw).await?;
    let wrapped = |body: Option<Value>| {
        let mut resource = json!({
            "@type": "type.googleapis.com/envoy.service.discovery.v3.Resource",
            "name": "main", "version": "2", "ttl": "1.5s",
        });
        if let Some(body) = body {
            resource["resource"] = body;
        }
        resource
    };
    scene.server.set("lds", "2", &[wrapped(Some(listener("main", scene.listener)))])?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let mark = scene.server.mark();
        scene.server.set("lds", "2", &[wrapped(None)])?;
        scene.server.acknowledged(mark, "lds").await?;
        scene.stays("a").await?;
    }
    until(scene.listener, "/", |outcome| outcome.status() == 0).await
}

/// 5: the dump says what was rejected, with its version, and what is in force under the version that it came with.
#[tokio::test]
async fn the_dump_has_the_error_of_each_rejected_resource_and_the_version_of_each_accepted_one()
-> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let mut bad_cluster = cluster("one");
        bad_cluster["connect_timeout"] = json!("-1s");
        let mut bad_listener = listener("main", scene.listener);
        bad_listener["filter_chains"][0]["filters"][0]["typed_config"]["stat_prefix"] = json!("");
        let bad_routes = routes(
            &json!([{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "one"}}]),
        );
        for (kind, bad, section, list, field) in [
            (
                "cds",
                &bad_cluster,
                "ClustersConfigDump",
                "dynamic_active_clusters",
                "connect_timeout",
            ),
            ("rds", &bad_routes, "RoutesConfigDump", "dynamic_route_configs", "safe_regex"),
            ("lds", &bad_listener, "ListenersConfigDump", "dynamic_listeners", "stat_prefix"),
        ] {
            let mark = scene.server.mark();
            scene.server.set(kind, "bad", std::slice::from_ref(bad))?;
            scene.server.rejected(mark, kind).await?;
            let dump = dump(&scene.proxy, section).await?;
            let error = &dump[list][0]["error_state"];
            let details = error["details"].as_str().unwrap_or_default();
            ensure!(details.contains(field), "{kind}: {dump}");
            if variant == Variant::Sotw {
                ensure!(error["version_info"] == "bad", "{kind}: {dump}");
            }
        }
        scene.stays("a").await?;
        // A listener that is updated in place has its new version.
        let mut renamed = listener("main", scene.listener);
        renamed["filter_chains"][0]["name"] = json!("other");
        let mark = scene.server.mark();
        scene.server.set("lds", "9", &[renamed])?;
        scene.server.acknowledged(mark, "lds").await?;
        let dump = dump(&scene.proxy, "ListenersConfigDump").await?;
        let state = &dump["dynamic_listeners"][0];
        ensure!(state["error_state"].is_null(), "{dump}");
        if variant == Variant::Sotw {
            ensure!(state["active_state"]["version_info"] == "9", "{dump}");
        }
        Ok(())
    })
}

/// 6: a rejection names the resource and the field, whatever is wrong.
#[tokio::test]
async fn every_rejection_names_type_resource_and_field() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let mut named_host = endpoints("one", &[]);
        named_host["endpoints"][0]["lb_endpoints"] = json!([{"endpoint": {"address": {"socket_address": {
            "address": "host.example", "port_value": 1}}}}]);
        let duplicate = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "routes",
            "virtual_hosts": [{"name": "a", "domains": ["x"]}, {"name": "b", "domains": ["x"]}],
        });
        let unknown_cluster = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "routes", "validate_clusters": true,
            "virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "nowhere"}}]}],
        });
        for (kind, bad, parts) in [
            (
                "eds",
                named_host,
                ["load assignment \"one\"", "endpoints[0].lb_endpoints[0].endpoint.address"],
            ),
            ("rds", duplicate, ["route configuration \"routes\"", "virtual_hosts[1].domains[0]"]),
            (
                "rds",
                unknown_cluster,
                ["route configuration \"routes\"", "virtual_hosts[0].routes[0].route.cluster"],
            ),
        ] {
            let mark = scene.server.mark();
            scene.server.set(kind, "bad", &[bad])?;
            let error = scene.server.rejected(mark, kind).await?;
            for part in parts {
                ensure!(error.contains(part), "{part:?} is not in {error}");
            }
        }
        Ok(())
    })
}

/// 6, of secrets: the one that is bad is named, with its field, and the one before it stays.
#[tokio::test]
async fn a_rejected_secret_is_named() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let authority = Authority::new("test")?;
        let (first, second) =
            (authority.leaf(&["server.example"])?, authority.leaf(&["server.example"])?);
        let secret = |certificate: &str, key: &str| {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": "identity",
                "tls_certificate": {
                    "certificate_chain": {"inline_string": certificate},
                    "private_key": {"inline_string": key},
                },
            })
        };
        let mut main = listener("main", scene.listener);
        main["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": [{
                "name": "identity", "sds_config": {"ads": {}, "resource_api_version": "V3"},
            }]},
        }});
        scene.server.set("sds", "1", &[secret(&first.certificate, &first.key)])?;
        let mark = scene.server.mark();
        scene.server.set("lds", "2", &[main])?;
        scene.server.acknowledged(mark, "sds").await?;
        let mark = scene.server.mark();
        scene.server.set("sds", "2", &[secret(&first.certificate, &second.key)])?;
        let error = scene.server.rejected(mark, "sds").await?;
        for part in ["secret \"identity\"", "tls_certificate"] {
            ensure!(error.contains(part), "{part:?} is not in {error}");
        }
        Ok(())
    })
}

/// 7: a bad resource stops no good one behind it.
#[tokio::test]
async fn a_bad_resource_stops_no_good_one_behind_it() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let mark = scene.server.mark();
        scene.server.set("cds", "2", &[cluster("bad"), cluster("one")])?;
        scene.server.acknowledged(mark, "cds").await?;
        let mut bad = endpoints("bad", &[scene.a.address()]);
        bad["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = json!({});
        let mark = scene.server.mark();
        scene.server.set("eds", "2", &[bad, endpoints("one", &[scene.b.address()])])?;
        let error = scene.server.rejected(mark, "eds").await?;
        ensure!(error.contains("\"bad\"") && !error.contains("\"one\""), "{error}");
        scene.until_body("/", "b").await
    })
}

/// 7, second half: two listeners may swap their ports in one update.
#[tokio::test]
async fn two_listeners_swap_their_ports_in_one_update() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let (first, second) = (address::free()?, address::free()?);
        let with = |name: &str, address| {
            let mut listener = listener(name, address);
            let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
            manager["server_name"] = json!(name);
            listener
        };
        scene.server.set("lds", "2", &[with("x", first), with("y", second)])?;
        until(first, "/", |outcome| outcome.header("server") == Some("x")).await?;
        until(second, "/", |outcome| outcome.header("server") == Some("y")).await?;
        let mark = scene.server.mark();
        scene.server.set("lds", "3", &[with("x", second), with("y", first)])?;
        scene.server.acknowledged(mark, "lds").await?;
        until(first, "/", |outcome| outcome.header("server") == Some("y")).await?;
        until(second, "/", |outcome| outcome.header("server") == Some("x")).await
    })
}

/// A plain bootstrap with a folder for data: it serves what it was told last while nobody listens at the server's address.
#[tokio::test]
async fn a_start_without_the_server_serves_what_it_said_last() -> Result<()> {
    by_each_variant!(variant, {
        let mut server = AdsServer::start(peers().context("peers")?)?;
        let upstream = Upstream::start("kept").await?;
        let address = address::free()?;
        server.set("cds", "1", &[cluster("one")])?;
        server.set("eds", "1", &[endpoints("one", &[upstream.address()])])?;
        server.set("lds", "1", &[listener("main", address)])?;
        let to_one = json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]);
        server.set("rds", "1", &[routes(&to_one)])?;
        let folder = tempfile::tempdir()?;
        let data = folder.path().display().to_string();
        let bootstrap = bootstrap(&server, variant);
        let start = || Proxy::launch(Kind::Outrigger, &bootstrap, &["--data-dir", &data]);
        let mut proxy = start()?.ready().await?;
        until(address, "/", |outcome| outcome.body() == "kept").await?;
        proxy.terminate()?;
        let deadline = Instant::now() + Duration::from_secs(40);
        while proxy.process().exit_status()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.stop()?;
        server.wait_since(0, "stop", |event| event["event"] == "stopped").await?;
        let proxy = start()?.ready().await?;
        until(address, "/", |outcome| outcome.body() == "kept").await?;
        // And takes what the server says when it is back.
        let other = Upstream::start("new").await?;
        server.set("eds", "2", &[endpoints("one", &[other.address()])])?;
        server.restart()?;
        until(address, "/", |outcome| outcome.body() == "new").await?;
        drop(proxy);
        Ok(())
    })
}

/// An open connection of a client outlives every update that does not concern its listener.
#[tokio::test]
async fn updates_of_other_listeners_leave_a_connection_alone() -> Result<()> {
    by_each_variant!(variant, {
        let mut scene = scene(variant).await?;
        let mut connection = Connection::open(scene.listener, Protocol::Http1, None).await?;
        ensure!(connection.send(&Request::get("/")).await?.body == "a");
        let other = address::free()?;
        for version in ["2", "3", "4"] {
            let mut second = listener("second", other);
            second["filter_chains"][0]["filters"][0]["typed_config"]["server_name"] =
                json!(version);
            second["address"] = socket_address(other);
            let mark = scene.server.mark();
            scene.server.set("lds", version, &[listener("main", scene.listener), second])?;
            scene.server.acknowledged(mark, "lds").await?;
            ensure!(connection.send(&Request::get("/")).await?.body == "a");
        }
        Ok(())
    })
}
