//! Who the client is and how it came here: `x-forwarded-for`, `x-forwarded-proto`, `via`.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};

use ipnet::IpNet;

use super::{
    Peer, Refused, X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, X_ENVOY_DOWNSTREAM_SERVICE_NODE,
    X_ENVOY_EXTERNAL_ADDRESS, X_FORWARDED_FOR, X_FORWARDED_PROTO,
};
use crate::config::client_address::{ClientAddress, TrustedProxies};
use crate::config::http_connection_manager::HttpConnectionManager;
use crate::http::local_reply::Reason;
use crate::http::matching::joined;

/// Whom a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// `None`: at the other end of a Unix domain socket.
    pub(super) client: Option<IpAddr>,
    /// It is one of ours.
    pub(super) internal: bool,
}

/// An address that may be the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// `None`: the other end of a Unix domain socket.
    address: Option<IpAddr>,
    /// No proxy stands between us and it, so it can be one of ours.
    alone: bool,
}

/// Finds out who the client is, and notes in `x-forwarded-for` who the peer is.
///
/// # Errors
/// If the request does not say who it is from, where it has to.
pub(super) fn client(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> Result<Origin, Refused> {
    let direct = peer.address.ip();
    let hops = config.xff_num_trusted_hops as usize;
    let found = if config.use_remote_address {
        let alone = !headers.contains_key(X_FORWARDED_FOR);
        let before = hops.checked_sub(1).and_then(|hop| from_right(headers, hop));
        if let Some(direct) = direct.filter(|_| !config.skip_xff_append) {
            append(headers, direct);
        }
        Some(Found { address: before.map_or(direct, |found| found.address), alone })
    } else if config.client_addresses.is_empty() {
        from_right(headers, hops)
    } else {
        detected(headers, &config.client_addresses, direct)?
    };
    let client = found.map_or(direct, |found| found.address);
    let internal =
        found.is_some_and(|found| found.alone) && config.internal_addresses.contains(client);
    Ok(Origin { client, internal })
}

/// What the first of the configured ways finds.
fn detected(
    headers: &mut HeaderMap,
    ways: &[ClientAddress],
    direct: Option<IpAddr>,
) -> Result<Option<Found>, Refused> {
    for way in ways {
        let found = match way {
            ClientAddress::ForwardedFor { trust, append: appends } => {
                let (found, trusted) = match trust {
                    TrustedProxies::Hops(hops) => (from_right(headers, *hops as usize), true),
                    TrustedProxies::Ranges(ranges)
                        if direct.is_some_and(|direct| contains(ranges, direct)) =>
                    {
                        (behind(headers, ranges), true)
                    }
                    TrustedProxies::Ranges(_) => (None, false),
                };
                // Whoever looks for it behind us has to see a peer that is not trusted.
                if let Some(direct) = direct.filter(|_| *appends || !trusted) {
                    append(headers, direct);
                }
                found
            }
            ClientAddress::Header { name, trusted, reject } => {
                let value = headers.get(name).and_then(|value| value.to_str().ok());
                let address = value.and_then(|value| value.parse().ok());
                if let (None, Some(status)) = (address, reject) {
                    return Err(Refused::new(
                        *status,
                        "rejecting_because_detection_failed",
                        Reason::ClientAddressUnknown,
                    ));
                }
                address.map(|address| Found { address: Some(address), alone: *trusted })
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// Appends the peer to `x-forwarded-for`.
pub(crate) fn append(headers: &mut HeaderMap, peer: IpAddr) {
    let before = joined(headers, &X_FORWARDED_FOR);
    let text = match before.as_deref() {
        Some(before) if !before.is_empty() => {
            let mut text = before.to_vec();
            text.extend_from_slice(format!(",{peer}").as_bytes());
            text
        }
        _ => peer.to_string().into_bytes(),
    };
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// Tells those behind us whom a request from outside comes from.
pub(super) fn name_external_address(headers: &mut HeaderMap, client: IpAddr) {
    if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
    }
}

/// The address that stands so many places from the right in `x-forwarded-for`.
fn from_right(headers: &HeaderMap, skip: usize) -> Option<Found> {
    let all = joined(headers, &X_FORWARDED_FOR)?;
    let mut entries = all.rsplit(|byte| *byte == b',');
    let address = Some(parsed(entries.nth(skip)?)?);
    Some(Found { address, alone: skip == 0 && entries.next().is_none() })
}

/// The last address of `x-forwarded-for` that is no trusted proxy; the first, if all of them are.
fn behind(headers: &HeaderMap, trusted: &[IpNet]) -> Option<Found> {
    let all = joined(headers, &X_FORWARDED_FOR)?;
    let entries = || all.rsplit(|byte| *byte == b',');
    let alone = entries().nth(1).is_none();
    let mut last = None;
    for entry in entries() {
        let address = parsed(entry)?;
        last = Some(Found { address: Some(address), alone });
        if !contains(trusted, address) {
            break;
        }
    }
    last
}

fn parsed(entry: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok()
}

pub(super) fn proto(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> bool {
    let trusted = !config.use_remote_address || config.xff_num_trusted_hops > 0;
    let said = headers.get(X_FORWARDED_PROTO).filter(|_| trusted);
    match said.map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
        Some(_) => peer.tls,
        None => {
            let proto = if peer.tls { "https" } else { "http" };
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
            peer.tls
        }
    }
}

/// Says how the request came, whatever it said and however it did.
pub(super) fn overwrite_proto(headers: &mut HeaderMap, https: bool) -> bool {
    let proto = if https { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    https
}

/// Tells those behind us who we are.
pub(crate) fn name_us(headers: &mut HeaderMap, cluster: &HeaderValue, node: &HeaderValue) {
    headers.insert(X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, cluster.clone());
    if headers.get(header::USER_AGENT).is_none_or(HeaderValue::is_empty) {
        headers.insert(header::USER_AGENT, cluster.clone());
    }
    if !node.is_empty() {
        headers.insert(X_ENVOY_DOWNSTREAM_SERVICE_NODE, node.clone());
    }
}

pub(super) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let text = match joined(headers, &header::VIA) {
        Some(before) => [&before, b", ".as_slice(), via.as_bytes()].concat(),
        None => return drop(headers.insert(header::VIA, via.clone())),
    };
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(header::VIA, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static(value))])
    }

    #[test]
    fn an_entry_counts_alone_only_if_it_is_the_only_one() {
        for (value, skip, expected) in [
            ("10.0.0.1", 0, Some(("10.0.0.1", true))),
            ("10.0.0.1, 10.0.0.2", 0, Some(("10.0.0.2", false))),
            ("10.0.0.1, 10.0.0.2", 1, Some(("10.0.0.1", false))),
            ("10.0.0.1", 1, None),
            ("::1", 0, Some(("::1", true))),
            ("10.0.0.1:80", 0, None),
            ("", 0, None),
        ] {
            let expected =
                expected.map(|(address, alone)| Found { address: address.parse().ok(), alone });
            assert_eq!(from_right(&forwarded(value), skip), expected, "{value} {skip}");
        }
    }

    #[test]
    fn the_client_is_behind_all_trusted_proxies() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (value, expected) in [
            ("1.1.1.1, 2.2.2.2, 10.0.0.1", Some("2.2.2.2")),
            ("10.0.0.2, 10.0.0.1", Some("10.0.0.2")),
            ("1.1.1.1, nobody, 10.0.0.1", None),
            ("nobody, 1.1.1.1", Some("1.1.1.1")),
        ] {
            let found = behind(&forwarded(value), &trusted);
            assert_eq!(
                found.and_then(|found| found.address).map(|it| it.to_string()).as_deref(),
                expected,
                "{value}"
            );
        }
    }
}
