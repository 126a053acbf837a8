//! Whether a request is traced, and how the decision travels in `x-request-id`.
//!
//! The rules are Envoy's: a proxy before us that has decided has left its reason in the id; else the client, or chance, or
//! whoever is trusted to force it decides. Chance is the id itself, so that every proxy that a request passes decides alike.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::headers::X_REQUEST_ID;
use crate::config::tracing::{Sampling, Tracing};

pub(super) const X_CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const X_ENVOY_FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");

/// Length of a UUID, and where in it the reason stands: the digit of its version, which is 4 otherwise.
const UUID: usize = 36;
const REASON_AT: usize = 14;

/// Why a request is traced, or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NotTraceable,
    /// By chance.
    Sampling,
    /// `x-envoy-force-trace`.
    ServiceForced,
    /// `x-client-trace-id`.
    ClientForced,
}

impl Reason {
    /// What stands in the id.
    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }

    fn of(id: &[u8]) -> Self {
        match id.get(REASON_AT) {
            Some(b'9') if id.len() == UUID => Self::Sampling,
            Some(b'a') if id.len() == UUID => Self::ServiceForced,
            Some(b'b') if id.len() == UUID => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }
}

/// Decides, and writes the decision into the request's id.
pub(super) fn decide(headers: &mut HeaderMap, tracing: &Tracing, sampling: &Sampling) -> Reason {
    if !tracing.use_request_id {
        return Reason::Sampling;
    }
    let Some(id) = headers.get(X_REQUEST_ID) else { return Reason::NotTraceable };
    let Some(number) = number(id.as_bytes()) else { return Reason::NotTraceable };
    let before = Reason::of(id.as_bytes());
    let mut reason = before;
    if reason == Reason::NotTraceable {
        let (numerator, denominator) = sampling.client;
        if headers.contains_key(X_CLIENT_TRACE_ID) && fastrand::u32(..denominator) < numerator {
            reason = Reason::ClientForced;
        } else if headers.contains_key(X_ENVOY_FORCE_TRACE) {
            reason = Reason::ServiceForced;
        } else if is_of(number, sampling.random) {
            reason = Reason::Sampling;
        }
    }
    if reason != Reason::NotTraceable && !is_of(number, sampling.overall) {
        reason = Reason::NotTraceable;
    }
    if reason != before && tracing.pack_trace_reason {
        pack(headers, reason);
    }
    reason
}

/// The chance that an id is: its first eight digits.
fn number(id: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(|number| number % 10_000)
}

fn is_of(number: u64, (numerator, denominator): (u32, u32)) -> bool {
    number % u64::from(denominator) < u64::from(numerator)
}

fn pack(headers: &mut HeaderMap, reason: Reason) {
    let Some(id) = headers.get_mut(X_REQUEST_ID) else { return };
    let Ok(mut bytes) = <[u8; UUID]>::try_from(id.as_bytes()) else { return };
    bytes[REASON_AT] = reason.digit();
    if let Ok(packed) = HeaderValue::from_bytes(&bytes) {
        *id = packed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id whose chance is 30 of 10000.
    const ID: &str = "0000001e-8346-491f-9760-6e4165cec4e6";

    fn tracing() -> Tracing {
        Tracing {
            sampling: Sampling::default(),
            verbose: false,
            max_path_tag_length: 256,
            custom_tags: Vec::new(),
            provider: None,
            spawn_upstream_span: false,
            operation: None,
            upstream_operation: None,
            context_propagation: true,
            pack_trace_reason: true,
            use_request_id: true,
        }
    }

    fn headers(id: &str, more: &[HeaderName]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
        more.iter().for_each(|name| {
            headers.insert(name.clone(), HeaderValue::from_static("1"));
        });
        headers
    }

    fn decided(id: &str, more: &[HeaderName], sampling: Sampling) -> (Reason, char) {
        let mut headers = headers(id, more);
        let reason = decide(&mut headers, &tracing(), &sampling);
        let id = headers.get(X_REQUEST_ID).unwrap().to_str().unwrap();
        (reason, id.chars().nth(REASON_AT).unwrap_or('-'))
    }

    const NEVER: Sampling = Sampling { client: (0, 100), random: (0, 100), overall: (100, 100) };

    #[test]
    fn the_id_is_the_chance() {
        let random = |numerator| Sampling { random: (numerator, 10_000), ..NEVER };
        assert_eq!(decided(ID, &[], random(31)), (Reason::Sampling, '9'));
        assert_eq!(decided(ID, &[], random(30)), (Reason::NotTraceable, '4'));
        // A denominator of a hundred looks at the last two digits of the same number.
        let hundred = Sampling { random: (31, 100), ..NEVER };
        assert_eq!(decided(ID, &[], hundred).0, Reason::Sampling);
    }

    #[test]
    fn whoever_decided_before_is_followed_up_to_the_overall_share() {
        for (digit, reason) in
            [('9', Reason::Sampling), ('a', Reason::ServiceForced), ('b', Reason::ClientForced)]
        {
            let id = format!("0000001e-8346-{digit}91f-9760-6e4165cec4e6");
            assert_eq!(decided(&id, &[], NEVER), (reason, digit));
            let nobody = Sampling { overall: (0, 100), ..NEVER };
            assert_eq!(decided(&id, &[], nobody), (Reason::NotTraceable, '4'));
        }
    }

    #[test]
    fn a_client_and_then_a_service_may_force_it() {
        let both = [X_CLIENT_TRACE_ID, X_ENVOY_FORCE_TRACE];
        let all = Sampling { client: (100, 100), ..NEVER };
        assert_eq!(decided(ID, &both, all), (Reason::ClientForced, 'b'));
        assert_eq!(decided(ID, &both, NEVER), (Reason::ServiceForced, 'a'));
        assert_eq!(decided(ID, &both[..1], NEVER), (Reason::NotTraceable, '4'));
    }

    #[test]
    fn an_id_that_is_no_number_is_never_traced() {
        for id in ["short", "0000001g-8346-491f-9760-6e4165cec4e6", "+000001e"] {
            let forced = decided(id, &[X_ENVOY_FORCE_TRACE], Sampling::default()).0;
            assert_eq!(forced, Reason::NotTraceable, "{id}");
        }
        // One that is no UUID has no place for the reason.
        assert_eq!(decided("0000001e1234567", &[], Sampling::default()), (Reason::Sampling, '7'));
    }

    #[test]
    fn the_id_may_be_left_alone_or_out_of_it() {
        let mut headers = headers(ID, &[]);
        let unpacked = Tracing { pack_trace_reason: false, ..tracing() };
        assert_eq!(decide(&mut headers, &unpacked, &Sampling::default()), Reason::Sampling);
        assert_eq!(headers.get(X_REQUEST_ID).unwrap(), ID);
        let independent = Tracing { use_request_id: false, ..tracing() };
        assert_eq!(decide(&mut headers, &independent, &NEVER), Reason::Sampling);
    }
}
