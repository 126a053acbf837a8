//! Where connections to endpoints come from.

use std::net::{IpAddr, SocketAddr};

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::upstream::local_address_selector::v3::DefaultLocalAddressSelector;

use crate::config::Problems;
use crate::config::bind_config::{BindConfig, Source};

use super::common::{boolean, required, socket_address, text, unknown_type};
use super::socket_option;

/// `upstream_bind_config` of a cluster, or of all.
pub(super) fn convert(problems: &mut Problems, proto: core::BindConfig) -> Option<BindConfig> {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces: _, // of network_namespace_filepath, which is refused
    } = proto;
    if let Some(core::TypedExtensionConfig { name, typed_config }) = local_address_selector {
        problems.field("local_address_selector", |problems| text(problems, "name", name));
        let config = typed_config.unwrap_or_default();
        if !any::holds::<DefaultLocalAddressSelector>(&config) {
            problems.field("local_address_selector", |problems| {
                problems.field("typed_config", |problems| {
                    unknown_type(problems, &config, &["DefaultLocalAddressSelector"]);
                });
            });
        }
    }
    let options = socket_option::list(problems, "socket_options", socket_options);
    let mut sources = Vec::new();
    if let Some(proto) = source_address {
        let address =
            problems.field("source_address", |problems| source_address_of(problems, proto))?;
        sources.push(Source { address, options: options.clone() });
    }
    if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
        problems.reject_field(
            "additional_source_addresses",
            "replaced by extra_source_addresses, which is set as well",
        );
    }
    let has_first = !sources.is_empty();
    let mut extra = |problems: &mut Problems, name: &str, index: usize, source: Option<Source>| {
        let Some(source) = source else { return };
        problems.element(name, index, |problems| {
            if !has_first {
                problems.reject("set without a source_address");
            } else if sources.len() > 1 {
                problems.reject("there may be two source addresses: one for each IP version");
            } else if sources.iter().any(|it| it.address.is_ipv4() == source.address.is_ipv4()) {
                problems.reject("has the IP version of source_address: one address for each");
            }
        });
        sources.push(source);
    };
    for (index, proto) in extra_source_addresses.into_iter().enumerate() {
        let core::ExtraSourceAddress { address, socket_options } = proto;
        let name = "extra_source_addresses";
        let source = problems.element(name, index, |problems| {
            let options = match socket_options {
                None => options.clone(),
                Some(core::SocketOptionsOverride { socket_options }) => problems
                    .field("socket_options", |problems| {
                        socket_option::list(problems, "socket_options", socket_options)
                    }),
            };
            let address = required(problems, "address", address)?;
            let address =
                problems.field("address", |problems| source_address_of(problems, address))?;
            Some(Source { address, options })
        });
        extra(problems, name, index, source);
    }
    for (index, proto) in additional_source_addresses.into_iter().enumerate() {
        let name = "additional_source_addresses";
        let address = problems.element(name, index, |problems| source_address_of(problems, proto));
        let source = address.map(|address| Source { address, options: options.clone() });
        extra(problems, name, index, source);
    }
    let freebind = freebind.map(|on| boolean(Some(on), false));
    Some(BindConfig { sources, freebind, options })
}

fn source_address_of(problems: &mut Problems, proto: core::SocketAddress) -> Option<SocketAddr> {
    let (host, port) = socket_address(problems, proto)?;
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => {
            problems.reject_field("address", format!("{host:?} is not an IP address"));
            None
        }
    }
}
