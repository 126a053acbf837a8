//! Updates of listeners while clients are connected: addresses that go from one to another in one update, connections that
//! stay, connections that are asked to go. Listeners come from a watched file.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::{Kind, Proxy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs a scene through our sidecar, and through Envoy where that does the same.
async fn through<F: AsyncFn(Kind) -> Result<()>>(kinds: &[Kind], scene: F) -> Result<()> {
    for kind in kinds {
        if *kind == Kind::Envoy && peers().is_none() {
            continue;
        }
        scene(*kind).await.with_context(|| format!("through {kind}"))?;
    }
    Ok(())
}

const BOTH: &[Kind] = &[Kind::Envoy, Kind::Outrigger];

/// Envoy refuses the first of the two, whose address is taken as long as the other has it.
#[tokio::test]
async fn two_listeners_swap_their_ports_in_one_update() {
    through(&[Kind::Outrigger], async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let scene = Scene::start(kind, &[listener("a", &[one]), listener("b", &[two])]).await?;
        scene.answers(one, "a").await?;
        scene.answers(two, "b").await?;
        let mut kept = Connection::open(one, Protocol::Http1, None).await?;
        kept.send(&Request::get("/")).await?;
        scene.write("2", &[listener("a", &[two]), listener("b", &[one])])?;
        scene.answers(one, "b").await?;
        scene.answers(two, "a").await?;
        ensure!(scene.proxy.stat("listener_manager.lds.update_rejected").await? == 0);
        // A connection stays with the listener that accepted it.
        let answer = kept.send(&Request::get("/")).await?;
        ensure!(answer.body == "a" && closes(&answer.headers), "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn three_listeners_pass_their_ports_on_in_one_update() {
    through(&[Kind::Outrigger], async |kind| {
        let places = [address::free()?, address::free()?, address::free()?];
        let with = |names: [&str; 3]| -> Vec<Value> {
            names.iter().zip(&places).map(|(name, place)| listener(name, &[*place])).collect()
        };
        let scene = Scene::start(kind, &with(["a", "b", "c"])).await?;
        for names in [["c", "a", "b"], ["b", "c", "a"], ["a", "b", "c"]] {
            scene.write(&names.concat(), &with(names))?;
            for (name, place) in names.iter().zip(&places) {
                scene.answers(*place, name).await?;
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_listener_takes_the_address_of_one_that_is_removed_in_the_same_update() {
    through(BOTH, async |kind| {
        let place = address::free()?;
        let scene = Scene::start(kind, &[listener("a", &[place])]).await?;
        scene.answers(place, "a").await?;
        scene.write("2", &[listener("b", &[place])])?;
        scene.answers(place, "b").await?;
        ensure!(scene.proxy.stat("listener_manager.lds.update_rejected").await? == 0);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_that_another_listener_keeps_is_refused_by_name() {
    through(BOTH, async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let scene = Scene::start(kind, &[listener("a", &[one]), listener("b", &[two])]).await?;
        scene.answers(two, "b").await?;
        scene.write("2", &[listener("a", &[one]), listener("b", &[one])])?;
        let rejected = "listener_manager.lds.update_rejected";
        scene.proxy.wait_for_stat(rejected, PATIENCE, |count| count > 0).await?;
        scene.answers(one, "a").await?;
        scene.answers(two, "b").await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn only_the_chain_that_changed_drains() {
    through(BOTH, async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let with = |first: &str, second: &str| {
            let mut listener = listener("a", &[one, two]);
            listener["filter_chains"] = json!([
                chain(first, json!({"destination_port": one.port()})),
                chain(second, json!({"destination_port": two.port()})),
            ]);
            listener
        };
        let scene = Scene::start(kind, &[with("first", "second")]).await?;
        scene.answers(one, "first").await?;
        let mut first = Connection::open(one, Protocol::Http1, None).await?;
        let mut second = Connection::open(two, Protocol::Http1, None).await?;
        for (connection, body) in [(&mut first, "first"), (&mut second, "second")] {
            let answer = connection.send(&Request::get("/")).await?;
            ensure!(answer.body == body && !closes(&answer.headers), "{answer:?}");
        }
        scene.write("2", &[with("first", "changed")])?;
        scene.answers(two, "changed").await?;
        let answer = first.send(&Request::get("/")).await?;
        ensure!(answer.body == "first" && !closes(&answer.headers), "unchanged: {answer:?}");
        let answer = second.send(&Request::get("/")).await?;
        ensure!(answer.body == "second" && closes(&answer.headers), "changed: {answer:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_more_or_less_leaves_the_connections_of_the_others() {
    through(&[Kind::Outrigger], async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let scene = Scene::start(kind, &[listener("a", &[one])]).await?;
        scene.answers(one, "a").await?;
        let mut kept = Connection::open(one, Protocol::Http1, None).await?;
        kept.send(&Request::get("/")).await?;
        scene.write("2", &[listener("a", &[one, two])])?;
        scene.answers(two, "a").await?;
        scene.write("3", &[listener("a", &[one])])?;
        scene.refuses(two).await?;
        let answer = kept.send(&Request::get("/")).await?;
        ensure!(answer.body == "a" && !closes(&answer.headers), "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_removed_listener_accepts_no_more_and_lets_its_connections_finish() {
    through(BOTH, async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let scene = Scene::start(kind, &[listener("a", &[one]), listener("b", &[two])]).await?;
        scene.answers(one, "a").await?;
        let mut left = Connection::open(one, Protocol::Http1, None).await?;
        left.send(&Request::get("/")).await?;
        scene.write("2", &[listener("b", &[two])])?;
        scene.refuses(one).await?;
        let answer = left.send(&Request::get("/")).await?;
        ensure!(answer.body == "a" && closes(&answer.headers), "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// The other listener is accepted, but its routes are still to come: until then it serves where it was.
#[tokio::test]
async fn a_listener_waits_for_an_address_that_is_about_to_be_left() {
    through(&[Kind::Outrigger], async |kind| {
        let (one, two) = (address::free()?, address::free()?);
        let scene = Scene::start(kind, &[listener("a", &[one]), listener("b", &[two])]).await?;
        scene.answers(one, "a").await?;
        scene.answers(two, "b").await?;
        let routes = scene.folder.path().join("rds");
        std::fs::write(&routes, json!({"version_info": "0", "resources": []}).to_string())?;
        let mut late = listener("b", &[one]);
        let manager = &mut late["filter_chains"][0]["filters"][0]["typed_config"];
        if let Some(manager) = manager.as_object_mut() {
            manager.remove("route_config");
        }
        manager["rds"] = json!({"route_config_name": "late", "config_source": {
            "resource_api_version": "V3", "initial_fetch_timeout": "0s",
            "path_config_source": {"path": routes, "watched_directory": {"path": scene.folder.path()}},
        }});
        scene.write("2", &[listener("a", &[two]), late])?;
        let success = "listener_manager.lds.update_success";
        scene.proxy.wait_for_stat(success, PATIENCE, |count| count == 2).await?;
        scene.answers(one, "a").await?;
        scene.answers(two, "b").await?;
        let beside = scene.folder.path().join("routes");
        let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "late"}}});
        let resource = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "late",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        });
        std::fs::write(&beside, json!({"version_info": "1", "resources": [resource]}).to_string())?;
        std::fs::rename(&beside, &routes)?;
        scene.answers(one, "late").await?;
        scene.answers(two, "a").await
    })
    .await
    .unwrap();
}

const PATIENCE: Duration = Duration::from_secs(20);

fn closes(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(name, value)| name == "connection" && value == "close")
}

struct Scene {
    proxy: Proxy,
    folder: TempDir,
}

impl Scene {
    async fn start(kind: Kind, listeners: &[Value]) -> Result<Scene> {
        let folder = tempfile::tempdir()?;
        write(folder.path(), "1", listeners)?;
        let path = folder.path().join("lds");
        let bootstrap = format!(
            "node: {{id: test, cluster: test}}\ndynamic_resources: {{lds_config: {{resource_api_version: V3, path_config_source: {{path: '{}', watched_directory: {{path: '{}'}}}}}}}}\n",
            path.display(),
            folder.path().display()
        );
        // Else Envoy asks clients to go with a probability that grows over ten minutes.
        let proxy = Proxy::launch(kind, &bootstrap, &["--drain-strategy", "immediate"])?;
        let proxy = proxy.ready().await?;
        Ok(Scene { proxy, folder })
    }

    fn write(&self, version: &str, listeners: &[Value]) -> Result<()> {
        write(self.folder.path(), version, listeners)
    }

    /// Waits until new connections to an address get this answer.
    async fn answers(&self, address: SocketAddr, body: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = Request::get("/").send(address).await;
            if outcome.status() == 200 && outcome.body() == body {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{address}: {outcome:?} and not {body:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nobody listens at an address.
    async fn refuses(&self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            ensure!(Instant::now() < deadline, "somebody listens at {address} still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// In one step, as a watcher wants it.
fn write(folder: &Path, version: &str, listeners: &[Value]) -> Result<()> {
    let beside = folder.join("beside");
    let response = json!({"version_info": version, "resources": listeners});
    std::fs::write(&beside, serde_json::to_string_pretty(&response)?)?;
    std::fs::rename(&beside, folder.join("lds")).context("put the file in its place")
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A listener that answers with its name.
fn listener(name: &str, addresses: &[SocketAddr]) -> Value {
    let (first, more) = addresses.split_first().unwrap_or_else(|| unreachable!("it has one"));
    let more: Vec<Value> =
        more.iter().map(|address| json!({"address": socket_address(*address)})).collect();
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": socket_address(*first),
        "additional_addresses": more,
        "filter_chains": [chain(name, json!({}))],
    })
}

fn chain(body: &str, criteria: Value) -> Value {
    json!({
        "filter_chain_match": criteria,
        "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": body,
                "route_config": {"name": body, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}},
                ]}]},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                }}],
            },
        }],
    })
}
