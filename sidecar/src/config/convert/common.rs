//! What every conversion needs: unset and required fields, durations, enumerations, `Any`, addresses.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::r#type::v3 as types;
use outrigger_proto::google::protobuf::{Any, BoolValue, Duration as DurationProto, UInt32Value};
use outrigger_proto::json::TypedStruct;
pub(super) use outrigger_proto::json::json_object;
use prost::Name;

use crate::config::Problems;
use crate::config::address::{Address, MAX_PIPE_PATH};

/// Whether a proto field says something.
pub(super) trait Present {
    fn is_present(&self) -> bool;
}

impl<T> Present for Option<T> {
    fn is_present(&self) -> bool {
        self.is_some()
    }
}

impl<T> Present for Vec<T> {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> Present for HashMap<K, V> {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl Present for String {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl Present for bool {
    fn is_present(&self) -> bool {
        *self
    }
}

impl Present for u32 {
    fn is_present(&self) -> bool {
        *self != 0
    }
}

/// Refuses each of the named fields that says something. The name of the variable is the name of the field.
macro_rules! unsupported {
    ($problems:expr; $($field:ident),+ $(,)?) => {
        $( $problems.unsupported(
            stringify!($field),
            $crate::config::convert::common::Present::is_present(&$field),
        ); )+
    };
}
pub(super) use unsupported;

/// As [`unsupported`], for wrapped booleans whose absence means `false`: refused only if they are true.
macro_rules! unsupported_if_true {
    ($problems:expr; $($field:ident),+ $(,)?) => {
        $( $problems.unsupported(
            stringify!($field),
            $crate::config::convert::common::boolean($field, false),
        ); )+
    };
}
pub(super) use unsupported_if_true;

pub(super) fn boolean(value: Option<BoolValue>, default: bool) -> bool {
    value.map_or(default, |BoolValue { value }| value)
}

pub(super) fn number(value: Option<UInt32Value>) -> Option<u32> {
    value.map(|UInt32Value { value }| value)
}

/// A number that has to lie in `range` where it is set.
pub(super) fn number_in(
    problems: &mut Problems,
    name: &str,
    value: Option<UInt32Value>,
    range: std::ops::RangeInclusive<u32>,
) -> Option<u32> {
    let value = number(value)?;
    if range.contains(&value) {
        return Some(value);
    }
    let (least, most) = range.into_inner();
    let reason = if most == u32::MAX {
        format!("{value} is too small: at least {least}")
    } else {
        format!("{value} is out of range: {least} to {most}")
    };
    problems.reject_field(name, reason);
    None
}

pub(super) fn required<T>(problems: &mut Problems, name: &str, value: Option<T>) -> Option<T> {
    if value.is_none() {
        problems.reject_field(name, "required");
    }
    value
}

/// A text that must not be empty.
pub(super) fn text(problems: &mut Problems, name: &str, value: String) -> String {
    if value.is_empty() {
        problems.reject_field(name, "must not be empty");
    }
    value
}

/// The configuration of an extension. Its type says which one it is, and it must have a name all the same, as in Envoy.
pub(super) fn typed_config(
    problems: &mut Problems,
    proto: core::TypedExtensionConfig,
) -> Option<Any> {
    let core::TypedExtensionConfig { name, typed_config } = proto;
    text(problems, "name", name);
    required(problems, "typed_config", typed_config)
}

/// A status that Envoy's enumeration of them has.
pub(super) fn http_status(
    problems: &mut Problems,
    name: &str,
    proto: Option<types::HttpStatus>,
) -> Option<StatusCode> {
    let types::HttpStatus { code } = proto?;
    let known = types::StatusCode::try_from(code).is_ok_and(|it| it != types::StatusCode::Empty);
    let status = u16::try_from(code).ok().filter(|_| known);
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    if status.is_none() {
        problems.field(name, |problems| {
            problems.reject_field("code", format!("{code} is not one of the values"));
        });
    }
    status
}

/// `None` for an empty text.
pub(super) fn optional(value: String) -> Option<Box<str>> {
    (!value.is_empty()).then(|| value.into())
}

/// The longest `google.protobuf.Duration`: about ten thousand years.
const MAX_SECONDS: i64 = 315_576_000_000;

/// A duration; negative ones and ones that are not well-formed are refused, as Envoy does wherever it reads one.
pub(super) fn duration(
    problems: &mut Problems,
    name: &str,
    value: Option<DurationProto>,
) -> Option<Duration> {
    let DurationProto { seconds, nanos } = value?;
    let well_formed = (-MAX_SECONDS..=MAX_SECONDS).contains(&seconds)
        && (-999_999_999..=999_999_999).contains(&nanos);
    if !well_formed {
        problems.reject_field(name, "not a valid duration");
        return None;
    }
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            problems.reject_field(name, "must not be negative");
            None
        }
    }
}

/// A duration that must be more than zero where it is set.
pub(super) fn positive_duration(
    problems: &mut Problems,
    name: &str,
    value: Option<DurationProto>,
) -> Option<Duration> {
    let value = duration(problems, name, value)?;
    if value.is_zero() {
        problems.reject_field(name, "must be more than zero");
        return None;
    }
    Some(value)
}

/// A time limit: unset means `default`, zero means none.
pub(super) fn limit(
    problems: &mut Problems,
    name: &str,
    value: Option<DurationProto>,
    default: Option<Duration>,
) -> Option<Duration> {
    if value.is_none() {
        return default;
    }
    duration(problems, name, value).filter(|limit| !limit.is_zero())
}

/// The value of an enumeration; a number without a name is refused.
pub(super) fn enumeration<E: TryFrom<i32>>(
    problems: &mut Problems,
    name: &str,
    value: i32,
) -> Option<E> {
    let known = E::try_from(value).ok();
    if known.is_none() {
        problems.reject_field(name, format!("{value} is not one of the values"));
    }
    known
}

/// What an `Any` holds, which has to be an `M`. Problems are reported where the collector stands.
pub(super) fn unpack<M: Name + Default>(problems: &mut Problems, any: &Any) -> Option<M> {
    match any::unpack(any) {
        Ok(message) => Some(message),
        Err(error) => {
            problems.reject(error.to_string());
            None
        }
    }
}

/// Refuses an extension of a type that we do not have, naming what we have.
pub(super) fn unknown_type(problems: &mut Problems, any: &Any, supported: &[&str]) {
    let inner = TypedStruct::within(any).map(|inner| inner.type_url);
    let name = any::message_name(inner.as_deref().unwrap_or(&any.type_url));
    let name = if name.is_empty() { "a message without a type" } else { name };
    problems.reject(format!(
        "{name} is not supported by this version of Outrigger, which has {}",
        supported.join(", ")
    ));
}

/// A hash of what a configuration means. Two protos that differ only in what we ignore, or in the order of a map, have
/// the same; files that are named in them count with their content, because it was read during the conversion.
pub(super) fn fingerprint(value: &impl Debug) -> u64 {
    struct Sink(DefaultHasher);
    impl Write for Sink {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut sink = Sink(DefaultHasher::new());
    // Writing into a hasher cannot fail, and a `Debug` that fails by itself would fail the same way each time.
    let _ = write!(sink, "{value:?}");
    sink.0.finish()
}

pub(super) fn header_name(problems: &mut Problems, name: &str, value: &str) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(value.as_bytes()).ok();
    if parsed.is_none() {
        problems.reject_field(name, format!("{value:?} is not a valid header name"));
    }
    parsed
}

pub(super) fn header_value(
    problems: &mut Problems,
    name: &str,
    value: &[u8],
) -> Option<HeaderValue> {
    let parsed = HeaderValue::from_bytes(value).ok();
    if parsed.is_none() {
        problems.reject_field(name, "contains a character that no header value may have");
    }
    parsed
}

/// `None` for an empty text, else a header value.
pub(super) fn optional_header_value(
    problems: &mut Problems,
    name: &str,
    value: &str,
) -> Option<HeaderValue> {
    if value.is_empty() { None } else { header_value(problems, name, value.as_bytes()) }
}

/// Host and port of a TCP address, before anyone asks whether the host is an IP address.
pub(super) fn host_and_port(
    problems: &mut Problems,
    address: core::Address,
) -> Option<(String, u16)> {
    let core::Address { address } = address;
    match address {
        None => {
            problems.reject_field("socket_address", "required");
            None
        }
        Some(core::address::Address::Pipe(_)) => {
            problems.unsupported("pipe", true);
            None
        }
        Some(core::address::Address::EnvoyInternalAddress(_)) => {
            problems.unsupported("envoy_internal_address", true);
            None
        }
        Some(core::address::Address::SocketAddress(socket)) => {
            problems.field("socket_address", |problems| socket_address(problems, socket))
        }
    }
}

pub(super) fn socket_address(
    problems: &mut Problems,
    proto: core::SocketAddress,
) -> Option<(String, u16)> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = proto;
    unsupported!(problems; resolver_name, ipv4_compat, network_namespace_filepath);
    let protocol = enumeration(problems, "protocol", protocol);
    if protocol == Some(core::socket_address::Protocol::Udp) {
        problems.reject_field("protocol", "UDP is not supported by this version of Outrigger");
    }
    let address = text(problems, "address", address);
    let port = match port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => match u16::try_from(port) {
            Ok(port) => Some(port),
            Err(_) => {
                problems.reject_field("port_value", format!("{port} is not a port: 0 to 65535"));
                None
            }
        },
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
            problems.unsupported("named_port", true);
            None
        }
        None => {
            problems.reject_field("port_value", "required");
            None
        }
    }?;
    (!address.is_empty()).then_some((address, port))
}

/// An IP address and port.
pub(super) fn ip_and_port(problems: &mut Problems, address: core::Address) -> Option<SocketAddr> {
    let (host, port) = host_and_port(problems, address)?;
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => {
            problems.field("socket_address", |problems| {
                problems.reject_field("address", format!("{host:?} is not an IP address"));
            });
            None
        }
    }
}

/// An IP address and port, or a Unix domain socket with the mode of its file.
pub(super) fn address(
    problems: &mut Problems,
    proto: core::Address,
) -> Option<(Address, Option<u32>)> {
    if let Some(core::address::Address::Pipe(proto)) = proto.address {
        let (path, mode) = problems.field("pipe", |problems| pipe(problems, proto))?;
        return Some((Address::Pipe(path), mode));
    }
    ip_and_port(problems, proto).map(|address| (Address::Ip(address), None))
}

/// A Unix domain socket, and the mode of its file where that is set.
fn pipe(problems: &mut Problems, proto: core::Pipe) -> Option<(Arc<str>, Option<u32>)> {
    let core::Pipe { path, mode } = proto;
    let path = text(problems, "path", path);
    if path.len() > MAX_PIPE_PATH {
        problems.reject_field("path", format!("is longer than {MAX_PIPE_PATH} bytes"));
    } else if path.contains('\0') || path == "@" {
        problems.reject_field("path", format!("{path:?} names no socket"));
    } else if mode > 0o777 {
        problems.reject_field("mode", format!("{mode} is out of range: 0 to 511"));
    } else if mode != 0 && path.starts_with('@') {
        problems.reject_field("mode", "a name that begins with @ has no file that could have one");
    } else if !path.is_empty() {
        return Some((path.into(), (mode != 0).then_some(mode)));
    }
    None
}

/// A range of addresses in a field. As in Envoy a missing length is 0, which is every address.
pub(super) fn cidr(problems: &mut Problems, name: &str, proto: core::CidrRange) -> Option<IpNet> {
    problems.field(name, |problems| cidr_range(problems, proto))
}

/// A range of addresses, as [`cidr`].
pub(super) fn cidr_range(problems: &mut Problems, proto: core::CidrRange) -> Option<IpNet> {
    let core::CidrRange { address_prefix, prefix_len } = proto;
    let Ok(address) = address_prefix.parse::<IpAddr>() else {
        problems.reject_field("address_prefix", format!("{address_prefix:?} is not an IP address"));
        return None;
    };
    let length = number(prefix_len).unwrap_or(0);
    let range = u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok());
    if range.is_none() {
        problems.reject_field("prefix_len", format!("{length} is too long for {address}"));
    }
    range.map(|range| range.trunc())
}

/// The entries of a map in the order of their keys, so that problems come out in the same order each time.
pub(super) fn sorted<V>(map: HashMap<String, V>) -> Vec<(String, V)> {
    let mut entries: Vec<_> = map.into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries
}
