//! Who the client is and how it came here: `x-forwarded-for`, `x-forwarded-proto`, `via`.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};

use super::{Peer, X_ENVOY_EXTERNAL_ADDRESS, X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::config::http_connection_manager::HttpConnectionManager;
use crate::http::matching::joined;

pub(super) fn client(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    peer: &Peer<'_>,
) -> IpAddr {
    let direct = peer.address.ip().to_canonical();
    let hops = config.xff_num_trusted_hops as usize;
    if !config.use_remote_address {
        return from_right(headers, hops).unwrap_or(direct);
    }
    let client = hops.checked_sub(1).and_then(|hop| from_right(headers, hop)).unwrap_or(direct);
    if !config.skip_xff_append {
        let before = joined(headers, &X_FORWARDED_FOR);
        let text = match before.as_deref() {
            Some(before) if !before.is_empty() => {
                let mut text = before.to_vec();
                text.extend_from_slice(format!(",{direct}").as_bytes());
                text
            }
            _ => direct.to_string().into_bytes(),
        };
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
    }
    client
}

/// The address that stands so many places from the right in `x-forwarded-for`.
fn from_right(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let all = joined(headers, &X_FORWARDED_FOR)?;
    let entry = all.rsplit(|byte| *byte == b',').nth(skip)?;
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

pub(super) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let text = match joined(headers, &header::VIA) {
        Some(before) => [&before, b", ".as_slice(), via.as_bytes()].concat(),
        None => return drop(headers.insert(header::VIA, via.clone())),
    };
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(header::VIA, value);
    }
}
