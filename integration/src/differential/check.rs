//! What a service of `envoy.service.auth.v3` is asked, as facts: maps in the message have no order.

use std::fmt::Debug;

use outrigger_proto::envoy::config::core::v3::Metadata;
use outrigger_proto::envoy::config::core::v3::address::Address;
use outrigger_proto::envoy::service::auth::v3::CheckRequest;
use outrigger_proto::envoy::service::auth::v3::attribute_context::Peer;
use outrigger_proto::json::json_object;
use prost::Message;

/// What is called.
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Field and value of what is in the question, or `None` if this is none.
pub(super) fn facts(path: &str, body: &[u8]) -> Option<Vec<(String, String)>> {
    if path != METHOD {
        return None;
    }
    let (_, message) = body.split_first_chunk::<5>()?;
    let attributes = CheckRequest::decode(message).ok()?.attributes?;
    let mut facts = Vec::new();
    let mut fact = |field: &str, value: &dyn Debug| {
        facts.push((format!("check.{field}"), format!("{value:?}")));
    };
    for (name, peer) in [("source", attributes.source), ("destination", attributes.destination)] {
        let Peer { address, service, labels, principal, certificate } = peer.unwrap_or_default();
        if let Some(Address::SocketAddress(address)) = address.and_then(|address| address.address) {
            let whole = !address.address.is_empty() && address.port_specifier.is_some();
            fact(&format!("{name}.has_address"), &whole);
        }
        fact(name, &(service, labels.len(), principal, !certificate.is_empty()));
    }
    let request = attributes.request.unwrap_or_default();
    fact("has_time", &request.time.is_some());
    let mut http = request.http.unwrap_or_default();
    for (name, value) in std::mem::take(&mut http.headers) {
        fact(&format!("header.{name}"), &value);
    }
    for header in http.header_map.take().unwrap_or_default().headers {
        let value = format!("{}{}", header.value, header.raw_value.escape_ascii());
        fact(&format!("raw_header.{}.{value}", header.key), &"is there");
    }
    fact("has_id", &!std::mem::take(&mut http.id).is_empty());
    fact("http", &http);
    for (key, value) in attributes.context_extensions {
        fact(&format!("extension.{key}"), &value);
    }
    for (name, metadata) in [
        ("metadata", attributes.metadata_context),
        ("route_metadata", attributes.route_metadata_context),
    ] {
        fact(name, &metadata.is_some());
        let Metadata { filter_metadata, .. } = metadata.unwrap_or_default();
        for (namespace, object) in filter_metadata {
            let object = serde_json::Value::from(json_object(object));
            fact(&format!("{name}.{namespace}"), &object.to_string());
        }
    }
    fact("tls_session", &attributes.tls_session);
    Some(facts)
}
