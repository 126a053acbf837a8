//! Socket options.

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::socket_option::{
    SocketIpVersion, SocketState, SocketType, Value, socket_type,
};

use crate::config::Problems;
use crate::config::socket_option::{KNOWN, SocketOption, State, What};

use super::common::enumeration;

/// The socket options in a field.
pub(super) fn list(
    problems: &mut Problems,
    name: &str,
    protos: Vec<core::SocketOption>,
) -> Vec<SocketOption> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| option(problems, proto))
        })
        .collect()
}

fn option(problems: &mut Problems, proto: core::SocketOption) -> Option<SocketOption> {
    let core::SocketOption {
        description: _, // for people
        level,
        name,
        state,
        r#type,
        ip_version,
        value,
    } = proto;
    let state = match enumeration(problems, "state", state)? {
        SocketState::StatePrebind => State::Prebind,
        SocketState::StateBound => State::Bound,
        SocketState::StateListening => State::Listening,
    };
    let ipv6 = match enumeration(problems, "ip_version", ip_version)? {
        SocketIpVersion::Unspecified => None,
        SocketIpVersion::Ipv4 => Some(false),
        SocketIpVersion::Ipv6 => Some(true),
    };
    if !KNOWN.iter().any(|(known, of, _)| (*known, *of) == (level, name)) {
        let names: Vec<&str> = KNOWN.iter().map(|(_, _, name)| *name).collect();
        problems.reject_field(
            "name",
            format!(
                "option {name} of level {level} is not supported by this version of Outrigger, which has {}",
                names.join(", ")
            ),
        );
        return None;
    }
    let (field, what) = match &value {
        Some(Value::IntValue(number)) => ("int_value", What::of_number(level, name, *number)),
        Some(Value::BufValue(bytes)) => ("buf_value", What::of_bytes(level, name, bytes)),
        None => {
            problems.reject("one of int_value, buf_value is required");
            return None;
        }
    };
    if what.is_none() {
        problems.reject_field(field, "not a value of this option");
    }
    // Every socket here is a stream; an option for datagrams is for none.
    let SocketType { stream, datagram } = r#type.unwrap_or_default();
    let is_for_streams = match (stream, datagram) {
        (Some(socket_type::Stream {}), _) | (None, None) => true,
        (None, Some(socket_type::Datagram {})) => false,
    };
    what.filter(|_| is_for_streams).map(|what| SocketOption { what, state, ipv6 })
}
