//! What is said of the endpoints that a request was sent to.
//!
//! Envoy has lists for this, and begins them anew with each attempt; an endpoint is in its list once there is a connection
//! to it. So it is the endpoint of the last attempt, or nothing.

use super::operator::{Value, address, ip, push_number, text, without_port};
use super::record::LogRecord;
use crate::config::access_log::{Attempted, Side};

/// `%UPSTREAM_HOSTS_ATTEMPTED%` and the like
pub(super) fn attempted<'a>(what: Attempted, record: &LogRecord<'a>) -> Value<'a> {
    let Some(connection) = record.upstream else { return Value::Missing };
    let host = record.upstream_host.as_ref();
    match (what, record.upstream_host_name) {
        (Attempted::ConnectionIds, _) => {
            let mut out = Vec::new();
            push_number(&mut out, connection.id);
            Value::Owned(out)
        }
        (Attempted::HostNames, Some(name)) => text(Some(name)),
        (Attempted::HostNamesWithoutPort, Some(name)) => text(Some(without_port(name))),
        (Attempted::Hosts | Attempted::HostNames, _) => address(host),
        (Attempted::HostsWithoutPort | Attempted::HostNamesWithoutPort, _) => ip(host),
    }
}

/// `%UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID%` and the like: an address that is not internal has an empty one.
pub(super) fn endpoint_id<'a>(side: Side, record: &LogRecord<'_>) -> Value<'a> {
    let has_address = match side {
        Side::DownstreamLocal => record.downstream_local.is_some(),
        Side::UpstreamRemote => record.upstream.is_some(),
    };
    if has_address { Value::Text(b"") } else { Value::Missing }
}
