//! The runtime: its layers, and who reads it.

use anyhow::{Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::client::Request;
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{bootstrap, until};
use outrigger_integration::upstream::Upstream;
use serde_json::{Value, json};

use crate::stories;

stories! {
    a_layer_is_discovered_and_later_layers_win
    a_value_that_can_be_none_is_rejected
}

fn layer(values: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        "name": "dynamic",
        "layer": values,
    })
}

const LAYERS: &str = "
layered_runtime:
  layers:
  - {name: base, static_layer: {share: 100, nested: {key: text}}}
  - {name: discovered, rtds_layer: {name: dynamic, rtds_config: {ads: {}, resource_api_version: V3}}}
  - {name: admin, admin_layer: {}}
";

/// What a route with the runtime key `share` does, by default nothing.
fn routed(address: std::net::SocketAddr) -> Value {
    let route = |name: &str, fraction: Option<Value>| {
        let mut route = json!({
            "match": {"prefix": "/"},
            "direct_response": {"status": 200, "body": {"inline_string": name}},
        });
        if let Some(fraction) = fraction {
            route["match"]["runtime_fraction"] = fraction;
        }
        route
    };
    let fraction = json!({"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": "share"});
    let routes = json!([route("yes", Some(fraction)), route("no", None)]);
    let mut listener = outrigger_integration::scene::listener("main", address);
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("rds");
    }
    manager["route_config"] = json!({"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]});
    listener
}

async fn start(kind: Kind, variant: Variant) -> Result<(AdsServer, Proxy, std::net::SocketAddr)> {
    let peers = peers().ok_or_else(|| anyhow::anyhow!("peers"))?;
    let mut server = AdsServer::start(peers)?;
    let address = address::free()?;
    server.set("cds", "1", &[])?;
    server.set("rtds", "1", &[layer(&json!({"share": 0, "other": 5}))])?;
    server.set("lds", "1", &[routed(address)])?;
    let proxy = Proxy::start(kind, &format!("{}{LAYERS}", bootstrap(&server, variant))).await?;
    Ok((server, proxy, address))
}

async fn shares(proxy: &Proxy) -> Result<Value> {
    let runtime: Value = serde_json::from_str(&proxy.admin("/runtime").await?)?;
    Ok(runtime)
}

async fn a_layer_is_discovered_and_later_layers_win(kind: Kind, variant: Variant) -> Result<()> {
    let (mut server, proxy, address) = start(kind, variant).await?;
    until(address, "/", |outcome| outcome.body() == "no").await?;
    let runtime = shares(&proxy).await?;
    ensure!(runtime["layers"] == json!(["base", "discovered", "admin"]), "{runtime}");
    let expected = json!({
        "share": {"layer_values": ["100", "0", ""], "final_value": "0"},
        "other": {"layer_values": ["", "5", ""], "final_value": "5"},
        "nested.key": {"layer_values": ["text", "", ""], "final_value": "text"},
    });
    ensure!(runtime["entries"] == expected, "{runtime}");

    let mark = server.mark();
    server.set(
        "rtds",
        "2",
        &[layer(&json!({"share": {"numerator": 1_000_000, "denominator": "MILLION"}}))],
    )?;
    server.acknowledged(mark, "rtds").await?;
    until(address, "/", |outcome| outcome.body() == "yes").await?;

    proxy.command("/runtime_modify?share=0").await?;
    until(address, "/", |outcome| outcome.body() == "no").await?;
    proxy.command("/runtime_modify?share=").await?;
    until(address, "/", |outcome| outcome.body() == "yes").await?;

    // Without the key the static layer is left.
    server.set("rtds", "3", &[layer(&json!({}))])?;
    until(address, "/", |outcome| outcome.body() == "yes").await?;
    let wanted = |runtime: &Value| runtime["entries"]["share"]["final_value"] == "100";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let runtime = shares(&proxy).await?;
        if wanted(&runtime) {
            break;
        }
        ensure!(std::time::Instant::now() < deadline, "{runtime}");
    }
    for (name, value) in [
        ("runtime.num_keys", 2),
        ("runtime.num_layers", 3),
        ("runtime.update_success", 3),
        ("runtime.update_rejected", 0),
        ("runtime.admin_overrides_active", 0),
    ] {
        let found = proxy.stat(name).await?;
        ensure!(found == value, "{name} is {found}");
    }
    Ok(())
}

async fn a_value_that_can_be_none_is_rejected(kind: Kind, variant: Variant) -> Result<()> {
    let (mut server, proxy, address) = start(kind, variant).await?;
    let mark = server.mark();
    server.set("rtds", "2", &[layer(&json!({"share": [1]}))])?;
    let error = server.rejected(mark, "rtds").await?;
    ensure!(error.contains("share"), "{error}");
    until(address, "/", |outcome| outcome.body() == "no").await?;
    let found = proxy.stat("runtime.update_rejected").await?;
    ensure!(found == 1, "update_rejected is {found}");
    Ok(())
}

/// A folder of files, swapped whole by its link.
#[tokio::test]
async fn a_layer_on_disk_is_read_again_when_its_link_leads_elsewhere() -> Result<()> {
    for kind in [Kind::Envoy, Kind::Outrigger] {
        if kind.is_runnable() {
            follow_the_link(kind).await?;
        }
    }
    Ok(())
}

async fn follow_the_link(kind: Kind) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |path: &str| folder.path().join(path);
    for (version, share) in [("v1", "0"), ("v2", "100")] {
        std::fs::create_dir_all(at(version).join("proxy"))?;
        std::fs::write(at(version).join("proxy/share"), share)?;
    }
    std::os::unix::fs::symlink("v1", at("current"))?;
    let address = address::free()?;
    let _upstream = Upstream::start("a").await?;
    let mut listener = routed(address);
    if let Some(listener) = listener.as_object_mut() {
        listener.remove("@type");
    }
    let root = at("current");
    let root = root.display();
    let bootstrap = format!(
        "
layered_runtime: {{layers: [{{name: disk, disk_layer: {{symlink_root: {root}, subdirectory: proxy}}}}]}}
static_resources: {{listeners: [{listener}]}}
"
    );
    let proxy = Proxy::start(kind, &bootstrap).await?;
    ensure!(Request::get("/").send(address).await.body() == "no", "{kind}");
    std::os::unix::fs::symlink("v2", at("next"))?;
    std::fs::rename(at("next"), at("current"))?;
    until(address, "/", |outcome| outcome.body() == "yes").await?;
    let found = proxy.stat("runtime.override_dir_exists").await?;
    ensure!(found == 0, "{kind}: override_dir_exists is {found}");
    Ok(())
}
