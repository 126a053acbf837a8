//! What may stand in trailers.

use http::header::{self, HeaderMap, HeaderName};

use super::hop_by_hop::is_protected;
use super::{KEEP_ALIVE, PROXY_CONNECTION};

/// Removes forbidden fields from trailers. Too many are cut off entirely.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    const MOST: usize = 100;
    if trailers.len() > MOST {
        trailers.clear();
        return;
    }
    if trailers.keys().all(is_allowed_in_trailers) {
        return;
    }
    let forbidden: Vec<HeaderName> =
        trailers.keys().filter(|name| !is_allowed_in_trailers(name)).cloned().collect();
    forbidden.iter().for_each(|name| drop(trailers.remove(name)));
}

/// Whether a field may stand in trailers: nothing that decides about framing, routing or identity (RFC 9110 section 6.5.1).
fn is_allowed_in_trailers(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(is_protected(text)
        || text == "set-cookie"
        || matches!(
            *name,
            header::TRANSFER_ENCODING
                | header::TE
                | header::TRAILER
                | header::CONNECTION
                | header::UPGRADE
                | header::EXPECT
                | header::RANGE
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::PROXY_AUTHORIZATION
                | header::PROXY_AUTHENTICATE
                | header::WWW_AUTHENTICATE
        )
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION)
}
