//! What is done to the headers of every request before anything decides by them, and of every response before it leaves.
//!
//! hyper keeps the framing right; the rules of a proxy are here: `Host` ([`host`]), hop-by-hop headers ([`hop_by_hop`]),
//! forwarding headers ([`forwarding`], [`client_cert`]), request ids ([`mod@request_id`]), and what a client may not say.
//! Rules and order are Envoy's (`ConnectionManagerUtility::mutateRequestHeaders`).
//!
//! One pass over the headers notes which of the special ones are there ([`Seen`]). Only those are touched: a request that
//! has none of them costs that pass and nothing else.

mod accept;
mod client_cert;
mod forwarding;
mod hop_by_hop;
mod host;
mod names;
mod request_id;
mod response;
mod seen;
mod trailers;

use http::header::HeaderValue;

pub(crate) use accept::{Accepted, CONNECT, Peer, Refused, accept};
pub(crate) use forwarding::{append as append_forwarded_for, name_us};
pub(crate) use host::host_of;
pub(crate) use names::*;
pub(crate) use response::{clean_response, finish_response};
pub(crate) use seen::Seen;
pub(crate) use trailers::clean_trailers;

/// A number as a header value. Small ones, of which there is one in most responses, cost nothing.
pub(crate) fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 21] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
        "17", "18", "19", "20",
    ];
    let small = usize::try_from(number).ok().and_then(|number| SMALL.get(number));
    small.map_or_else(|| HeaderValue::from(number), |text| HeaderValue::from_static(text))
}

/// A copy that shares its bytes with nobody: cloning a value of the configuration would make all workers write to the one
/// count of its bytes.
pub(crate) fn own(value: &HeaderValue) -> HeaderValue {
    if value == "envoy" {
        return HeaderValue::from_static("envoy");
    }
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}
