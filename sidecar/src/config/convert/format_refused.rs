//! Command operators that Envoy has and we do not: it is told apart from what is no operator at all, with its reason.

/// Prefixes and suffixes of their names, and why.
const REFUSED: &[(&str, &str, &str)] = &[
    ("DOWNSTREAM_", "WIRE_BYTES_RECEIVED", NOT_COUNTED),
    ("DOWNSTREAM_", "WIRE_BYTES_SENT", NOT_COUNTED),
    ("UPSTREAM_", "WIRE_BYTES_RECEIVED", NOT_COUNTED),
    ("UPSTREAM_", "WIRE_BYTES_SENT", NOT_COUNTED),
    ("DOWNSTREAM_", "HEADER_BYTES_RECEIVED", NOT_COUNTED),
    ("DOWNSTREAM_", "HEADER_BYTES_SENT", NOT_COUNTED),
    ("UPSTREAM_", "HEADER_BYTES_RECEIVED", NOT_COUNTED),
    ("UPSTREAM_", "HEADER_BYTES_SENT", NOT_COUNTED),
    ("DOWNSTREAM_", "DETECTED_CLOSE_TYPE", NOT_KNOWN),
    ("UPSTREAM_", "DETECTED_CLOSE_TYPE", NOT_KNOWN),
    ("DOWNSTREAM_", "LOCAL_CLOSE_REASON", NOT_KNOWN),
    ("UPSTREAM_", "LOCAL_CLOSE_REASON", NOT_KNOWN),
    ("DOWNSTREAM_", "TLS_SESSION_ID", NOT_KNOWN),
    ("UPSTREAM_", "TLS_SESSION_ID", NOT_KNOWN),
    ("DOWNSTREAM_", "TRANSPORT_FAILURE_REASON", NOT_KNOWN),
    ("DOWNSTREAM_", "CX_RTT", NOT_KNOWN),
    ("DOWNSTREAM_", "HANDSHAKE_DURATION", NOT_KNOWN),
    ("UPSTREAM_", "CONNECTION_POOL_READY_DURATION", NOT_KNOWN),
    ("UPSTREAM_", "SERVER_NAME", NOT_KNOWN),
    ("UPSTREAM_LOCAL_", "URI_SAN", NOT_READ),
    ("UPSTREAM_LOCAL_", "DNS_SAN", NOT_READ),
    ("UPSTREAM_LOCAL_", "IP_SAN", NOT_READ),
    ("DOWNSTREAM_LOCAL_", "OTHERNAME_SAN", NOT_READ),
    ("DOWNSTREAM_PEER_", "OTHERNAME_SAN", NOT_READ),
    ("DOWNSTREAM_PEER_", "FINGERPRINT_1", "SHA-1 is broken: use %DOWNSTREAM_PEER_FINGERPRINT_256%"),
    ("DOWNSTREAM_PEER_", "ISSUER_FINGERPRINT_256", NOT_READ),
    ("DOWNSTREAM_PEER_", "ISSUER_SERIAL", NOT_READ),
    ("DOWNSTREAM_PEER_CHAIN_", "FINGERPRINTS_1", NOT_READ),
    ("DOWNSTREAM_PEER_CHAIN_", "FINGERPRINTS_256", NOT_READ),
    ("DOWNSTREAM_PEER_CHAIN_", "SERIALS", NOT_READ),
    ("TLS_", "JA3_FINGERPRINT", NOT_KNOWN),
    ("TLS_", "JA4_FINGERPRINT", NOT_KNOWN),
    ("START_TIME", "_LOCAL", "times are in UTC: use %START_TIME%"),
    ("EMIT_TIME", "_LOCAL", "times are in UTC: use %EMIT_TIME%"),
    ("UPSTREAM_", "FILTER_STATE", "nothing here notes filter state of a connection to an endpoint"),
    ("STREAM_INFO_", "REQ", "use %REQ%"),
    ("", "CEL", NO_CEL),
    ("TYPED_", "CEL", NO_CEL),
    ("DYNAMIC_", "MODULE", "modules are not loaded"),
];

const NOT_COUNTED: &str = "bytes of a stream are counted without its framing: use %BYTES_RECEIVED%, %BYTES_SENT%, \
%REQUEST_HEADERS_BYTES%, %RESPONSE_HEADERS_BYTES%";
const NOT_KNOWN: &str = "it is not noted";
const NOT_READ: &str = "it is not read from certificates";
const NO_CEL: &str = "there is no CEL";

/// Why a name that we do not know is refused.
pub(super) fn refused(name: &str) -> String {
    let plain = name.replace("_DECOMPRESSED_HEADER_", "_HEADER_");
    let known = REFUSED
        .iter()
        .find(|(prefix, suffix, _)| plain.strip_prefix(prefix).is_some_and(|rest| rest == *suffix));
    match known {
        Some((_, _, reason)) => format!(
            "the command operator %{name}% is not supported by this version of Outrigger: {reason}"
        ),
        None => format!("%{name}% is not a command operator"),
    }
}
