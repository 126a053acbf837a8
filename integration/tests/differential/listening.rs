//! Listeners and their sockets: several addresses, options, chains by address; what `/listeners` says; who drains when
//! health checks are made to fail.

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};

use crate::parts::{bootstrap, cluster, http_chain, indent, routes};
use crate::wire::all;

/// A listener at these addresses, which answers with where it was connected to.
fn listener(place: &str, more: &[&str], fields: &str) -> String {
    let more: Vec<String> = more.iter().map(|place| format!("{{address: {place}}}")).collect();
    let answer = "- {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: here}}, response_headers_to_add: [{header: {key: x-local, value: '%DOWNSTREAM_LOCAL_ADDRESS%'}}]}";
    format!(
        "- name: {place}\n  address: ${{{place}}}\n  additional_addresses: [{}]\n{}  filter_chains:\n{}",
        more.join(", "),
        indent(fields, 2),
        indent(&http_chain(&routes(answer)), 2)
    )
}

pub(crate) fn group() -> Group {
    Group {
        name: "listening",
        bootstrap: bootstrap(
            &[
                listener("LISTEN", &["${LISTEN_SECOND}", "${LISTEN_THIRD}"], ""),
                listener(
                    "LISTEN_SIX",
                    &["{socket_address: {address: '::1', port_value: ${LISTEN_SIX.port}}}"],
                    "",
                ),
                listener(
                    "LISTEN_OPTIONS",
                    &[],
                    "tcp_backlog_size: 16\nfreebind: true\ntransparent: false\nenable_reuse_port: false\ntcp_keepalive: {keepalive_time: 30}\nsocket_options: [{level: 1, name: 9, int_value: 1}, {level: 6, name: 1, int_value: 1, state: STATE_BOUND}, {level: 1, name: 8, int_value: 65536, state: STATE_LISTENING}]\nmax_connections_to_accept_per_socket_event: 1\n",
                ),
                listener("LISTEN_DEFAULT", &[], "drain_type: DEFAULT\n"),
                listener("LISTEN_MODIFY", &[], "drain_type: MODIFY_ONLY\n"),
            ],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("the_main_address", "LISTEN"),
        ("the_second_address", "LISTEN_SECOND"),
        ("the_third_address", "LISTEN_THIRD"),
        ("ip_version_4_of_two", "LISTEN_SIX"),
        ("options_of_sockets", "LISTEN_OPTIONS"),
    ]
    .into_iter()
    .map(|(name, place)| {
        Case::custom(name, move |world| {
            Box::pin(async move {
                let mut seen = Observation::default();
                world.send(&mut seen, "request", place, &Request::get("/")).await?;
                Ok(seen)
            })
        })
    })
    .collect();
    cases.push(Case::custom("ip_version_6_of_two", |world| Box::pin(version_6(world))));
    cases.push(Case::custom("listeners_are_shown_with_all_addresses", |world| {
        Box::pin(shown(world))
    }));
    cases.push(Case::custom("the_json_of_listeners", |world| Box::pin(json(world))));
    // Last: from here on health checks fail.
    for (name, place) in [
        ("failing_health_checks_drain", "LISTEN_DEFAULT"),
        ("failing_health_checks_do_not_drain_what_only_changes_do", "LISTEN_MODIFY"),
    ] {
        cases.push(Case::custom(name, move |world| Box::pin(failing(world, place))));
    }
    cases
}

async fn version_6(world: &World) -> Result<Observation> {
    let port = world.address("LISTEN_SIX")?.port();
    let mut seen = Observation::default();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = all((std::net::Ipv6Addr::LOCALHOST, port).into(), request).await?;
    let local = answer.lines().find(|line| line.starts_with("x-local")).unwrap_or_default();
    ensure!(local.contains("[::1]"), "{answer}");
    seen.fact("answer", "local", local.replace(&port.to_string(), "<port>"));
    Ok(seen)
}

async fn shown(world: &World) -> Result<Observation> {
    let text = world.proxy.admin("/listeners").await?;
    let mut seen = Observation::default();
    let lines = text.lines().filter(|line| line.starts_with("LISTEN::"));
    let lines: Vec<String> = lines.map(|line| world.normal(line)).collect();
    seen.fact("/listeners", "lines", lines.join(" "));
    Ok(seen)
}

async fn json(world: &World) -> Result<Observation> {
    let text = world.proxy.admin("/listeners?format=json").await?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let statuses = all["listener_statuses"].as_array().context("no statuses")?;
    let mut seen = Observation::default();
    for status in statuses {
        let name = status["name"].as_str().unwrap_or_default();
        let mut status = status.to_string();
        for place in ["LISTEN", "LISTEN_SECOND", "LISTEN_THIRD"] {
            let port = world.address(place)?.port().to_string();
            status = status.replace(&port, &format!("<port of {place}>"));
        }
        if name == "LISTEN" {
            seen.fact("/listeners", name, world.normal(&status));
        }
    }
    Ok(seen)
}

async fn failing(world: &World, place: &str) -> Result<Observation> {
    world.proxy.command("/healthcheck/fail").await?;
    let mut seen = Observation::default();
    let outcome = Request::get("/").send(world.address(place)?).await;
    seen.fact("answer", "status", outcome.status());
    seen.fact("answer", "connection", outcome.header("connection").unwrap_or("<absent>"));
    world.proxy.command("/healthcheck/ok").await?;
    Ok(seen)
}
