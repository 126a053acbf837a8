//! CSDS at the admin interface, asked by grpcio. Envoy serves no CSDS: there is nobody to compare with.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outrigger_integration::ads::Variant;
use outrigger_integration::peers::{fixture, peers};
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{Scene, cluster, listener};
use serde_json::{Value, json};

#[tokio::test]
async fn every_resource_is_shown_with_its_status() -> Result<()> {
    if peers().is_none() || !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    for variant in [Variant::Sotw, Variant::Delta] {
        story(variant).await.with_context(|| format!("{variant:?}"))?;
    }
    Ok(())
}

async fn story(variant: Variant) -> Result<()> {
    let mut scene = Scene::start(Kind::Outrigger, variant).await?;
    scene.until_body("/", "a").await?;
    let [fetched, streamed] = ask(&scene.proxy, &[])?;
    ensure!(fetched == streamed, "{fetched}\nis not\n{streamed}");
    ensure!(fetched["config"][0]["node"]["id"] == "node-1", "{fetched}");
    for (message, name) in [
        ("config.listener.v3.Listener", "main"),
        ("config.route.v3.RouteConfiguration", "routes"),
        ("config.cluster.v3.Cluster", "one"),
        ("config.endpoint.v3.ClusterLoadAssignment", "one"),
    ] {
        let resource = of(&fetched, message, name)?;
        ensure!(resource["client_status"] == "ACKED", "{resource}");
        ensure!(resource["xds_config"].is_object(), "{resource}");
        ensure!(resource["last_updated"].is_string(), "{resource}");
        ensure!(variant == Variant::Delta || resource["version_info"] == "1", "{resource}");
    }
    let server = of(&fetched, "config.cluster.v3.Cluster", "xds")?;
    ensure!(server["is_static_resource"] == true, "{server}");

    // A cluster is refused, a new one waits for endpoints that the server does not have, a listener for its routes.
    let mut bad = cluster("one");
    bad["connect_timeout"] = json!("0s");
    let mark = scene.server.mark();
    scene.server.set("cds", "2", &[bad, cluster("two")])?;
    scene.server.rejected(mark, "cds").await?;
    let mut waiting = listener("main", scene.listener);
    let manager = &mut waiting["filter_chains"][0]["filters"][0]["typed_config"];
    manager["rds"]["route_config_name"] = json!("others");
    let mark = scene.server.mark();
    scene.server.set("lds", "2", &[waiting])?;
    scene.server.acknowledged(mark, "lds").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let shown = loop {
        let [shown, _] = ask(&scene.proxy, &[])?;
        if of(&shown, "config.route.v3.RouteConfiguration", "others").is_ok() {
            break shown;
        }
        ensure!(Instant::now() < deadline, "the new routes are not asked for: {shown}");
    };
    let one = of(&shown, "config.cluster.v3.Cluster", "one")?;
    ensure!(one["client_status"] == "NACKED", "{one}");
    ensure!(one["xds_config"]["connect_timeout"] == "1s", "{one}");
    let error = &one["error_state"];
    ensure!(error["details"].as_str().is_some_and(|it| it.contains("connect_timeout")), "{one}");
    ensure!(error["failed_configuration"]["connect_timeout"] == "0s", "{one}");
    ensure!(error["last_update_attempt"].is_string(), "{one}");
    let two = of(&shown, "config.cluster.v3.Cluster", "two")?;
    ensure!(two["client_status"] == "ACKED", "{two}");
    // By delta the server says that it has none.
    let expected = match variant {
        Variant::Sotw => "REQUESTED",
        Variant::Delta => "DOES_NOT_EXIST",
    };
    let routes = of(&shown, "config.route.v3.RouteConfiguration", "others")?;
    let status = routes["client_status"].as_str().unwrap_or_default();
    ensure!(status == "REQUESTED" || status == expected, "{routes}");
    let listeners = all(&shown, "config.listener.v3.Listener");
    ensure!(listeners.len() == 1, "what warms is shown once: {shown}");

    let [bare, _] = ask(&scene.proxy, &["exclude_resource_contents"])?;
    let one = of(&bare, "config.cluster.v3.Cluster", "one")?;
    ensure!(one["client_status"] == "NACKED" && one.get("xds_config").is_none(), "{one}");

    let [fetched, streamed] = ask(&scene.proxy, &["node_matchers"])?;
    ensure!(fetched["error"] == "INVALID_ARGUMENT", "{fetched}");
    ensure!(streamed["error"] == "INVALID_ARGUMENT", "{streamed}");
    // HTTP/1 is served beside it.
    ensure!(scene.proxy.admin("/ready").await?.starts_with("LIVE"));
    Ok(())
}

/// The answers of both methods.
fn ask(proxy: &Proxy, fields: &[&str]) -> Result<[Value; 2]> {
    let peers = peers().context("peers")?;
    let output = Command::new(&peers.python)
        .arg(fixture("csds_client.py"))
        .arg(proxy.admin.to_string())
        .args(fields)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    match <[Value; 2]>::try_from(answers) {
        Ok(answers) => Ok(answers),
        Err(other) => bail!("{other:?}\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn all<'a>(answer: &'a Value, message: &str) -> Vec<&'a Value> {
    let type_url = format!("type.googleapis.com/envoy.{message}");
    let resources = answer["config"][0]["generic_xds_configs"].as_array().into_iter().flatten();
    resources.filter(|resource| resource["type_url"] == type_url.as_str()).collect()
}

fn of<'a>(answer: &'a Value, message: &str, name: &str) -> Result<&'a Value> {
    let found = all(answer, message).into_iter().find(|resource| resource["name"] == name);
    found.with_context(|| format!("no {message} {name} in {answer}"))
}
