//! Short ways to write protos.

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, TransportSocket,
    address, config_source, socket_address, transport_socket,
};
use outrigger_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use outrigger_proto::google::protobuf::{BoolValue, Duration as ProtoDuration, UInt32Value};
use prost::Name;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) fn uint32(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn duration(value: Duration) -> Option<ProtoDuration> {
    Some(ProtoDuration {
        seconds: value.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().try_into().unwrap_or_default(),
    })
}

pub(crate) fn address(address: SocketAddr) -> Option<Address> {
    let socket = SocketAddress {
        address: super::names::ip(address.ip()),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

/// Discovery over the stream that this resource came on.
pub(crate) fn ads() -> Option<ConfigSource> {
    let specifier = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(specifier),
        ..Default::default()
    })
}

pub(crate) fn transport_socket<M: Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack(config))),
    }
}

pub(crate) fn exact(value: &str) -> StringMatcher {
    string(string_matcher::MatchPattern::Exact(value.to_owned()))
}

pub(crate) fn string(pattern: string_matcher::MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

pub(crate) fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}
