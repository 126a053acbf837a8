//! Extensions that are not Envoy's own, as themselves or as a `TypedStruct` of a message that is not known here. Some of
//! Istio's can be left out without changing what happens to a request. This is their list: a listener that has them is
//! accepted, and they do nothing.

use outrigger_proto::any;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::TypedStruct;

/// HTTP filters.
const HARMLESS_HTTP: &[&str] = &[
    // Chooses the ALPN by which Istio's sidecars know each other upstream; without it they speak as to strangers.
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    // Fetches labels of the peer, for metrics.
    "io.istio.http.peer_metadata.Config",
    // Counts requests (`istio_requests_total`).
    "stats.PluginConfig",
];

/// Network filters that stand before the one that ends the chain.
const HARMLESS_NETWORK: &[&str] = &[
    // Exchanges labels with a peer where both agree on [`PEER_EXCHANGE`] by ALPN, which we do not.
    "envoy.tcp.metadataexchange.config.MetadataExchange",
    // The same, from the workload's own discovery.
    "io.istio.workload.Config",
    // Counts connections.
    "stats.PluginConfig",
];

/// Extensions of the bootstrap.
const HARMLESS_BOOTSTRAP: &[&str] = &[
    // Lets listeners be internal, all of which are refused by themselves.
    "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    // Asks for labels of workloads, for metrics.
    "istio.workload.BootstrapExtension",
];

/// A protocol by which peers would exchange labels before they say anything else. Whoever agrees on it has to do that,
/// so nobody is offered it.
pub(super) const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// Whether an HTTP filter of this configuration can be left out.
pub(super) fn is_harmless_http(config: &Any) -> bool {
    HARMLESS_HTTP.contains(&&*message_name(config))
}

/// As [`is_harmless_http`], by the full name of the message.
pub(super) fn is_harmless_http_message(message: &str) -> bool {
    HARMLESS_HTTP.contains(&message)
}

/// Whether a network filter of this configuration can be left out.
pub(super) fn is_harmless_network(config: &Any) -> bool {
    HARMLESS_NETWORK.contains(&&*message_name(config))
}

/// Whether an extension of the bootstrap of this configuration can be left out.
pub(super) fn is_harmless_bootstrap(config: &Any) -> bool {
    HARMLESS_BOOTSTRAP.contains(&&*message_name(config))
}

/// The name of the message that a configuration is, or would be.
pub(super) fn message_name(config: &Any) -> String {
    let inner = TypedStruct::within(config).map(|inner| inner.type_url);
    any::message_name(inner.as_deref().unwrap_or(&config.type_url)).to_owned()
}

#[cfg(test)]
mod tests {
    use outrigger_proto::google::protobuf::Struct;
    use prost::Message;

    use super::*;

    fn config(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: format!("type.googleapis.com/{type_url}"), value }
    }

    #[test]
    fn an_extension_is_known_by_its_own_message_and_by_a_typed_struct() {
        let inner = TypedStruct {
            type_url: "type.googleapis.com/stats.PluginConfig".to_owned(),
            value: Some(Struct::default()),
        };
        for config in [
            config("stats.PluginConfig", vec![]),
            config("udpa.type.v1.TypedStruct", inner.encode_to_vec()),
            config("xds.type.v3.TypedStruct", inner.encode_to_vec()),
        ] {
            assert!(is_harmless_http(&config) && is_harmless_network(&config), "{config:?}");
        }
    }

    #[test]
    fn what_decides_on_requests_is_not_harmless() {
        let inner = TypedStruct {
            type_url: "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC".to_owned(),
            value: None,
        };
        for config in [
            config("xds.type.v3.TypedStruct", inner.encode_to_vec()),
            config("xds.type.v3.TypedStruct", vec![0xff]),
            config("io.istio.network.authn.Config", vec![]),
            config("", vec![]),
        ] {
            assert!(!is_harmless_http(&config) && !is_harmless_network(&config), "{config:?}");
        }
    }
}
