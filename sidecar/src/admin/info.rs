//! `/server_info`, `/memory`, `/ready`, `/help` and the home page.

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::query::Unready;
use super::reply::Reply;
use super::status::{Memory, State, Status};
use crate::apart::apart;
use crate::cli::{Args, DrainStrategy, LogLevel, Mode};
use outrigger_proto::json::Schema;

/// What is known of the process from its start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Info {
    /// The node as discovery servers are told, an encoded `envoy.config.core.v3.Node`.
    pub(crate) node: bytes::Bytes,
    /// The command line, in the names of Envoy's `CommandLineOptions`: an object.
    pub(crate) command_line_options: Json,
    /// Statistics are flushed when they are asked for (`stats_flush_on_admin`).
    pub(crate) flush_on_admin: bool,
}

impl Info {
    /// With the command line as it was given. Nothing of a mesh member's join token is in it.
    pub(crate) fn new(node: bytes::Bytes, args: &Args) -> Self {
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mode = match args.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
        };
        let strategy = match args.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        };
        let level = match args.log_level {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
            LogLevel::Off => "off",
        };
        let command_line_options = json!({
            "base_id": args.base_id.to_string(),
            "config_path": path(&args.config_path),
            "config_yaml": text(&args.config_yaml),
            "allow_unknown_static_fields": args.allow_unknown_static_fields,
            "reject_unknown_dynamic_fields": args.reject_unknown_dynamic_fields,
            "admin_address_path": path(&args.admin_address_path),
            "log_level": level,
            "service_cluster": text(&args.service_cluster),
            "service_node": text(&args.service_node),
            "service_zone": text(&args.service_zone),
            "drain_time": format!("{}s", args.drain_time_s.unwrap_or(600)),
            "drain_strategy": strategy,
            "parent_shutdown_time": format!("{}s", args.parent_shutdown_time_s),
            "mode": mode,
            "disable_hot_restart": args.disable_hot_restart,
            "restart_epoch": args.restart_epoch,
        });
        Self { node, command_line_options, flush_on_admin: false }
    }
}

/// The version, in the five parts of Envoy's: revision, version, state of the source, build, TLS library.
pub(super) fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("outrigger/{}/Clean/{build}/AWS-LC", env!("CARGO_PKG_VERSION"))
}

pub(super) fn server_info(info: &Info, status: &Status) -> Reply {
    let print = || Schema::load()?.print("envoy.config.core.v3.Node", &info.node);
    let node = match apart(print) {
        Ok(Ok(node)) => node,
        Ok(Err(error)) => json!({"error": error.to_string()}),
        Err(error) => json!({"error": error.to_string()}),
    };
    let uptime = format!("{}s", status.uptime().as_secs());
    let mut options = json!({"concurrency": status.concurrency()});
    if let (Some(options), Some(given)) =
        (options.as_object_mut(), info.command_line_options.as_object())
    {
        options.extend(given.clone());
    }
    Reply::json(&json!({
        "version": version(),
        "state": status.get().as_str(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": options,
        "node": node,
    }))
}

pub(super) fn ready(status: &Status) -> Reply {
    let state = status.get();
    let code = match state {
        State::Live => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Reply::with(code, format!("{}\n", state.as_str()))
}

/// Envoy's `UnreadyTargetsDumps`: an empty object when nothing waits.
pub(super) fn init_dump(unready: &[Unready]) -> Reply {
    let one = |unready: &Unready| {
        let targets: Vec<String> =
            unready.waits_for.iter().map(|target| format!("target {target}")).collect();
        json!({"name": format!("init manager {}", unready.who), "target_names": targets})
    };
    match unready {
        [] => Reply::json(&json!({})),
        unready => {
            let dumps: Vec<Json> = unready.iter().map(one).collect();
            Reply::json(&json!({"unready_targets_dumps": dumps}))
        }
    }
}

/// Numbers are strings: 64 bits in JSON.
pub(super) fn memory() -> Reply {
    let memory = Memory::read();
    Reply::json(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap_size.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.physical.to_string(),
    }))
}

/// A path with what it does.
pub(super) struct Page {
    pub(super) path: &'static str,
    pub(super) changes: bool,
    does: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

const fn page(
    path: &'static str,
    does: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Page {
    Page { path, changes: false, does, parameters }
}

const fn action(
    path: &'static str,
    does: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Page {
    Page { path, changes: true, does, parameters }
}

/// Every path, sorted.
pub(super) const PAGES: &[Page] = &[
    page("/", "Admin home page", &[]),
    action("/allocprofiler", "enable/disable the allocation profiler (not in this build)", &[]),
    page("/certs", "print certs on machine", &[]),
    page(
        "/clusters",
        "upstream cluster status",
        &[
            ("filter", "Regular expression for filtering clusters by name"),
            ("format", "File format to use; One of (text, json)"),
        ],
    ),
    page(
        "/config_dump",
        "dump the configuration in effect; secrets are redacted",
        &[
            ("resource", "The repeated field to dump, e.g. dynamic_listeners"),
            ("mask", "A field mask, applied to each element of resource, or to the whole dump"),
            ("name_regex", "Dump only resources whose names match"),
            ("include_eds", "Dump endpoints too"),
        ],
    ),
    page("/contention", "dump current mutex contention stats (if enabled)", &[]),
    action("/cpuprofiler", "enable/disable the CPU profiler (not in this build)", &[]),
    action(
        "/drain_listeners",
        "drain listeners",
        &[
            ("graceful", "Drain connections for the drain time before listeners close"),
            ("skip_exit", "Drain connections, but keep listening"),
            ("inboundonly", "Only listeners with traffic_direction INBOUND"),
        ],
    ),
    page("/heap_dump", "dump current heap (not in this build)", &[]),
    action("/heapprofiler", "enable/disable the heap profiler (not in this build)", &[]),
    action("/healthcheck/fail", "cause the server to fail health checks", &[]),
    action("/healthcheck/ok", "cause the server to pass health checks", &[]),
    page("/help", "print out list of admin commands", &[]),
    page("/hot_restart_version", "print the hot restart compatibility version", &[]),
    page("/init_dump", "print what the start is waiting for", &[]),
    page(
        "/listeners",
        "print listener info",
        &[("format", "File format to use; One of (text, json)")],
    ),
    action(
        "/logging",
        "query/change the logging level",
        &[(
            "level",
            "desired logging level; One of (trace, debug, info, warning, error, critical, off)",
        )],
    ),
    page("/memory", "print current allocation/heap usage", &[]),
    action("/quitquitquit", "exit the server", &[]),
    page("/ready", "print server state, return 200 if LIVE, otherwise return 503", &[]),
    action("/reopen_logs", "reopen access logs", &[]),
    action("/reset_counters", "reset all counters to zero", &[]),
    page("/runtime", "print runtime values", &[]),
    action(
        "/runtime_modify",
        "adds or modifies runtime values, e.g. /runtime_modify?key=value; an empty value takes one back",
        &[],
    ),
    page("/server_info", "print server version/status information", &[]),
    page(
        "/stats",
        "print server stats",
        &[
            ("usedonly", "Only include stats that have been written by system since restart"),
            ("filter", "Regular expression for filtering stats"),
            ("invert_filter", "Invert the filter regex"),
            ("format", "Format to use; One of (text, json, prometheus)"),
            (
                "type",
                "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
            ),
            (
                "histogram_buckets",
                "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)",
            ),
        ],
    ),
    page(
        "/stats/prometheus",
        "print server stats in prometheus format",
        &[
            ("usedonly", "Only include stats that have been written by system since restart"),
            ("text_readouts", "Render text_readouts as gauges with value 0"),
            ("filter", "Regular expression for filtering stats"),
            ("invert_filter", "Invert the filter regex"),
            ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"),
        ],
    ),
];

pub(super) fn help() -> String {
    let mut text = String::from("admin commands are:\n");
    for page in PAGES {
        let post = if page.changes { " (POST)" } else { "" };
        text.push_str(&format!("  {}{post}: {}\n", page.path, page.does));
        for (name, meaning) in page.parameters {
            text.push_str(&format!("      {name}: {meaning}\n"));
        }
    }
    text
}

/// The home page: every path, as a link, or as a button where it changes something.
pub(super) fn home() -> Reply {
    let mut html = String::from(
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>Outrigger Admin</title>\n<style>\
         body{font-family:sans-serif;margin:2em}td{padding:.2em 1em .2em 0}form{margin:0}\
         </style>\n</head>\n<body>\n<table>\n<tr><th align='left'>Command</th><th align='left'>Description</th></tr>\n",
    );
    for page in PAGES.iter().filter(|page| page.path != "/") {
        let path = page.path.trim_start_matches('/');
        let command = if page.changes {
            format!("<form action='{path}' method='post'><button>{path}</button></form>")
        } else {
            format!("<a href='{path}'>{path}</a>")
        };
        html.push_str(&format!("<tr><td>{command}</td><td>{}</td></tr>\n", page.does));
    }
    html.push_str("</table>\n</body>\n</html>\n");
    Reply::html(html)
}
