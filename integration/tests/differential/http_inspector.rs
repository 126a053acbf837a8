//! The listener filters http_inspector and tls_inspector: what they find chooses the chain; which connections they leave
//! alone; what happens when the client says nothing, or too little.

use anyhow::Result;
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster};
use crate::wire::{first_line, listener_filter, record_growth, stats, tcp_proxy};

/// The TCP upstreams, each of which greets with its name, and so says which chain was taken.
const NAMES: &[&str] = &["http10", "http11", "h2c", "tls", "other"];

fn listener(place: &str, filters: &[String], chains: &[(&str, &str)], more: &str) -> String {
    let chain = |(criteria, target): &(&str, &str)| {
        let filter = tcp_proxy(&format!("cluster: {target}"));
        format!("{{filter_chain_match: {{{criteria}}}, filters: [{filter}]}}")
    };
    let chains: Vec<String> = chains.iter().map(chain).collect();
    format!(
        "- {{name: {place}, address: ${{{place}}}, listener_filters_timeout: 0.3s, listener_filters: [{}], filter_chains: [{}]{more}}}\n",
        filters.join(", "),
        chains.join(", ")
    )
}

pub(crate) fn group() -> Group {
    let http = |more: &str| listener_filter("http_inspector", "HttpInspector", "", more);
    let tls = |more: &str| listener_filter("tls_inspector", "TlsInspector", "", more);
    let proxy = || listener_filter("proxy_protocol", "ProxyProtocol", "", "");
    let by_protocol: &[(&str, &str)] = &[
        ("transport_protocol: raw_buffer, application_protocols: [http/1.0]", "http10"),
        ("transport_protocol: raw_buffer, application_protocols: [http/1.1]", "http11"),
        ("transport_protocol: raw_buffer, application_protocols: [h2c]", "h2c"),
        ("transport_protocol: tls", "tls"),
        ("transport_protocol: raw_buffer", "other"),
    ];
    let disabled = |rule: &str| [proxy(), http(&format!(", filter_disabled: {{{rule}}}"))];
    let ports = "destination_port_range: {start: 1000, end: 2000}";
    let clusters: Vec<String> = NAMES.iter().map(|name| cluster(name, &[name], "")).collect();
    Group {
        name: "http_inspector",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", &[http("")], by_protocol, ""),
                listener("LISTEN_BOTH", &[tls(""), http("")], by_protocol, ""),
                listener("LISTEN_ORDER", &[http(""), tls("")], by_protocol, ""),
                listener("LISTEN_TLS", &[tls("")], by_protocol, ""),
                listener("LISTEN_NONE", &[], by_protocol, ""),
                listener(
                    "LISTEN_NAMES",
                    &[],
                    &[("server_names: [server.example]", "tls"), ("", "other")],
                    "",
                ),
                listener(
                    "LISTEN_GO_ON",
                    &[http("")],
                    by_protocol,
                    ", continue_on_listener_filters_timeout: true",
                ),
                listener("LISTEN_ANY", &disabled("any_match: true"), by_protocol, ""),
                listener("LISTEN_RANGE", &disabled(ports), by_protocol, ""),
                listener(
                    "LISTEN_NOT",
                    &disabled(&format!("not_match: {{{ports}}}")),
                    by_protocol,
                    "",
                ),
                listener(
                    "LISTEN_OR",
                    &disabled(&format!(
                        "or_match: {{rules: [{{{ports}}}, {{destination_port_range: {{start: 80, end: 81}}}}]}}"
                    )),
                    by_protocol,
                    "",
                ),
                listener(
                    "LISTEN_AND",
                    &disabled(&format!(
                        "and_match: {{rules: [{{{ports}}}, {{destination_port_range: {{start: 1500, end: 3000}}}}]}}"
                    )),
                    by_protocol,
                    "",
                ),
            ],
            &clusters,
        ),
        upstreams: NAMES.iter().map(|name| (*name, UpstreamKind::Tcp)).collect(),
        unsupported: None,
        cases: cases(),
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn cases() -> Vec<Case> {
    let to_port = |port: u16| format!("PROXY TCP4 1.2.3.4 10.0.0.1 4096 {port}\r\n{GET}");
    let long = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length));
    let table: Vec<(&'static str, &'static str, String)> = vec![
        ("http_1_1", "LISTEN", GET.into()),
        ("http_1_0", "LISTEN", "GET / HTTP/1.0\r\n\r\n".into()),
        ("http_2", "LISTEN", PREFACE.into()),
        ("http_2_with_more", "LISTEN", format!("{PREFACE}\0\0\0\x04\0\0\0\0\0")),
        ("the_first_line_is_enough", "LISTEN", "GET / HTTP/1.1\r\n".into()),
        ("a_line_may_end_without_return", "LISTEN", "GET / HTTP/1.1\nhost: a\n\n".into()),
        ("a_method_of_its_own", "LISTEN", "PURGE / HTTP/1.1\r\n".into()),
        ("a_method_in_small_letters", "LISTEN", "get / HTTP/1.1\r\n".into()),
        ("connect", "LISTEN", "CONNECT a:443 HTTP/1.1\r\n".into()),
        ("options_star", "LISTEN", "OPTIONS * HTTP/1.1\r\n".into()),
        ("absolute_form", "LISTEN", "GET http://a/b HTTP/1.1\r\n".into()),
        ("a_target_without_a_slash", "LISTEN", "GET a HTTP/1.1\r\n".into()),
        ("two_words", "LISTEN", "hello world\r\n".into()),
        ("two_words_with_a_path", "LISTEN", "GET /\r\n".into()),
        ("one_word", "LISTEN", "hello\r\n".into()),
        ("http_1_2", "LISTEN", "GET / HTTP/1.2\r\n".into()),
        ("http_2_in_a_line", "LISTEN", "GET / HTTP/2.0\r\n".into()),
        ("http_3_in_a_line", "LISTEN", "GET / HTTP/3\r\n".into()),
        ("a_small_http", "LISTEN", "GET / http/1.1\r\n".into()),
        ("another_protocol", "LISTEN", "GET / RTSP/1.0\r\n".into()),
        ("a_word_behind_the_version", "LISTEN", "GET / HTTP/1.1 x\r\n".into()),
        ("a_space_in_front", "LISTEN", " GET / HTTP/1.1\r\n".into()),
        ("two_spaces", "LISTEN", "GET  / HTTP/1.1\r\n".into()),
        ("a_tab", "LISTEN", "GET\t/\tHTTP/1.1\r\n".into()),
        ("a_colon_in_the_method", "LISTEN", "GE:T / HTTP/1.1\r\n".into()),
        ("an_empty_first_line", "LISTEN", "\r\nGET / HTTP/1.1\r\n".into()),
        ("a_bare_newline", "LISTEN", "\nGET / HTTP/1.1\r\n".into()),
        ("binary_with_a_newline", "LISTEN", "\u{1}\u{2}\u{3}\n".into()),
        ("an_almost_preface", "LISTEN", "PRI / HTTP/1.1\r\n".into()),
        ("a_preface_of_another_kind", "LISTEN", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into()),
        ("a_long_line", "LISTEN", long(40_000)),
        ("a_line_that_is_too_long", "LISTEN", long(70_000)),
        ("a_line_that_does_not_end", "LISTEN", "GET / HTT".into()),
        ("a_part_of_the_preface", "LISTEN", "PRI * H".into()),
        ("a_line_that_does_not_end_but_goes_on", "LISTEN_GO_ON", "GET / HTT".into()),
        ("nothing_is_waited_for", "LISTEN", String::new()),
        ("nothing_is_waited_for_but_goes_on", "LISTEN_GO_ON", String::new()),
        ("no_filter_and_nothing_said", "LISTEN_NONE", "GET".into()),
        ("http_behind_the_tls_inspector", "LISTEN_BOTH", GET.into()),
        ("http_before_the_tls_inspector", "LISTEN_ORDER", GET.into()),
        ("tls_alone_does_not_know_http", "LISTEN_TLS", GET.into()),
        ("any_match_disables", "LISTEN_ANY", to_port(80)),
        ("a_range_disables", "LISTEN_RANGE", to_port(1000)),
        ("a_range_ends_before_its_end", "LISTEN_RANGE", to_port(2000)),
        ("outside_of_a_range", "LISTEN_RANGE", to_port(999)),
        ("not_in_the_range", "LISTEN_NOT", to_port(1000)),
        ("not_outside_of_the_range", "LISTEN_NOT", to_port(999)),
        ("or_the_first", "LISTEN_OR", to_port(1000)),
        ("or_the_second", "LISTEN_OR", to_port(80)),
        ("or_neither", "LISTEN_OR", to_port(81)),
        ("and_both", "LISTEN_AND", to_port(1500)),
        ("and_one_alone", "LISTEN_AND", to_port(1000)),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, place, bytes)| {
            Case::custom(name, move |world| {
                let bytes = bytes.clone();
                Box::pin(async move { taken_by(world, place, bytes.as_bytes()).await })
            })
        })
        .collect();
    for (name, place) in [
        ("tls_is_not_looked_into", "LISTEN_BOTH"),
        ("tls_behind_the_http_inspector", "LISTEN_ORDER"),
        ("a_server_name_is_not_known_without_the_inspector", "LISTEN_NAMES"),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(tls(world, place))));
    }
    cases.push(Case::custom("a_client_that_goes_away_is_counted", |world| Box::pin(gone(world))));
    cases
}

const COUNTED: &[&str] = &["http_inspector.", "tls_inspector.tls_", "tls_inspector.sni_"];

async fn taken_by(world: &World, place: &str, bytes: &[u8]) -> Result<Observation> {
    let before = stats(world, COUNTED).await?;
    let mut seen = Observation::default();
    seen.fact("taken", "by", first_line(world.address(place)?, bytes).await?);
    record_growth(world, &mut seen, COUNTED, &before).await?;
    Ok(seen)
}

/// The upstream that takes it does not speak TLS: that the handshake fails is not what this is about.
async fn tls(world: &World, place: &str) -> Result<Observation> {
    let before = stats(world, COUNTED).await?;
    let connections = world.tcp_upstream("tls")?.connections();
    let request = Request::get("/").tls(&world.client_tls(None, &[])?, "server.example");
    request.send(world.address(place)?).await;
    let mut seen = Observation::default();
    let taken = world.tcp_upstream("tls")?.connections() - connections;
    seen.fact("taken", "by tls", taken);
    record_growth(world, &mut seen, COUNTED, &before).await?;
    Ok(seen)
}

async fn gone(world: &World) -> Result<Observation> {
    let address = world.address("LISTEN")?;
    let name = "listener.LISTEN.downstream_listener_filter_remote_close";
    let name = name.replace("LISTEN", &address.to_string().replace(':', "_"));
    let before = world.proxy.stat(&name).await?;
    let stream = tokio::net::TcpStream::connect(address).await?;
    drop(stream);
    let patience = std::time::Duration::from_secs(5);
    world.proxy.wait_for_stat(&name, patience, |value| value > before).await?;
    let mut seen = Observation::default();
    seen.fact("gone", "counted", true);
    Ok(seen)
}
