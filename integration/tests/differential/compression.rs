//! The filter that compresses bodies: which, how, and what it says about it.

use std::time::Duration;

use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, UpstreamKind};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, indent, statistics};

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http";
const LIBRARY: &str = "'@type': type.googleapis.com/envoy.extensions.compression";

/// A library by the name that its statistics have.
fn library(name: &str, of: &str) -> String {
    let config = match of {
        "gzip" => {
            "gzip.compressor.v3.Gzip, memory_level: 3, window_bits: 10, compression_level: BEST_SPEED, compression_strategy: FILTERED, chunk_size: 8192"
        }
        "brotli" => {
            "brotli.compressor.v3.Brotli, quality: 5, encoder_mode: TEXT, window_bits: 16, input_block_bits: 18, disable_literal_context_modeling: true"
        }
        _ => {
            "zstd.compressor.v3.Zstd, compression_level: 5, enable_checksum: true, strategy: GREEDY"
        }
    };
    format!("compressor_library: {{name: {name}, typed_config: {{{LIBRARY}.{config}}}}}")
}

fn filter(name: &str, of: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, typed_config: {{{TYPE}.compressor.v3.Compressor, {}{more}}}}}",
        library(name, of)
    )
}

fn listener(place: &str, filters: &str, routes: &str) -> String {
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

const ROUTE: &str = "- {match: {prefix: /}, route: {cluster: a}}";

fn listeners() -> Vec<String> {
    let per_route = |name: &str, more: &str| {
        format!(
            "typed_per_filter_config: {{{name}: {{{TYPE}.compressor.v3.CompressorPerRoute, {more}}}}}"
        )
    };
    let routes = format!(
        "- {{match: {{prefix: /off}}, route: {{cluster: a}}, {}}}
- {{match: {{prefix: /own}}, route: {{cluster: a}}, {}}}
- {{match: {{prefix: /keep}}, route: {{cluster: a}}, {}}}
- {{match: {{prefix: /direct}}, direct_response: {{status: 200, body: {{inline_string: '{}'}}}}}}
- {{match: {{prefix: /fault}}, route: {{cluster: a}}, typed_per_filter_config: {{fault: {{{TYPE}.fault.v3.HTTPFault, abort: {{http_status: 503, percentage: {{numerator: 100}}}}}}}}}}
{ROUTE}",
        per_route("one", "disabled: true"),
        per_route("one", &format!("overrides: {{{}}}", library("other", "zstd"))),
        per_route(
            "one",
            "overrides: {response_direction_config: {remove_accept_encoding_header: false}}"
        ),
        TEXT,
    );
    let fault = format!("- {{name: fault, typed_config: {{{TYPE}.fault.v3.HTTPFault}}}}\n");
    let buffer = format!(
        "- {{name: buffer, typed_config: {{{TYPE}.buffer.v3.Buffer, max_request_bytes: 10000}}}}\n"
    );
    let retried = "- {match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, num_retries: 1}}}";
    let request = ", request_direction_config: {common_config: {min_content_length: 20}}, response_direction_config: {common_config: {enabled: {default_value: false, runtime_key: none}}}";
    vec![
        listener(
            "LISTEN",
            &format!(
                "{fault}{}",
                filter(
                    "one",
                    "gzip",
                    ", response_direction_config: {remove_accept_encoding_header: true}"
                )
            ),
            &routes,
        ),
        listener(
            "LISTEN_ALL",
            &[
                filter("gz", "gzip", ", response_direction_config: {common_config: {content_type: [text/plain, application/json]}}"),
                filter("br", "brotli", ", response_direction_config: {common_config: {content_type_matcher: [{prefix: text/}]}}"),
                filter("zs", "zstd", ", choose_first: true, response_direction_config: {common_config: {min_content_length: 100}}"),
            ]
            .join("\n"),
            ROUTE,
        ),
        listener(
            "LISTEN_LEGACY",
            &filter("legacy", "gzip", ", content_length: 50, content_type: [text/html], disable_on_etag_header: true, runtime_enabled: {default_value: true, runtime_key: none}"),
            ROUTE,
        ),
        listener(
            "LISTEN_WEAKEN",
            &filter("weaken", "gzip", ", response_direction_config: {disable_on_etag_header: true, weaken_etag_on_compress: true, uncompressible_response_codes: [206, 404]}"),
            ROUTE,
        ),
        listener(
            "LISTEN_STATUS",
            &filter("status", "gzip", ", response_direction_config: {status_header_enabled: true, disable_on_etag_header: true, uncompressible_response_codes: [206]}"),
            ROUTE,
        ),
        listener("LISTEN_REQUEST", &filter("request", "gzip", request), ROUTE),
        listener("LISTEN_RETRIED", &filter("retried", "brotli", request), retried),
        listener(
            "LISTEN_BUFFERED",
            &format!("{buffer}{}", filter("buffered", "zstd", request)),
            ROUTE,
        ),
    ]
}

const TEXT: &str =
    "as many words as it takes, as many words as it takes, as many words as it takes";

fn text() -> Reply {
    Reply::status(200).header("content-type", "text/plain; charset=utf-8").body(TEXT)
}

fn get(accept: &str) -> Request {
    Request::get("/").header("accept-encoding", accept)
}

pub(crate) fn group() -> Group {
    Group {
        name: "compression",
        bootstrap: bootstrap(&listeners(), &[cluster("a", &["a"], "")]),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: [choice(), responses(), requests(), vec![counted()]].into_iter().flatten().collect(),
    }
}

fn choice() -> Vec<Case> {
    let ask = |case: Case, listener: &'static str, accept: &str| {
        case.script("a", [text()]).send_to(listener, get(accept), "200 a")
    };
    let mut one = Case::new("a_client_says_what_it_accepts");
    for accept in [
        "gzip",
        "GZIP",
        "*",
        "identity",
        "br",
        "gzip;q=0",
        "gzip;q=0.5, identity;q=0.4",
        "*;q=0",
        "gzip;q=0, *",
        "deflate, gzip;q=x",
        "",
    ] {
        one = ask(one, "LISTEN", accept);
    }
    let mut several = Case::new("the_weight_decides_among_several_compressors");
    for accept in [
        "gzip, br",
        "br, gzip",
        "gzip;q=0.5, br;q=0.8",
        "gzip, br, zstd",
        "gzip, br, zstd;q=0.9",
        "*",
        "gzip;q=0, *",
        "zstd",
        "zstd;q=0, gzip;q=0.1",
    ] {
        several = ask(several, "LISTEN_ALL", accept);
    }
    let json = Reply::status(200).header("content-type", "application/json").body(TEXT);
    let large = Reply::status(200).header("content-type", "text/plain").body(TEXT.repeat(100));
    let other = || Reply::status(200).header("content-type", "text/x-other").body(TEXT.repeat(2));
    vec![
        one.script("a", [text()])
            .send(Request::get("/"), "200 a")
            .script("a", [text()])
            .send(get("br").header("accept-encoding", "gzip"), "200 a"),
        several
            .script("a", [json])
            .send_to("LISTEN_ALL", get("br, gzip;q=0.1"), "200 a")
            .script("a", [large])
            .send_to("LISTEN_ALL", get("zstd, br"), "200 a")
            .script("a", [other()])
            .send_to("LISTEN_ALL", get("gzip, br;q=0.1"), "200 a")
            .script("a", [other()])
            .send_to("LISTEN_ALL", get("gzip, zstd;q=0.1"), "200 a"),
    ]
}

fn responses() -> Vec<Case> {
    let of = |kind: &str| Reply::status(200).header("content-type", kind);
    let plain = || Reply::status(200).header("content-type", "text/plain");
    let asked = |case: Case, listener: &'static str, reply: Reply| {
        case.script("a", [reply]).send_to(listener, get("gzip"), "200 a")
    };
    let mut kinds = Case::new("some_responses_are_compressed");
    let mut with_status = Case::new("a_header_says_what_was_done");
    let replies = || {
        vec![
            of("text/html").body(TEXT),
            of("TEXT/HTML ;charset=x").body(TEXT),
            of("image/png").body(TEXT),
            Reply::status(200).body(TEXT),
            plain().body("short"),
            plain().chunks(&["short"]),
            plain().chunks(&[TEXT, TEXT, "end"]),
            plain().header("content-encoding", "br").body(TEXT),
            plain().header("cache-control", "max-age=1, No-Transform").body(TEXT),
            plain().header("cache-control", "max-age=1").body(TEXT),
            plain().header("etag", "\"strong\"").body(TEXT),
            plain().header("etag", "W/\"weak\"").body(TEXT),
            plain().header("etag", "w/\"weak\"").body(TEXT),
            plain().header("vary", "x-a").body(TEXT),
            plain().header("vary", "x-a, Accept-Encoding").body(TEXT),
            plain().header("vary", "accept-encoding").body(TEXT),
            plain().body(""),
        ]
    };
    for reply in replies() {
        kinds = asked(kinds, "LISTEN", reply.clone());
        kinds = asked(kinds, "LISTEN_LEGACY", reply.clone());
        kinds = asked(kinds, "LISTEN_WEAKEN", reply.clone());
        with_status = asked(with_status, "LISTEN_STATUS", reply);
    }
    let coded = |status: u16| Reply::status(status).header("content-type", "text/plain").body(TEXT);
    vec![
        kinds,
        with_status
            .script("a", [coded(206)])
            .send_to("LISTEN_STATUS", get("gzip"), "206 a")
            .script("a", [coded(206)])
            .send_to("LISTEN_STATUS", get("br"), "206 a")
            .script("a", [text()])
            .send_to("LISTEN_STATUS", get("br"), "200 a")
            .script("a", [text()])
            .send_to("LISTEN_STATUS", Request::get("/"), "200 a"),
        Case::new("some_codes_are_not_compressed")
            .script("a", [coded(206)])
            .send_to("LISTEN_WEAKEN", get("gzip"), "206 a")
            .script("a", [coded(404)])
            .send_to("LISTEN_WEAKEN", get("gzip"), "404 a")
            .script("a", [coded(500)])
            .send_to("LISTEN_WEAKEN", get("gzip"), "500 a"),
        Case::new("a_response_without_a_body_is_left_as_it_is")
            .script("a", [text()])
            .send(Request::new("HEAD", "/").header("accept-encoding", "gzip"), "200 a")
            .script("a", [Reply::status(204)])
            .send(get("gzip"), "204 a")
            .script("a", [Reply::status(304)])
            .send(get("gzip"), "304 a"),
        Case::new("pieces_and_trailers_are_passed_on")
            .script("a", [plain().chunks(&[TEXT, "two"]).between_chunks(Duration::from_millis(20))])
            .send(get("gzip"), "200 a")
            .script("a", [plain().chunks(&[TEXT, "two"]).trailer("x-end", "1")])
            .send(get("gzip").http2(), "200 a"),
        Case::new("a_route_says_otherwise")
            .script("a", [text()])
            .send(Request::get("/off").header("accept-encoding", "gzip"), "200 a")
            .script("a", [text()])
            .send(Request::get("/own").header("accept-encoding", "zstd"), "200 a")
            .script("a", [text()])
            .send(Request::get("/own").header("accept-encoding", "gzip"), "200 a")
            .script("a", [text()])
            .send(Request::get("/keep").header("accept-encoding", "gzip"), "200 a"),
        Case::new("what_the_proxy_says_itself_is_compressed_too")
            .send(Request::get("/direct").header("accept-encoding", "gzip"), "200 -")
            .send(Request::get("/direct").header("accept-encoding", "gzip").http2(), "200 -")
            .send(Request::new("HEAD", "/direct").header("accept-encoding", "gzip"), "200 -")
            .send(Request::get("/fault").header("accept-encoding", "gzip"), "503 -"),
    ]
}

fn requests() -> Vec<Case> {
    let post = || Request::post("/", TEXT).header("content-type", "text/plain");
    let pieces = || {
        Request::new("POST", "/").header("content-type", "text/plain").chunks(&[TEXT, "", "two"])
    };
    let mut all = Vec::new();
    for (name, listener) in [
        ("a_request_is_compressed", "LISTEN_REQUEST"),
        ("a_request_that_may_be_sent_again_is_compressed", "LISTEN_RETRIED"),
        ("a_request_that_was_buffered_is_compressed", "LISTEN_BUFFERED"),
    ] {
        all.push(
            Case::new(name)
                .send_to(listener, post(), "200 a")
                .send_to(listener, post().http2(), "200 a")
                .send_to(listener, pieces(), "200 a")
                .send_to(listener, pieces().http2().trailer("x-end", "1"), "200 a")
                .send_to(
                    listener,
                    Request::post("/", "short").header("content-type", "text/plain"),
                    "200 a",
                )
                .send_to(
                    listener,
                    Request::post("/", TEXT).header("content-type", "image/png"),
                    "200 a",
                )
                .send_to(listener, post().header("content-encoding", "br"), "200 a")
                .send_to(listener, Request::post("/", TEXT), "200 a")
                .send_to(listener, get("gzip"), "200 a"),
        );
    }
    all.push(
        Case::new("a_compressed_request_is_sent_again")
            .script("a", [Reply::status(500), Reply::status(200)])
            .send_to("LISTEN_RETRIED", post(), "200 a,a")
            .script("a", [Reply::status(500), Reply::status(200)])
            .send_to("LISTEN_RETRIED", pieces().http2(), "200 a,a"),
    );
    all
}

fn counted() -> Case {
    Case::custom("statistics", |world| {
        Box::pin(async move { statistics(world, &["http.test.compressor."]).await })
    })
}
