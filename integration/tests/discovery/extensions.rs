//! Discovered configuration of HTTP filters (ECDS).

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::Variant;
use outrigger_integration::client::{Connection, Protocol, Request};
use outrigger_integration::proxy::Kind;
use outrigger_integration::scene::{Scene, listener, until};
use serde_json::{Value, json};

use crate::stories;

stories! {
    a_listener_opens_when_its_filters_are_there_and_follows_them
    a_default_serves_until_there_is_more
    a_filter_of_another_type_is_rejected
    without_a_configuration_requests_are_answered
    what_the_server_takes_back_is_the_default_again
}

const MUTATION: &str =
    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// A filter that adds the header `x-by` to responses.
fn mutation(value: &str) -> Value {
    json!({"@type": MUTATION, "mutations": {"response_mutations": [{"append": {
        "header": {"key": "x-by", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }}]}})
}

fn extension(config: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "mark",
        "typed_config": config,
    })
}

/// A listener with the filter `mark`.
fn marked(address: std::net::SocketAddr, more: &[(&str, Value)]) -> Value {
    let mut listener = listener("marked", address);
    let mut discovery = json!({
        "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
        "type_urls": [MUTATION],
    });
    for (field, value) in more {
        discovery[*field] = value.clone();
    }
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    if let Some(filters) = filters.as_array_mut() {
        filters.insert(0, json!({"name": "mark", "config_discovery": discovery}));
    }
    listener
}

async fn a_listener_opens_when_its_filters_are_there_and_follows_them(
    kind: Kind,
    variant: Variant,
) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    let mark = scene.server.mark();
    scene.server.set("lds", "2", &[listener("main", scene.listener), marked(address, &[])])?;
    let asks = |event: &Value| event["type"] == "ecds" && event["event"] == "request";
    scene.server.wait_since(mark, "request for ECDS", asks).await?;
    ensure!(
        Request::get("/").send(address).await.status() == 0,
        "it is open before its filter is there"
    );
    scene.server.set("ecds", "1", &[extension(&mutation("one"))])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await?;

    // The filter changes under a connection, which stays.
    let mut connection = Connection::open(address, Protocol::Http1, None).await?;
    connection.send(&Request::get("/")).await?;
    let mark = scene.server.mark();
    scene.server.set("ecds", "2", &[extension(&mutation("two"))])?;
    scene.server.acknowledged(mark, "ecds").await?;
    let response = connection.send(&Request::get("/")).await?;
    let by = ("x-by".to_owned(), "two".to_owned());
    ensure!(response.headers.contains(&by), "{response:?}");

    let prefix = "extension_config_discovery.http_filter.mark.";
    for (name, value) in
        [("config_reload", 2), ("update_success", 2), ("update_rejected", 0), ("config_fail", 0)]
    {
        let found = scene.proxy.stat(&format!("{prefix}{name}")).await?;
        ensure!(found == value, "{name} is {found}");
    }
    let dump: Value = serde_json::from_str(&scene.proxy.admin("/config_dump").await?)?;
    let of_type =
        |config: &&Value| config["@type"] == "type.googleapis.com/envoy.admin.v3.EcdsConfigDump";
    let dump = dump["configs"].as_array().into_iter().flatten().find(of_type).context("no dump")?;
    let filter = &dump["ecds_filters"][0];
    ensure!(filter["ecds_filter"]["name"] == "mark", "{dump}");
    ensure!(
        filter["ecds_filter"]["@type"]
            .as_str()
            .unwrap_or_default()
            .ends_with("TypedExtensionConfig"),
        "{dump}"
    );
    if variant == Variant::Sotw {
        ensure!(filter["version_info"] == "2", "{dump}");
    }
    Ok(())
}

async fn a_default_serves_until_there_is_more(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    let listener = marked(
        address,
        &[
            ("default_config", mutation("default")),
            ("apply_default_config_without_warming", json!(true)),
        ],
    );
    scene.server.set("lds", "2", &[listener])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("default")).await?;
    scene.server.set("ecds", "1", &[extension(&mutation("one"))])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await
}

async fn a_filter_of_another_type_is_rejected(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    scene.server.set("ecds", "1", &[extension(&mutation("one"))])?;
    scene.server.set("lds", "2", &[marked(address, &[])])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await?;
    let other = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": 5,
    });
    let mark = scene.server.mark();
    scene.server.set("ecds", "2", &[extension(&other)])?;
    let error = scene.server.rejected(mark, "ecds").await?;
    ensure!(error.contains("buffer.v3.Buffer"), "{error}");
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await?;
    let prefix = "extension_config_discovery.http_filter.mark.";
    for name in ["update_rejected", "config_fail"] {
        let found = scene.proxy.stat(&format!("{prefix}{name}")).await?;
        ensure!(found == 1, "{name} is {found}");
    }
    Ok(())
}

async fn without_a_configuration_requests_are_answered(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    let source = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.2s"});
    scene.server.set("lds", "2", &[marked(address, &[("config_source", source)])])?;
    until(address, "/", |outcome| outcome.status() == 500 && outcome.body().is_empty()).await?;
    scene.server.set("ecds", "1", &[extension(&mutation("one"))])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await?;
    let name = "extension_config_discovery.http_filter.mark.init_fetch_timeout";
    let found = scene.proxy.stat(name).await?;
    ensure!(found == 1, "{name} is {found}");
    Ok(())
}

/// By state of the world an absent one stays, as in Envoy.
async fn what_the_server_takes_back_is_the_default_again(
    kind: Kind,
    variant: Variant,
) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    scene.server.set("ecds", "1", &[extension(&mutation("one"))])?;
    let listener = marked(address, &[("default_config", mutation("default"))]);
    scene.server.set("lds", "2", &[listener])?;
    until(address, "/", |outcome| outcome.header("x-by") == Some("one")).await?;
    scene.server.set("ecds", "2", &[])?;
    let expected = if variant == Variant::Delta { "default" } else { "one" };
    until(address, "/", |outcome| outcome.header("x-by") == Some(expected)).await
}
