//! Accepts connections and routes requests.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http::header::{HOST, ORIGIN};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use regex::Regex;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::body::Body;

use super::info::{self, Info};
use super::query::{Command, Query};
use super::reply::{Parameters, Reply};
use super::status::Status;
use super::{certs, client_status, clusters, config_dump, listeners, runtime, stats};
use crate::cli::LogLevel;
use crate::logging;
use crate::stats::{HttpCells, ListenerCells, Registry, Scope, Sharded};
use crate::transport::{Acceptor, Ahead, ListeningSocket, Socket};

/// Connections at once; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for a request's headers to arrive, and so for an idle connection to stay.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 16;
/// A connection of HTTP/2 on which a ping is not answered so soon is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What the admin interface knows.
pub(crate) struct Admin {
    registry: Arc<Registry>,
    status: Arc<Status>,
    pub(super) info: Info,
    queries: mpsc::UnboundedSender<Query>,
    http: Arc<Sharded<HttpCells>>,
    listener: Arc<Sharded<ListenerCells>>,
}

impl Admin {
    /// With the other end of its questions, which the control thread answers.
    pub(crate) fn new(
        registry: &Arc<Registry>,
        status: &Arc<Status>,
        info: Info,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Query>) {
        let (queries, asked) = mpsc::unbounded_channel();
        let admin = Self {
            registry: Arc::clone(registry),
            status: Arc::clone(status),
            info,
            queries,
            http: registry.scope(Scope::Http("admin".into())),
            listener: registry.scope(Scope::Listener("admin".into())),
        };
        (Arc::new(admin), asked)
    }
}

/// Serves on a socket, until dropped. Runs on the control thread's runtime.
///
/// # Errors
/// If the socket cannot be used.
pub(crate) async fn serve(socket: ListeningSocket, admin: Arc<Admin>) -> io::Result<()> {
    let socket = Acceptor::new(socket)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin interface cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let cells = admin.listener.local();
            cells.downstream_cx_total.inc();
            cells.downstream_cx_active.inc();
            serve_connection(&admin, stream).await;
            let cells = admin.listener.local();
            cells.downstream_cx_active.dec();
            cells.downstream_cx_destroy.inc();
            drop(place);
        });
    }
}

/// Serves a connection, by HTTP/2 if that is how it begins.
async fn serve_connection(admin: &Arc<Admin>, stream: TcpStream) {
    let mut socket = Socket::new(stream, Bytes::new());
    let begins = socket.read_ahead(PREFACE.len(), |bytes| match bytes.len() {
        0 => None,
        length if length >= PREFACE.len() => Some(bytes.starts_with(PREFACE)),
        _ => (!PREFACE.starts_with(bytes)).then_some(false),
    });
    let Ok(Ok(Ahead::Found(is_http2))) = tokio::time::timeout(HEADER_TIMEOUT, begins).await else {
        return;
    };
    // What goes wrong on a connection is the client's business.
    if is_http2 {
        let admin = Arc::clone(admin);
        let service = service_fn(move |request| {
            let admin = Arc::clone(&admin);
            async move { respond(&admin, request).await }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(HEADER_TIMEOUT)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service_fn(|request| respond(admin, request)))
            .await;
    }
}

async fn respond(
    admin: &Arc<Admin>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let cells = admin.http.local();
    cells.downstream_rq_total.inc();
    let is_http2 = request.version() == Version::HTTP_2;
    match is_http2 {
        true => cells.downstream_rq_http2_total.inc(),
        false => cells.downstream_rq_http1_total.inc(),
    }
    let (head, body) = request.into_parts();
    let response = match refuse(&head) {
        Some(refusal) => refusal.into_response(),
        None if is_http2 && client_status::is_asked_for(head.uri.path()) => {
            client_status::answer(admin, Request::from_parts(head, body)).await
        }
        None => {
            let parameters = Parameters::of(head.uri.query());
            answer(admin, &head.method, head.uri.path(), parameters).await.into_response()
        }
    };
    admin.http.local().responses.record(response.status().as_u16());
    Ok(response)
}

/// Refuses what a web page could make a browser send: a name that is rebound to a loopback address, and a form that is
/// posted from elsewhere.
fn refuse(head: &http::request::Parts) -> Option<Reply> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 says it in `:authority`.
    let host = host.or(head.uri.authority().map(|it| it.as_str())).unwrap_or_default();
    if !is_local_name(host) {
        return Some(Reply::with(
            StatusCode::FORBIDDEN,
            "the admin interface answers to IP addresses and localhost only, not to the Host of this request\n",
        ));
    }
    let origin = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let same_origin = |origin: &str| origin.split_once("://").is_some_and(|(_, rest)| rest == host);
    if head.method != Method::GET && origin.is_some_and(|origin| !same_origin(origin)) {
        return Some(Reply::with(StatusCode::FORBIDDEN, "the request comes from another origin\n"));
    }
    None
}

/// Whether a `Host` is an IP address or `localhost`, with a port or without.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The answer of a path.
pub(super) async fn answer(
    admin: &Admin,
    method: &Method,
    path: &str,
    parameters: Parameters,
) -> Reply {
    let Some(page) = info::PAGES.iter().find(|page| page.path == path) else {
        return Reply::with(StatusCode::NOT_FOUND, format!("invalid path. {}", info::help()));
    };
    if page.changes && *method != Method::POST {
        let body = format!("Method {method} not allowed, POST required.");
        return Reply::with(StatusCode::METHOD_NOT_ALLOWED, body);
    }
    match path {
        "/" => info::home(),
        "/help" => Reply::text(info::help()),
        "/ready" => info::ready(&admin.status),
        "/server_info" => info::server_info(&admin.info, &admin.status),
        "/memory" => info::memory(),
        "/contention" => Reply::text("Mutex contention tracing is not enabled.\n"),
        "/cpuprofiler" | "/heapprofiler" | "/allocprofiler" | "/heap_dump" => Reply::with(
            StatusCode::NOT_IMPLEMENTED,
            format!("The current build does not support {path}\n"),
        ),
        "/hot_restart_version" => Reply::text("disabled\n"),
        "/init_dump" => match ask(admin, Query::Unready).await {
            Err(reply) => reply,
            Ok(unready) => info::init_dump(&unready),
        },
        "/stats" => show_stats(admin, parameters, false).await,
        "/stats/prometheus" => show_stats(admin, parameters, true).await,
        "/clusters" => clusters(admin, &parameters).await,
        "/listeners" => match ask(admin, Query::Listeners).await {
            Err(reply) => reply,
            Ok(all) if parameters.get("format") == Some("json") => listeners::json(&all),
            Ok(all) => listeners::text(&all),
        },
        "/certs" => match ask(admin, Query::Certificates).await {
            Err(reply) => reply,
            Ok(sets) => certs::certs(&sets),
        },
        "/config_dump" => dump(admin, parameters).await,
        "/runtime" => match ask(admin, Query::Runtime).await {
            Err(reply) => reply,
            Ok(status) => runtime::runtime(&status),
        },
        "/runtime_modify" => runtime::modify(admin, &parameters).await,
        "/logging" => logging_level(&parameters),
        "/reset_counters" => {
            admin.registry.reset_counters();
            Reply::ok()
        }
        "/healthcheck/fail" => {
            admin.status.fail_health_checks(true);
            command(admin, Command::FailHealthChecks(true)).await
        }
        "/healthcheck/ok" => {
            admin.status.fail_health_checks(false);
            command(admin, Command::FailHealthChecks(false)).await
        }
        "/drain_listeners" => {
            let drain = Command::DrainListeners {
                graceful: parameters.has("graceful"),
                inbound_only: parameters.has("inboundonly"),
                skip_exit: parameters.has("skip_exit"),
            };
            command(admin, drain).await
        }
        "/reopen_logs" => command(admin, Command::ReopenLogs).await,
        "/quitquitquit" => command(admin, Command::Quit).await,
        _ => Reply::with(StatusCode::NOT_FOUND, format!("invalid path. {}", info::help())),
    }
}

async fn show_stats(admin: &Admin, parameters: Parameters, always_prometheus: bool) -> Reply {
    if admin.info.flush_on_admin
        && let Err(reply) = ask(admin, Query::FlushStats).await
    {
        return reply;
    }
    stats::stats(&admin.registry, parameters, always_prometheus).await
}

async fn clusters(admin: &Admin, parameters: &Parameters) -> Reply {
    let filter = match parameters.get("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::bad_request(format!("Invalid regex: {error}\n")),
    };
    let mut all = match ask(admin, Query::Clusters).await {
        Ok(all) => all,
        Err(reply) => return reply,
    };
    if let Some(filter) = filter {
        all.retain(|status| filter.is_match(&status.cluster.name));
    }
    match parameters.get("format") {
        Some("json") => clusters::json(&all),
        _ => clusters::text(&all),
    }
}

async fn dump(admin: &Admin, parameters: Parameters) -> Reply {
    let dumped = match ask(admin, Query::ConfigDump).await {
        Ok(dumped) => dumped,
        Err(reply) => return reply,
    };
    let render = move || config_dump::config_dump(&dumped, &parameters);
    tokio::task::spawn_blocking(render).await.unwrap_or_else(|error| {
        Reply::with(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
    })
}

/// `/logging`: there is one level for everything.
fn logging_level(parameters: &Parameters) -> Reply {
    const USAGE: &str = "usage: /logging?level=<level> (change all levels)\n\
                         levels: trace debug info warning error critical off\n";
    if parameters.iter().count() > 1 {
        return Reply::bad_request(format!("error: invalid number of parameters\n\n{USAGE}"));
    }
    if let Some(wanted) = parameters.get("level") {
        let Ok(level) = LogLevel::from_str(wanted, true) else {
            return Reply::bad_request(format!("error: unknown logger level\n\n{USAGE}"));
        };
        if !logging::set_level(level) {
            return Reply::bad_request("error: logging of this process was set up by another\n");
        }
    } else if let Some((name, _)) = parameters.iter().next() {
        return Reply::bad_request(format!("error: unknown parameter {name}\n\n{USAGE}"));
    }
    let level = logging::level().map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    Reply::text(format!("active loggers:\n  outrigger: {level}\n"))
}

async fn command(admin: &Admin, command: Command) -> Reply {
    match ask(admin, |answer| Query::Command(command, answer)).await {
        Ok(Ok(())) => Reply::ok(),
        Ok(Err(reason)) => Reply::with(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")),
        Err(reply) => reply,
    }
}

/// Asks the control thread.
pub(super) async fn ask<T>(
    admin: &Admin,
    query: impl FnOnce(oneshot::Sender<T>) -> Query,
) -> Result<T, Reply> {
    let (answer, answered) = oneshot::channel();
    let gone = || Reply::with(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down\n");
    admin.queries.send(query(answer)).map_err(|_| gone())?;
    answered.await.map_err(|_| gone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ip_addresses_and_localhost_are_local_names() {
        for host in ["127.0.0.1:9901", "127.0.0.1", "[::1]:80", "[::1]", "localhost", "LocalHost:1"]
        {
            assert!(is_local_name(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9901", "127.0.0.1.evil.example", "localhost.x"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
