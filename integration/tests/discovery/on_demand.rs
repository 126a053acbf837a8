//! Requests that wait for what they need: virtual hosts (VHDS) and clusters on demand.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::Variant;
use outrigger_integration::client::Request;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{Scene, cluster, endpoints, listener, until};
use serde_json::{Value, json};

use crate::stories;

stories! {
    a_virtual_host_is_fetched_when_it_is_needed
    a_virtual_host_may_come_under_another_name
    a_cluster_is_fetched_when_it_is_needed
    a_route_says_whether_clusters_are_fetched
    a_cluster_that_does_not_come_is_not_waited_for_any_longer
}

/// What is asked for one by one: by the aggregated stream if that is incremental, else by a stream of its own.
fn source(variant: Variant) -> Value {
    let mut source = match variant {
        Variant::Delta => json!({"ads": {}}),
        Variant::Sotw => json!({"api_config_source": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }}),
    };
    source["resource_api_version"] = json!("V3");
    source["initial_fetch_timeout"] = json!("0.2s");
    source
}

/// A listener with the filter `on_demand`, to whose configuration `more` is added, and an access log of flags.
fn on_demand(address: SocketAddr, more: &Value) -> Value {
    let mut listener = listener("on-demand", address);
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        config[field] = value.clone();
    }
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["stat_prefix"] = json!("on_demand");
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        let filter = json!({"name": "envoy.filters.http.on_demand", "typed_config": config});
        filters.insert(0, filter);
    }
    listener
}

/// Puts these routes into a listener.
fn with_routes(mut listener: Value, routes: &Value) -> Value {
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("rds");
    }
    manager["route_config"] = json!({
        "name": "own",
        "validate_clusters": false,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
    });
    listener
}

fn virtual_host(name: &str, domain: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        "name": name,
        "domains": [domain],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "one"}}],
    })
}

fn hosted(variant: Variant) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "routes",
        "vhds": {"config_source": source(variant)},
    })
}

/// The same scene, with a second listener in which requests wait. Its first answer, if only of no route, is there.
async fn start(kind: Kind, variant: Variant, hosts: &[Value]) -> Result<(Scene, SocketAddr)> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    let address = address::free()?;
    scene.server.set("vhds", "1", hosts)?;
    scene.server.set("rds", "2", &[hosted(variant)])?;
    scene.server.set("lds", "2", &[on_demand(address, &json!({}))])?;
    until(address, "/", |outcome| outcome.status() == 404).await?;
    Ok((scene, address))
}

async fn counter(proxy: &Proxy, name: &str) -> Result<u64> {
    let stats = proxy.admin(&format!("/stats?filter={name}")).await?;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    Ok(line.with_context(|| stats.clone())?.parse()?)
}

async fn a_virtual_host_is_fetched_when_it_is_needed(kind: Kind, variant: Variant) -> Result<()> {
    let mut hosts = vec![
        virtual_host("routes/a.example", "a.example"),
        virtual_host("routes/c.example", "c.example"),
    ];
    let (mut scene, address) = start(kind, variant, &hosts).await?;
    let before = counter(&scene.proxy, "http.on_demand.downstream_rq_total").await?;
    for host in ["a.example", "A.example"] {
        let outcome = Request::get("/").host(host).send(address).await;
        ensure!(outcome.status() == 200 && outcome.body() == "a", "{outcome:?}");
    }
    let outcome = Request::get("/").host("b.example").send(address).await;
    ensure!(outcome.status() == 404 && outcome.body().is_empty(), "{outcome:?}");
    // A body goes on as well.
    let outcome = Request::post("/", "hello").host("c.example").send(address).await;
    ensure!(outcome.status() == 200, "{outcome:?}");
    let after = counter(&scene.proxy, "http.on_demand.downstream_rq_total").await?;
    ensure!(after - before == 4, "a request that waited is one request");

    // What was not there may come to be.
    hosts.push(virtual_host("routes/b.example", "b.example"));
    scene.server.set("vhds", "2", &hosts)?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while Request::get("/").host("b.example").send(address).await.status() != 200 {
        ensure!(std::time::Instant::now() < deadline, "it does not come");
    }
    Ok(())
}

async fn a_virtual_host_may_come_under_another_name(kind: Kind, variant: Variant) -> Result<()> {
    let mut host = virtual_host("routes/wild", "*.example");
    host["aliases"] = json!(["routes/x.example", "routes/y.example"]);
    let (_scene, address) = start(kind, variant, &[host]).await?;
    for name in ["x.example", "y.example", "z.example"] {
        let outcome = Request::get("/").host(name).send(address).await;
        ensure!(outcome.status() == 200 && outcome.body() == "a", "{name}: {outcome:?}");
    }
    Ok(())
}

/// A scene whose second listener chooses its cluster by a header, and fetches clusters as `filter` says.
async fn by_header(
    kind: Kind,
    variant: Variant,
    filter: &Value,
    per_route: Option<Value>,
) -> Result<(Scene, SocketAddr)> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    let mut route = json!({"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}});
    if let Some(mut config) = per_route {
        config["@type"] =
            json!("type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.PerRouteConfig");
        route["typed_per_filter_config"] = json!({"envoy.filters.http.on_demand": config});
    }
    let fixed = json!({"match": {"path": "/fixed"}, "route": {"cluster": "hidden-two"}});
    let listener = with_routes(on_demand(address, filter), &json!([fixed, route]));
    let clusters = [cluster("one"), cluster("hidden-one"), cluster("hidden-two")];
    let all = [
        endpoints("one", &[scene.a.address()]),
        endpoints("hidden-one", &[scene.b.address()]),
        endpoints("hidden-two", &[scene.b.address()]),
    ];
    scene.server.set("eds", "2", &all)?;
    scene.server.set("cds", "2", &clusters)?;
    scene.server.set("lds", "2", &[listener])?;
    let known = Request::get("/").header("x-cluster", "one");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while known.clone().send(address).await.status() != 200 {
        ensure!(std::time::Instant::now() < deadline, "the listener does not open");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok((scene, address))
}

/// Status and body for a cluster.
async fn asked(address: SocketAddr, cluster: &str) -> (u16, String) {
    let outcome = Request::get("/").header("x-cluster", cluster).send(address).await;
    (outcome.status(), outcome.body())
}

async fn a_cluster_is_fetched_when_it_is_needed(kind: Kind, variant: Variant) -> Result<()> {
    let filter = json!({"odcds": {"source": source(variant)}});
    let (scene, address) = by_header(kind, variant, &filter, None).await?;
    let before = counter(&scene.proxy, "http.on_demand.downstream_rq_total").await?;
    let found = asked(address, "hidden-one").await;
    ensure!(found == (200, "b".to_owned()), "{found:?}");
    let found = asked(address, "hidden-one").await;
    ensure!(found == (200, "b".to_owned()), "{found:?}");
    let found = asked(address, "hidden-none").await;
    ensure!(found == (503, String::new()), "{found:?}");
    let outcome = Request::post("/fixed", "hello").send(address).await;
    ensure!(outcome.status() == 200 && outcome.body() == "b", "{outcome:?}");
    let after = counter(&scene.proxy, "http.on_demand.downstream_rq_total").await?;
    ensure!(after - before == 4, "a request that waited is one request");
    Ok(())
}

async fn a_route_says_whether_clusters_are_fetched(kind: Kind, variant: Variant) -> Result<()> {
    let odcds = json!({"odcds": {"source": source(variant)}});
    let (_scene, address) = by_header(kind, variant, &odcds, Some(json!({}))).await?;
    let found = asked(address, "hidden-one").await;
    ensure!(found == (503, String::new()), "not fetched: {found:?}");
    // The other route has nothing to say.
    let outcome = Request::get("/fixed").send(address).await;
    ensure!(outcome.status() == 200 && outcome.body() == "b", "{outcome:?}");

    let (_scene, address) = by_header(kind, variant, &json!({}), Some(odcds)).await?;
    let found = asked(address, "hidden-one").await;
    ensure!(found == (200, "b".to_owned()), "{found:?}");
    let outcome = Request::get("/fixed").send(address).await;
    ensure!(outcome.status() == 503, "{outcome:?}");
    Ok(())
}

async fn a_cluster_that_does_not_come_is_not_waited_for_any_longer(
    kind: Kind,
    variant: Variant,
) -> Result<()> {
    let filter = json!({"odcds": {"source": source(variant), "timeout": "0.2s"}});
    let (mut scene, address) = by_header(kind, variant, &filter, None).await?;
    scene.server.stop()?;
    let found = asked(address, "hidden-one").await;
    ensure!(found == (503, String::new()), "{found:?}");
    Ok(())
}
