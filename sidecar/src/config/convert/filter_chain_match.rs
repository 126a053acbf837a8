//! Which connections a filter chain takes.

use std::collections::HashMap;

use ipnet::IpNet;
use outrigger_proto::envoy::config::core::v3::CidrRange;
use outrigger_proto::envoy::config::listener::v3 as proto;
use outrigger_proto::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;

use crate::config::Problems;
use crate::config::listener::{
    FilterChain, FilterChainMatch, ServerNamePattern, SourceType, TransportProtocol,
};

use super::common::{cidr_range, enumeration, number_in, unsupported};

/// The criteria of a chain.
pub(super) fn convert(problems: &mut Problems, proto: proto::FilterChainMatch) -> FilterChainMatch {
    let proto::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = proto;
    // Envoy refuses both as well.
    unsupported!(problems; address_suffix, suffix_len);
    let destination_port = number_in(problems, "destination_port", destination_port, 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    let server_names = server_names
        .into_iter()
        .enumerate()
        .filter_map(|(index, name)| {
            problems.element("server_names", index, |problems| server_name(problems, &name))
        })
        .collect();
    let transport_protocol = match transport_protocol.as_str() {
        "" => None,
        "raw_buffer" => Some(TransportProtocol::RawBuffer),
        "tls" => Some(TransportProtocol::Tls),
        other => {
            problems.reject_field(
                "transport_protocol",
                format!("{other:?} is not supported by this version of Outrigger: raw_buffer, tls"),
            );
            None
        }
    };
    let application_protocols = application_protocols
        .into_iter()
        .map(|protocol| protocol.into_bytes().into_boxed_slice())
        .collect();
    let source_type = match enumeration(problems, "source_type", source_type) {
        Some(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
        Some(ConnectionSourceType::External) => SourceType::External,
        Some(ConnectionSourceType::Any) | None => SourceType::Any,
    };
    let source_ports = source_ports
        .into_iter()
        .enumerate()
        .filter_map(|(index, port)| {
            problems.element("source_ports", index, |problems| match u16::try_from(port) {
                Ok(port @ 1..) => Some(port),
                _ => {
                    problems.reject(format!("{port} is not a port: 1 to 65535"));
                    None
                }
            })
        })
        .collect();
    FilterChainMatch {
        destination_port,
        prefix_ranges: ranges(problems, "prefix_ranges", prefix_ranges),
        server_names,
        transport_protocol,
        application_protocols,
        direct_source_prefix_ranges: ranges(
            problems,
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
        ),
        source_type,
        source_prefix_ranges: ranges(problems, "source_prefix_ranges", source_prefix_ranges),
        source_ports,
    }
}

fn ranges(problems: &mut Problems, name: &str, protos: Vec<CidrRange>) -> Vec<IpNet> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| cidr_range(problems, proto))
        })
        .collect()
}

fn server_name(problems: &mut Problems, name: &str) -> Option<ServerNamePattern> {
    let name = name.to_ascii_lowercase();
    let (rest, is_suffix) = match name.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => (rest, true),
        _ => (name.as_str(), false),
    };
    if rest.contains('*') {
        problems.reject(format!("{name:?}: a star may only stand in front, as *.example.com"));
        return None;
    }
    if rest.is_empty() || rest == "." {
        problems.reject(format!("{name:?} is not a server name"));
        return None;
    }
    Some(if is_suffix {
        ServerNamePattern::Suffix(rest.into())
    } else {
        ServerNamePattern::Exact(rest.into())
    })
}

/// No connection may fit two chains equally well: each combination of criteria stands in one chain only.
pub(super) fn unique(problems: &mut Problems, chains: &[(usize, FilterChain)]) {
    let mut seen = HashMap::new();
    for (index, chain) in chains {
        for combination in chain.matches.combinations() {
            if let Some(first) = seen.insert(combination, *index) {
                problems.element("filter_chains", index, |problems| {
                    problems.reject_field(
                        "filter_chain_match",
                        if first == *index {
                            "names one criterion twice".to_owned()
                        } else {
                            format!("matches the same connections as filter_chains[{first}]")
                        },
                    );
                });
                // One report for a chain, however many of its combinations are taken.
                break;
            }
        }
    }
}
