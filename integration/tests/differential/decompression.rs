//! The filter that decompresses bodies: which, and what it says about it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";
const LIBRARY: &str = "'@type': type.googleapis.com/envoy.extensions.compression";

fn filter(name: &str, library: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, typed_config: {{{TYPE}.decompressor.v3.Decompressor, decompressor_library: {{name: {name}, typed_config: {{{LIBRARY}.{library}}}}}{more}}}}}"
    )
}

fn listener(place: &str, filters: &str) -> String {
    let routes = "- {match: {prefix: /two}, route: {cluster: two}}
- {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: text}}}
- {match: {prefix: /none}, route: {cluster: a}, typed_per_filter_config: {gz: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}
- {match: {prefix: /}, route: {cluster: a}}";
    let manager = format!(
        "route_config:
  name: test
  virtual_hosts:
  - name: all
    domains: ['*']
    routes:
{}
http_filters:
{filters}
- ROUTER",
        indent(routes, 4),
    );
    http_listener(place, &manager)
}

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

const GZIP: &str = "gzip.decompressor.v3.Gzip";

pub(crate) fn group() -> Group {
    let off = "{common_config: {enabled: {default_value: false, runtime_key: none}}}";
    let listeners = [
        listener("LISTEN", &filter("gz", GZIP, "")),
        listener(
            "LISTEN_ALL",
            &[
                filter("gz", &format!("{GZIP}, window_bits: 15, chunk_size: 8192"), ""),
                filter("br", "brotli.decompressor.v3.Brotli", ""),
                filter("zs", "zstd.decompressor.v3.Zstd", ""),
            ]
            .join("\n"),
        ),
        listener(
            "LISTEN_REQUESTS",
            &filter("gz", GZIP, &format!(", response_direction_config: {off}")),
        ),
        listener(
            "LISTEN_SILENT",
            &filter(
                "gz",
                GZIP,
                &format!(
                    ", request_direction_config: {}",
                    "{advertise_accept_encoding: false, common_config: {ignore_no_transform_header: true}}"
                ),
            ),
        ),
        listener(
            "LISTEN_RESPONSES",
            &filter("gz", GZIP, &format!(", request_direction_config: {off}")),
        ),
    ];
    Group {
        name: "decompression",
        bootstrap: bootstrap(
            &listeners,
            &[cluster("a", &["a"], ""), cluster("two", &["two"], HTTP2)],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("two", UpstreamKind::Plain)],
        unsupported: None,
        cases: vec![advertised(), responses(), requests(), kinds(), not_all(), large(), counted()],
    }
}

const TEXT: &str = "as many words as it takes, as many words as it takes";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn packed() -> Reply {
    Reply::status(200).header("content-encoding", "gzip").body(gzip(TEXT))
}

fn advertised() -> Case {
    let mut case = Case::new("endpoints_are_told_what_is_understood").get("/", "200 a");
    for accept in [
        "gzip",
        "br",
        "gzip;q=0.5, br",
        "br, gzip",
        "deflate;q=0.1,gzip;q=0",
        "*",
        "",
        "GZIP",
        " , br",
    ] {
        case = case.send(Request::get("/").header("accept-encoding", accept), "200 a").send_to(
            "LISTEN_ALL",
            Request::get("/").header("accept-encoding", accept),
            "200 a",
        );
    }
    case.send(
        Request::get("/").header("accept-encoding", "br").header("accept-encoding", "gzip"),
        "200 a",
    )
    .send_to("LISTEN_SILENT", Request::get("/"), "200 a")
    .send_to("LISTEN_REQUESTS", Request::get("/"), "200 a")
    .send_to("LISTEN_RESPONSES", Request::get("/"), "200 a")
    .get("/none", "200 a")
    .get("/direct", "200 -")
}

fn responses() -> Case {
    let of = |coding: &str| Reply::status(200).header("content-encoding", coding).body(gzip(TEXT));
    let mut case = Case::new("a_response_is_decompressed");
    for path in ["/", "/two"] {
        let expected = if path == "/" { "200 a" } else { "200 two" };
        let upstream = if path == "/" { "a" } else { "two" };
        case = case
            .script(upstream, [packed()])
            .get(path, expected)
            .script(upstream, [packed()])
            .send(Request::get(path).http2(), expected);
    }
    for (reply, expected) in [
        (of("GZIP"), "200 a"),
        (of("gzip, br"), "200 a"),
        (of("gzip ,br , x"), "200 a"),
        (of("br, gzip"), "200 a"),
        (of("x-gzip"), "200 a"),
        (packed().header("cache-control", "no-transform"), "200 a"),
        (packed().header("cache-control", "max-age=1"), "200 a"),
        (packed().header("etag", "\"a\""), "200 a"),
        (Reply::status(200).body(TEXT), "200 a"),
        (Reply::status(200).header("content-encoding", "gzip").body(""), "200 a"),
        (Reply::status(204).header("content-encoding", "gzip"), "204 a"),
        (Reply::status(404).header("content-encoding", "gzip").body(gzip(TEXT)), "404 a"),
    ] {
        case = case.script("a", [reply]).send(Request::get("/").http2(), expected);
    }
    case.script("a", [packed()])
        .send(Request::new("HEAD", "/"), "200 a")
        .script("two", [packed_with_trailers()])
        .send(Request::get("/two").http2(), "200 two")
}

fn packed_with_trailers() -> Reply {
    Reply::status(200).header("content-encoding", "gzip").body(gzip(TEXT)).trailer("x-end", "1")
}

fn requests() -> Case {
    let post = |path: &str| Request::post(path, gzip(TEXT)).header("content-encoding", "gzip");
    let mut case = Case::new("a_request_is_decompressed");
    for listener in ["LISTEN", "LISTEN_REQUESTS", "LISTEN_RESPONSES", "LISTEN_SILENT"] {
        case = case
            .send_to(listener, post("/"), "200 a")
            .send_to(listener, post("/").http2(), "200 a")
            .send_to(listener, post("/two"), "200 two")
            .send_to(listener, post("/two").http2(), "200 two")
            .send_to(listener, post("/").header("cache-control", "no-transform"), "200 a")
            .send_to(listener, Request::post("/", TEXT), "200 a");
    }
    case
}

fn kinds() -> Case {
    let brotli = {
        let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
        let _ = writer.write_all(TEXT.as_bytes());
        writer.into_inner()
    };
    let zstd = zstd::encode_all(TEXT.as_bytes(), 3).unwrap_or_default();
    let of = |coding: &str, body: Vec<u8>| {
        Reply::status(200).header("content-encoding", coding).body(body)
    };
    let twice = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let _ = encoder.write_all(&brotli);
        encoder.finish().unwrap_or_default()
    };
    Case::new("each_library_decompresses_its_own")
        .script("a", [of("br", brotli.clone())])
        .send_to("LISTEN_ALL", Request::get("/").http2(), "200 a")
        .script("a", [of("zstd", zstd.clone())])
        .send_to("LISTEN_ALL", Request::get("/").http2(), "200 a")
        .script("a", [packed()])
        .send_to("LISTEN_ALL", Request::get("/").http2(), "200 a")
        .script("a", [of("gzip, br", twice)])
        .send_to("LISTEN_ALL", Request::get("/").http2(), "200 a")
        .send_to(
            "LISTEN_ALL",
            Request::post("/two", brotli).header("content-encoding", "br").http2(),
            "200 two",
        )
        .send_to(
            "LISTEN_ALL",
            Request::post("/two", zstd).header("content-encoding", "zstd").http2(),
            "200 two",
        )
}

fn not_all() -> Case {
    Case::new("a_route_turns_it_off")
        .script("a", [packed()])
        .get("/none", "200 a")
        .script("a", [packed()])
        .send_to("LISTEN_REQUESTS", Request::get("/"), "200 a")
}

fn large() -> Case {
    // Words that do not repeat so much that they look like an attack.
    let text: String =
        (0..60_000_u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761))).collect();
    Case::new("a_large_body_is_decompressed")
        .script("a", [Reply::status(200).header("content-encoding", "gzip").body(gzip(&text))])
        .send(Request::post("/", gzip(&text)).header("content-encoding", "gzip"), "200 a")
        .script("two", [Reply::status(200).header("content-encoding", "gzip").body(gzip(&text))])
        .send(
            Request::post("/two", gzip(&text)).header("content-encoding", "gzip").http2(),
            "200 two",
        )
}

fn counted() -> Case {
    Case::custom("statistics", |world| {
        Box::pin(async move { statistics(world, &["http.test.decompressor."]).await })
    })
}
