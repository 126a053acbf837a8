//! What is done to the headers of every response.

use http::header::{self, HeaderMap, HeaderValue};

use super::Seen;
use super::forwarding::append_via;
use super::hop_by_hop::remove_hop_by_hop;
use crate::config::http_connection_manager::{HttpConnectionManager, ServerHeader};

/// Removes from a response what was meant for our connection to its server, and a `Content-Length` beside a
/// `Transfer-Encoding`.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    let seen = Seen::of(headers);
    if !seen.any(Seen::HOP_BY_HOP) {
        return;
    }
    if seen.any(Seen::TRANSFER_ENCODING) && seen.any(Seen::CONTENT_LENGTH) {
        headers.remove(header::CONTENT_LENGTH);
    }
    // A server may name what it likes; what is protected stays.
    if remove_hop_by_hop(headers, seen).is_err() {
        headers.remove(header::CONNECTION);
        // Cannot fail without `Connection`.
        let _ = remove_hop_by_hop(headers, seen.without(Seen::CONNECTION));
    }
    if seen.any(Seen::TE) {
        headers.remove(header::TE);
    }
}

/// Puts `server`, `via` and what else every response of this connection manager has.
pub(crate) fn finish_response(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    server_name: &HeaderValue,
) {
    match config.server_header {
        ServerHeader::Overwrite => {
            headers.insert(header::SERVER, server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            headers.entry(header::SERVER).or_insert_with(|| server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(via) = &config.via {
        append_via(headers, via);
    }
}
