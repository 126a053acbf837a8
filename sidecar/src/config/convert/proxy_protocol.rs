//! The PROXY protocol towards endpoints, around another transport; and the values that are taken over from clients.

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::proxy_protocol_config::Version as VersionProto;
use outrigger_proto::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use outrigger_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::proxy_protocol::{Tlv, TlvTypes, UpstreamProxyProtocol, Version};

use super::common::{enumeration, required, unpack, unsupported};

/// Most bytes of a value: its length has 16 bits.
const MAX_VALUE: usize = u16::MAX as usize;

/// What endpoints are told, and the transport below it.
pub(super) fn upstream(
    problems: &mut Problems,
    config: &Any,
) -> Option<(UpstreamProxyProtocol, core::TransportSocket)> {
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key: _, // no two clients share a connection here, whatever their values
    } = unpack(problems, config)?;
    unsupported!(problems; allow_unspecified_address);
    let inner = required(problems, "transport_socket", transport_socket);
    let core::ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } =
        config.unwrap_or_default();
    let header = problems.field("config", |problems| {
        let version = enumeration(problems, "version", version)?;
        let added = added_tlvs.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("added_tlvs", index, |problems| added(problems, proto))
        });
        let added: Box<[Tlv]> = added.collect();
        Some(UpstreamProxyProtocol {
            version: match version {
                VersionProto::V1 => Version::One,
                VersionProto::V2 => Version::Two,
            },
            pass_through: types(problems, pass_through_tlvs),
            added,
        })
    });
    Some((header?, inner?))
}

fn added(problems: &mut Problems, proto: core::TlvEntry) -> Option<Tlv> {
    let core::TlvEntry { r#type, value, format_string } = proto;
    unsupported!(problems; format_string);
    if value.len() > MAX_VALUE {
        problems.reject_field("value", format!("is longer than {MAX_VALUE} bytes"));
    }
    Some(Tlv { kind: kind(problems, "type", r#type)?, value: value.into() })
}

fn kind(problems: &mut Problems, name: &str, value: u32) -> Option<u8> {
    let kind = u8::try_from(value).ok();
    if kind.is_none() {
        problems.reject_field(name, format!("{value} is out of range: 0 to 255"));
    }
    kind
}

/// The field `pass_through_tlvs`: none, where it is not set.
pub(super) fn types(
    problems: &mut Problems,
    proto: Option<core::ProxyProtocolPassThroughTlVs>,
) -> TlvTypes {
    let Some(core::ProxyProtocolPassThroughTlVs { match_type, tlv_type }) = proto else {
        return TlvTypes::None;
    };
    problems.field("pass_through_tlvs", |problems| {
        let kinds = tlv_type
            .into_iter()
            .enumerate()
            .filter_map(|(index, value)| kind(problems, &format!("tlv_type[{index}]"), value));
        let kinds = kinds.collect();
        match enumeration(problems, "match_type", match_type) {
            Some(PassTlVsMatchType::IncludeAll) => TlvTypes::All,
            Some(PassTlVsMatchType::Include) => TlvTypes::These(kinds),
            None => TlvTypes::None,
        }
    })
}
