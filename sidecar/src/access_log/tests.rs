//! Lines against those that Envoy 1.40 wrote for the same requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::json::Compiled;
use super::*;
use crate::config::access_log::{AccessLog, Format, JsonFormat, LineFormat, Output, Sink};
use crate::config::address::Address;

const ENDPOINT: Address = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18099));

fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &[u8])| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

/// A request that went upstream.
fn upstream<'a>(request: &'a HeaderMap, response: &'a HeaderMap) -> LogRecord<'a> {
    LogRecord {
        protocol: Some(Version::HTTP_11),
        method: Some("GET"),
        path: Some("/up/a"),
        authority: Some("ex.com"),
        scheme: Some("http"),
        response_code: Some(201),
        response_code_details: Some("via_upstream"),
        bytes_sent: 3,
        duration: Some(Duration::from_micros(900)),
        request_duration: Some(Duration::ZERO),
        response_duration: Some(Duration::from_micros(1800)),
        response_tx_duration: Some(Duration::ZERO),
        upstream_host: Some(ENDPOINT),
        upstream_cluster: Some("u"),
        upstream: Some(UpstreamConnection {
            id: 7,
            local: Some(([127, 0, 0, 1], 32930).into()),
            remote: &ENDPOINT,
            protocol: Some(Version::HTTP_11),
            tls_version: None,
            tls_group: None,
            tls_cipher: None,
            peer: None,
        }),
        attempt_count: 1,
        downstream_remote: Some(([127, 0, 0, 1], 38258).into()),
        downstream_direct_remote: Some(([127, 0, 0, 1], 38258).into()),
        downstream_local: Some(([127, 0, 0, 1], 41003).into()),
        filter_chain_name: Some("fc"),
        connection_id: Some(2),
        stream_id: Some("e5550908-03da-4021-b93d-0207c2cda02c"),
        request_headers: Headers::Map(request),
        response_headers: Headers::Map(response),
        ..LogRecord::new(UNIX_EPOCH + Duration::new(1_795_503_671, 822_985_000))
    }
}

fn text(format: &str, record: &LogRecord<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    render(&Format::parse(format).unwrap(), record, b"-", &mut out);
    out
}

fn object(fields: &[(&str, JsonFormat)]) -> JsonFormat {
    JsonFormat::Object(fields.iter().map(|(key, field)| ((*key).into(), field.clone())).collect())
}

fn value(format: &str) -> JsonFormat {
    JsonFormat::Value(Format::parse(format).unwrap())
}

fn json(format: &JsonFormat, record: &LogRecord<'_>) -> String {
    let mut out = Vec::new();
    Compiled::new(format).render(record, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_format_is_that_of_envoy() {
    const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
        \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
    let request = headers(&[
        ("user-agent", b"ua \"q\" \\ \t|"),
        ("x-request-id", b"e5550908-03da-4021-b93d-0207c2cda02c"),
    ]);
    let response = headers(&[("x-envoy-upstream-service-time", b"0")]);
    let line = text(DEFAULT, &upstream(&request, &response));
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "[2026-11-24T07:01:11.822Z] \"GET /up/a HTTP/1.1\" 201 - 0 3 0 0 \"-\" \"ua \"q\" \\ \t|\" \
         \"e5550908-03da-4021-b93d-0207c2cda02c\" \"ex.com\" \"127.0.0.1:18099\"\n"
    );
}

/// Every operator that has a value for this request, as Envoy wrote it.
const OPERATORS: &str = "START_TIME=2026-11-24T07:01:11.822Z|PROTOCOL=HTTP/1.1|RESPONSE_CODE=201|\
    RESPONSE_CODE_DETAILS=via_upstream|RESPONSE_FLAGS=-|RESPONSE_FLAGS_LONG=-|BYTES_RECEIVED=0|BYTES_SENT=3|\
    DURATION=0|REQUEST_DURATION=0|RESPONSE_DURATION=1|RESPONSE_TX_DURATION=0|UPSTREAM_HOST=127.0.0.1:18099|\
    UPSTREAM_CLUSTER=u|UPSTREAM_LOCAL_ADDRESS=127.0.0.1:32930|UPSTREAM_TRANSPORT_FAILURE_REASON=-|\
    UPSTREAM_REQUEST_ATTEMPT_COUNT=1|CONNECTION_TERMINATION_DETAILS=-|DOWNSTREAM_REMOTE_ADDRESS=127.0.0.1:38258|\
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT=127.0.0.1|DOWNSTREAM_DIRECT_REMOTE_ADDRESS=127.0.0.1:38258|\
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT=127.0.0.1|DOWNSTREAM_LOCAL_ADDRESS=127.0.0.1:41003|\
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT=127.0.0.1|DOWNSTREAM_LOCAL_PORT=41003|DOWNSTREAM_PEER_URI_SAN=-|\
    DOWNSTREAM_LOCAL_URI_SAN=-|DOWNSTREAM_PEER_SUBJECT=-|DOWNSTREAM_TLS_VERSION=-|DOWNSTREAM_TLS_CIPHER=-|\
    REQUESTED_SERVER_NAME=-|ROUTE_NAME=-|VIRTUAL_CLUSTER_NAME=-|FILTER_CHAIN_NAME=fc|CONNECTION_ID=2|\
    STREAM_ID=e5550908-03da-4021-b93d-0207c2cda02c|GRPC_STATUS=-|GRPC_STATUS_NUMBER=-";

#[test]
fn every_operator_prints_as_in_envoy() {
    let (request, response) = (HeaderMap::new(), HeaderMap::new());
    let record = upstream(&request, &response);
    for pair in OPERATORS.split('|') {
        let (operator, expected) = pair.split_once('=').unwrap();
        let printed = String::from_utf8(text(&format!("%{operator}%"), &record)).unwrap();
        assert_eq!(printed, expected, "{operator}");
    }
}

#[test]
fn in_json_numbers_stay_numbers_and_what_is_not_known_is_null() {
    let (request, response) = (HeaderMap::new(), HeaderMap::new());
    let record = upstream(&request, &response);
    const NUMBERS: [&str; 9] = [
        "RESPONSE_CODE",
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "DURATION",
        "REQUEST_DURATION",
        "RESPONSE_DURATION",
        "RESPONSE_TX_DURATION",
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        "DOWNSTREAM_LOCAL_PORT",
    ];
    for pair in OPERATORS.split('|') {
        let (operator, expected) = pair.split_once('=').unwrap();
        let printed = json(&value(&format!("%{operator}%")), &record);
        let is_number = NUMBERS.contains(&operator) || operator == "CONNECTION_ID";
        let expected = match expected {
            // The flags alone are a dash where there is none.
            "-" if !operator.starts_with("RESPONSE_FLAGS") => "null\n".to_owned(),
            number if is_number => format!("{number}\n"),
            text => format!("\"{text}\"\n"),
        };
        assert_eq!(printed, expected, "{operator}");
    }
}

#[test]
fn headers_fall_back_are_shortened_and_only_their_first_value_is_logged() {
    let mut request = headers(&[("x-a", b"abcdef"), ("x-m", b"one")]);
    request.append("x-m", HeaderValue::from_static("two"));
    let response = headers(&[("content-type", b"a/b")]);
    let record = upstream(&request, &response);
    for (format, expected) in [
        ("%REQ(X-A)%", "abcdef"),
        ("%REQ(X-NO?X-A)%", "abcdef"),
        ("%REQ(X-A):3%", "abc"),
        ("%REQ(X-A):30%", "abcdef"),
        ("%REQ(X-M)%", "one"),
        ("%RESP(:STATUS):2%", "20"),
        ("%RESP(content-type)%", "a/b"),
        ("%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%REQ(:PATH)%", "http://ex.com/up/a"),
        ("a %REQ(nope)% b %RESPONSE_CODE% c", "a - b 201 c"),
        ("100%%", "100%"),
    ] {
        assert_eq!(String::from_utf8(text(format, &record)).unwrap(), expected, "{format}");
    }
}

#[test]
fn json_has_the_shape_of_envoys() {
    let (request, response) = (HeaderMap::new(), HeaderMap::new());
    let format = object(&[
        ("lit", value("plain \"q\" \\ é")),
        ("num", JsonFormat::Fixed(serde_json::json!(5.0))),
        ("frac", JsonFormat::Fixed(serde_json::json!(2.25))),
        ("big", JsonFormat::Fixed(serde_json::json!(1e20))),
        ("bool", JsonFormat::Fixed(serde_json::json!(true))),
        ("nul", JsonFormat::Fixed(serde_json::Value::Null)),
        ("nest", object(&[("b", value("%RESPONSE_CODE%")), ("A", value("%PROTOCOL%"))])),
        ("list", JsonFormat::List([value("%RESPONSE_CODE%"), value("x")].into())),
        ("a\"k", value("v")),
        ("empty", object(&[])),
        ("mixed", value("a %REQ(nope)% b %RESPONSE_CODE% c")),
        ("Z", value("%RESP(:STATUS)%")),
    ]);
    assert_eq!(
        json(&format, &upstream(&request, &response)),
        "{\"Z\":\"201\",\"a\\\"k\":\"v\",\"big\":1e+20,\"bool\":true,\"empty\":{},\"frac\":2.25,\
         \"list\":[201,\"x\"],\"lit\":\"plain \\\"q\\\" \\\\ é\",\"mixed\":\"a - b 201 c\",\
         \"nest\":{\"A\":\"HTTP/1.1\",\"b\":201},\"nul\":null,\"num\":5}\n"
    );
}

#[test]
fn in_json_nothing_a_client_sends_can_end_the_string_or_the_line() {
    for (sent, expected) in [
        // As Envoy wrote them.
        (
            b"\xff\xc3\xa9\x80z\tq\"\\".as_slice(),
            r#""\u00ff\u00c3\u00a9\u0080z\u0009q\u0022\u005c""#,
        ),
        (b"a\tb\"\\/\xc3\xa9\xe2\x80\xa8<>&'", "\"a\\tb\\\"\\\\/é\u{2028}<>&'\""),
        (b"\xff\xe2\x82\xac ab'/<", r#""\u00ff\u00e2\u0082\u00ac ab'/<""#),
        (b"\xf0\x9f\x98\x80", "\"😀\""),
    ] {
        let request = headers(&[("x-a", sent)]);
        let response = HeaderMap::new();
        let record = upstream(&request, &response);
        assert_eq!(json(&value("%REQ(x-a)%"), &record), format!("{expected}\n"));
        let mixed = expected.replacen('"', "\"<", 1);
        assert_eq!(json(&value("<%REQ(x-a)%"), &record), format!("{mixed}\n"));
    }
    // No HTTP codec lets these through; a route name or SNI might have them all the same.
    let record = LogRecord { route_name: Some("a\r\nb\u{1}\u{7f}"), ..LogRecord::new(UNIX_EPOCH) };
    assert_eq!(json(&value("%ROUTE_NAME%"), &record), "\"a\\r\\nb\\u0001\\u007f\"\n");
}

fn certificate(uri_sans: &[Box<str>]) -> Certificate<'_> {
    Certificate {
        uri_sans,
        dns_sans: &[],
        email_sans: &[],
        ip_sans: &[],
        subject: "CN=web,O=acme",
        issuer: "CN=root",
        serial: "0a1b",
        sha256: &[0xab; 32],
        not_before: 0,
        not_after: 86_400,
        der: b"\xfb\xff\xfe",
    }
}

#[test]
fn what_a_certificate_says_is_written_as_envoy_writes_it() {
    let record =
        LogRecord { downstream_peer: Some(certificate(&[])), ..LogRecord::new(UNIX_EPOCH) };
    let fingerprint = "ab".repeat(32);
    for (format, expected) in [
        ("%DOWNSTREAM_PEER_SUBJECT%", "CN=web,O=acme"),
        ("%DOWNSTREAM_PEER_ISSUER%", "CN=root"),
        ("%DOWNSTREAM_PEER_SERIAL%", "0a1b"),
        ("%DOWNSTREAM_PEER_FINGERPRINT_256%", fingerprint.as_str()),
        ("%DOWNSTREAM_PEER_CERT_V_START%", "1970-01-01T00:00:00.000Z"),
        ("%DOWNSTREAM_PEER_CERT_V_END(%Y/%m/%d)%", "1970/01/02"),
        (
            "%DOWNSTREAM_PEER_CERT%",
            "-----BEGIN%20CERTIFICATE-----%0A%2B%2F%2F%2B%0A-----END%20CERTIFICATE-----%0A",
        ),
        ("%DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_LOCAL_SUBJECT% %UPSTREAM_PEER_SUBJECT%", "- - -"),
    ] {
        assert_eq!(String::from_utf8(text(format, &record)).unwrap(), expected, "{format}");
    }
}

#[test]
fn values_of_a_request_are_written_as_envoy_writes_them() {
    let request = headers(&[("x-envoy-original-path", b"/old?a=1")]);
    let response = HeaderMap::new();
    let record = LogRecord {
        path: Some("/new?b=2&c&b=3"),
        response_code_details: Some("a b"),
        grpc_status: Some(1),
        upstream_host_name: Some("db.test:80"),
        request_tx_begin: Some(Duration::from_micros(1500)),
        request_tx_duration: Some(Duration::from_micros(2500)),
        ..upstream(&request, &response)
    };
    for (format, expected) in [
        ("%PATH% %PATH(NQ)% %PATH(NQ:PATH)% %PATH(:ORIG)%", "/old?a=1 /old /new /old?a=1"),
        ("%PATH(WQ:PATH):4% %QUERY_PARAM(b)% %QUERY_PARAM(c)%%QUERY_PARAM(d)%", "/new 2 -"),
        ("%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "a_b a b"),
        ("%GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(CAMEL_STRING)%", "CANCELLED Canceled"),
        ("%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%", "db.test:80 db.test"),
        ("%UPSTREAM_LOCAL_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "32930 127.0.0.1"),
        ("%UPSTREAM_PROTOCOL% %UPSTREAM_CONNECTION_ID%", "HTTP/1.1 7"),
        ("%COMMON_DURATION(US_TX_BEG:US_TX_END:us)% %REQUEST_TX_DURATION%", "1000 2"),
        ("%COMMON_DURATION(DS_TX_END:DS_RX_END:ms)%", "-"),
        ("%ACCESS_LOG_TYPE% %BYTES_RETRANSMITTED%", "DownstreamEnd 0"),
        ("%DYNAMIC_METADATA(a:b)% %FILTER_STATE(a):3% <%CUSTOM_FLAGS%> %TRACE_ID%", "- - <> -"),
    ] {
        assert_eq!(String::from_utf8(text(format, &record)).unwrap(), expected, "{format}");
    }
    let id = String::from_utf8(text("%UNIQUE_ID%", &record)).unwrap();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "{id}");
}

#[test]
fn lists_of_names_and_flags_are_joined_with_commas() {
    let sans = ["spiffe://a/b".into(), "spiffe://c/d".into()];
    let record = LogRecord {
        downstream_peer: Some(certificate(&sans)),
        flags: ResponseFlags::UPSTREAM_CONNECTION_FAILURE
            | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED,
        grpc_status: Some(14),
        ..LogRecord::new(UNIX_EPOCH)
    };
    for (format, expected) in [
        ("%DOWNSTREAM_PEER_URI_SAN%", "spiffe://a/b,spiffe://c/d"),
        ("%RESPONSE_FLAGS%", "UF,URX"),
        ("%RESPONSE_FLAGS_LONG%", "UpstreamConnectionFailure,UpstreamRetryLimitExceeded"),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "Unavailable 14"),
        ("%RESPONSE_CODE% %PROTOCOL% %DURATION%", "0 - -"),
    ] {
        assert_eq!(String::from_utf8(text(format, &record)).unwrap(), expected, "{format}");
    }
}

#[test]
fn what_headers_a_log_needs_is_known_before_and_enough_in_its_place() {
    let config = AccessLog {
        filter: None,
        output: Output::Lines {
            omit_empty_values: false,
            sink: Sink::Stdout,
            format: LineFormat::Json(object(&[
                ("a", value("%REQ(x-a?x-b)% %RESP(x-c)% %TRAILER(x-d)% %REQ(:METHOD)%")),
                ("b", JsonFormat::List([value("%REQ(x-a)%")].into())),
            ])),
        },
    };
    let needs = Needs::of(&[config]);
    assert_eq!(*needs.request_headers, ["x-a", "x-b"]);
    assert_eq!(*needs.response_headers, ["x-c"]);
    assert_eq!(*needs.response_trailers, ["x-d"]);

    let request = headers(&[("x-b", b"kept"), ("x-z", b"not needed")]);
    let captured = Needs::capture(&needs.request_headers, &request);
    let record =
        LogRecord { request_headers: Headers::Captured(&captured), ..LogRecord::new(UNIX_EPOCH) };
    assert_eq!(text("%REQ(x-a?x-b)% %REQ(x-z)%", &record), b"kept -");
}

#[test]
fn what_has_no_value_can_be_left_out_with_its_key() {
    let format = object(&[
        ("a", value("%REQ(x-a)%")),
        ("b", value("%REQ(x-a)% b")),
        ("c", object(&[("d", value("%REQ(x-a)%"))])),
        ("e", JsonFormat::List([value("%REQ(x-a)%"), value("x")].into())),
        ("f", value("%RESPONSE_CODE%")),
        ("g", JsonFormat::Fixed(serde_json::Value::Null)),
        ("h", value("%CUSTOM_FLAGS%")),
        ("i", value("%RESPONSE_FLAGS%")),
    ]);
    let record = LogRecord { response_code: Some(201), ..LogRecord::new(UNIX_EPOCH) };
    let mut line = Vec::new();
    json::sparse(&format, &record, &mut line);
    // As Envoy wrote it.
    let expected = r#"{"b":" b","e":["x"],"f":201,"h":"","i":"-"}"#;
    assert_eq!(String::from_utf8(line).unwrap().trim_end(), expected);
    let mut nothing = Vec::new();
    json::sparse(&object(&[("a", value("%REQ(x-a)%"))]), &record, &mut nothing);
    assert_eq!(nothing, b"{}\n");
}
