//! Configuration in its JSON form, from a server that does not have its definition.

use anyhow::{Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::Variant;
use outrigger_integration::proxy::Kind;
use outrigger_integration::scene::{Scene, listener, until};
use serde_json::{Value, json};

use crate::stories;

stories! {
    a_filter_may_be_a_typed_struct
    one_that_does_not_fit_is_rejected
}

const MUTATION: &str =
    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

fn with_filter(address: std::net::SocketAddr, name: &str, value: &Value) -> Value {
    let mut listener = listener("struct", address);
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    if let Some(filters) = filters.as_array_mut() {
        let config = json!({"@type": format!("type.googleapis.com/{name}"), "type_url": MUTATION, "value": value});
        filters.insert(0, json!({"name": "mark", "typed_config": config}));
    }
    listener
}

fn mutations(key: &Value) -> Value {
    json!({"mutations": {"response_mutations": [{"append": {"header": {"key": key, "value": "struct"}}}]}})
}

async fn a_filter_may_be_a_typed_struct(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    for (version, name) in [("2", "udpa.type.v1.TypedStruct"), ("3", "xds.type.v3.TypedStruct")] {
        let address = address::free()?;
        let listener = with_filter(address, name, &mutations(&json!("x-by")));
        scene.server.set("lds", version, &[listener])?;
        until(address, "/", |outcome| outcome.header("x-by") == Some("struct")).await?;
    }
    Ok(())
}

async fn one_that_does_not_fit_is_rejected(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    let address = address::free()?;
    let listener = with_filter(address, "xds.type.v3.TypedStruct", &mutations(&json!([1])));
    let mark = scene.server.mark();
    scene.server.set("lds", "2", &[listener])?;
    let error = scene.server.rejected(mark, "lds").await?;
    if kind == Kind::Outrigger {
        let field =
            "http_filters[0].typed_config.value.mutations.response_mutations[0].append.header.key";
        ensure!(error.contains("struct") && error.contains(field), "{error}");
    }
    Ok(())
}
