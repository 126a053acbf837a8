//! Listener filters, and the connections that they leave alone.

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::proxy_protocol_config::Version;
use outrigger_proto::envoy::config::listener::v3 as proto;
use outrigger_proto::envoy::config::listener::v3::listener_filter::ConfigType;
use outrigger_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use outrigger_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use outrigger_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use outrigger_proto::envoy::extensions::filters::listener::proxy_protocol::v3 as proxy_protocol;
use outrigger_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use outrigger_proto::envoy::r#type::v3::Int32Range;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::listener_filter::{
    ListenerFilter, ListenerFilterKind, Predicate, ProxyProtocol,
};

use super::common::{enumeration, text, unknown_type, unpack, unsupported, unsupported_if_true};
use super::proxy_protocol::types;

/// One filter of a listener.
pub(super) fn convert(
    problems: &mut Problems,
    proto: proto::ListenerFilter,
) -> Option<ListenerFilter> {
    let proto::ListenerFilter { name, filter_disabled, config_type } = proto;
    text(problems, "name", name);
    let disabled = filter_disabled
        .and_then(|proto| problems.field("filter_disabled", |problems| predicate(problems, proto)));
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(_)) => {
            problems.unsupported("config_discovery", true);
            return None;
        }
        None => {
            problems.reject_field("typed_config", "required");
            return None;
        }
    };
    let kind = problems.field("typed_config", |problems| kind(problems, &config))?;
    Some(ListenerFilter { kind, disabled })
}

fn kind(problems: &mut Problems, config: &Any) -> Option<ListenerFilterKind> {
    if any::holds::<TlsInspector>(config) {
        let TlsInspector {
            enable_ja3_fingerprinting,
            enable_ja4_fingerprinting,
            initial_read_buffer_size: _, // how its buffer grows; changes no outcome
            close_connection_on_client_hello_parsing_errors,
            max_client_hello_size,
        } = unpack(problems, config)?;
        unsupported!(problems;
            close_connection_on_client_hello_parsing_errors, max_client_hello_size);
        unsupported_if_true!(problems; enable_ja3_fingerprinting, enable_ja4_fingerprinting);
        return Some(ListenerFilterKind::TlsInspector);
    }
    if any::holds::<HttpInspector>(config) {
        let HttpInspector {} = unpack(problems, config)?;
        return Some(ListenerFilterKind::HttpInspector);
    }
    if any::holds::<OriginalDst>(config) {
        let OriginalDst {} = unpack(problems, config)?;
        return Some(ListenerFilterKind::OriginalDst);
    }
    if any::holds::<proxy_protocol::ProxyProtocol>(config) {
        let proto = unpack(problems, config)?;
        return proxy_protocol(problems, proto).map(ListenerFilterKind::ProxyProtocol);
    }
    let supported = ["TlsInspector", "HttpInspector", "OriginalDst", "ProxyProtocol"];
    unknown_type(problems, config, &supported);
    None
}

fn proxy_protocol(
    problems: &mut Problems,
    proto: proxy_protocol::ProxyProtocol,
) -> Option<ProxyProtocol> {
    let proxy_protocol::ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location: _, // of rules, which are refused
    } = proto;
    unsupported!(problems; rules);
    let mut config = ProxyProtocol {
        allow_requests_without_proxy_protocol,
        version_1: true,
        version_2: true,
        keeps: types(problems, pass_through_tlvs),
        stat_prefix: stat_prefix.into(),
    };
    for (index, version) in disallowed_versions.into_iter().enumerate() {
        match enumeration(problems, &format!("disallowed_versions[{index}]"), version)? {
            Version::V1 => config.version_1 = false,
            Version::V2 => config.version_2 = false,
        }
    }
    if !config.version_1 && !config.version_2 {
        problems.reject_field("disallowed_versions", "must leave one version");
    }
    Some(config)
}

fn predicate(
    problems: &mut Problems,
    proto: proto::ListenerFilterChainMatchPredicate,
) -> Option<Predicate> {
    let proto::ListenerFilterChainMatchPredicate { rule } = proto;
    let mut set = |name: &str, set: MatchSet| {
        let MatchSet { rules } = set;
        problems.field(name, |problems| {
            if rules.len() < 2 {
                problems.reject_field("rules", "must have at least two entries");
            }
            let each = |(index, rule)| {
                problems.element("rules", index, |problems| predicate(problems, rule))
            };
            rules.into_iter().enumerate().map(each).collect::<Option<Vec<_>>>()
        })
    };
    match rule {
        Some(Rule::OrMatch(rules)) => set("or_match", rules).map(Predicate::Or),
        Some(Rule::AndMatch(rules)) => set("and_match", rules).map(Predicate::And),
        Some(Rule::NotMatch(rule)) => problems
            .field("not_match", |problems| predicate(problems, *rule))
            .map(|rule| Predicate::Not(Box::new(rule))),
        Some(Rule::AnyMatch(true)) => Some(Predicate::Any),
        Some(Rule::AnyMatch(false)) => {
            problems.reject_field("any_match", "must be true");
            None
        }
        Some(Rule::DestinationPortRange(Int32Range { start, end })) => {
            Some(Predicate::DestinationPorts { start, end })
        }
        None => {
            problems.reject(
                "says nothing: one of or_match, and_match, not_match, any_match, destination_port_range is required",
            );
            None
        }
    }
}
