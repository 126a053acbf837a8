//! Listeners: from a socket that accepts to the filter chain that takes a connection.
//!
//! Reading order: [`Listener`] (what a configuration is compiled to), [`accept`] (the loop over a socket), [`handshake`]
//! (from a TCP connection to the chain that takes it), with [`filters`] and [`filter_chain`]; [`revocation`], a way to end.

pub(crate) mod accept;
mod connection_log;
pub(crate) mod filter_chain;
pub(crate) mod filters;
pub(crate) mod handshake;
pub(crate) mod network_filters;
mod network_rbac;
mod revocation;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access_log::{LogStreams, Loggers, Outputs, Writer};
use crate::cluster::ClusterId;
use crate::config;
use crate::config::Rejected;
use crate::config::access_log::AccessLog;
use crate::config::bootstrap::LocalInfo;
use crate::config::http_connection_manager::HttpConnectionManager;
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::{TerminalFilter, TrafficDirection};
use crate::http::connection_manager::ConnectionManager;
use crate::http::filters::Filter;
use crate::http::reply_mapper::ReplyRules;
use crate::http::tracing::Tracer;
use crate::local::Local;
use crate::snapshot::{ListenerId, RouteConfigId};
use crate::stats::{ListenerCells, ListenerWorkerCells, Registry, Scope, Sharded, TlsCells};
use crate::tcp_proxy::TcpProxy;
use crate::tls;
use crate::trace::Reporters;
use filter_chain::Matcher;
use network_filters::NetworkFilters;

/// A listener, compiled.
pub(crate) struct Listener {
    /// Its place in the snapshot.
    pub(crate) id: ListenerId,
    /// Where it comes from.
    pub(crate) config: Arc<config::listener::Listener>,
    /// Chains in the order of the configuration; what the matcher's indices mean.
    pub(crate) chains: Box<[Arc<Chain>]>,
    /// Takes what no other takes.
    pub(crate) default_chain: Option<Arc<Chain>>,
    pub(crate) stats: Arc<Sharded<ListenerCells>>,
    pub(crate) worker_stats: Box<[Arc<Sharded<ListenerWorkerCells>>]>,
    pub(crate) tls_stats: Arc<Sharded<TlsCells>>,
    /// What looks at a connection before a chain is chosen.
    pub(crate) filters: Box<[filters::Filter]>,
    /// Its own logs, of connections.
    pub(crate) loggers: Arc<Loggers>,
    matcher: Matcher,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({}, {})", self.config.name, self.config.address)
    }
}

/// A filter chain, compiled. It is the same object for as long as its configuration stays the same.
pub(crate) struct Chain {
    /// Its name, or empty.
    pub(crate) name: Arc<str>,
    /// Hash of its configuration.
    pub(crate) fingerprint: u64,
    /// TLS towards the client.
    pub(crate) tls: Option<Arc<tls::ServerContext>>,
    /// Longest time for the TLS handshake.
    pub(crate) handshake_timeout: Option<Duration>,
    /// What a connection has to pass before.
    pub(crate) filters: NetworkFilters,
    /// What takes the connection at the end.
    pub(crate) terminal: Terminal,
    /// Cancelled when the chain is changed or removed: its connections end when they can.
    pub(crate) drain: CancellationToken,
}

/// What takes a connection at the end of a chain.
pub(crate) enum Terminal {
    /// Requests.
    Http(Arc<ConnectionManager>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
}

/// What building a listener needs of the control thread.
pub(crate) struct Build<'a> {
    /// Where statistics are kept.
    pub(crate) registry: &'a Arc<Registry>,
    /// Number of workers.
    pub(crate) workers: usize,
    /// TLS contexts.
    pub(crate) tls: &'a mut tls::Contexts,
    /// Writer of access logs.
    pub(crate) log_writer: &'a Writer,
    /// Access logs that are sent to servers.
    pub(crate) log_streams: &'a mut LogStreams,
    /// For what goes on beside connections.
    pub(crate) control: &'a Rc<Local>,
    /// Takers of spans.
    pub(crate) reporters: &'a mut Reporters,
    /// Who we are.
    pub(crate) local_info: &'a Arc<LocalInfo>,
    /// The id of a cluster's name.
    pub(crate) cluster: &'a mut dyn FnMut(&Arc<str>) -> ClusterId,
    /// The id of a route configuration, inline or discovered.
    pub(crate) routes: &'a mut dyn FnMut(&RouteSource) -> RouteConfigId,
}

impl Listener {
    /// Compiles a listener. Chains that `previous` has with the same fingerprint are taken over, with their connections.
    ///
    /// # Errors
    /// With everything that was refused: chains that ask for the same, TLS secrets that do not fit, logs that cannot be
    /// opened.
    pub(crate) fn build(
        id: ListenerId,
        config: &Arc<config::listener::Listener>,
        previous: Option<&Self>,
        with: &mut Build<'_>,
    ) -> Result<Self, Vec<Rejected>> {
        let mut rejected = Vec::new();
        let matcher = Matcher::build(config.filter_chains.iter().map(|chain| &chain.matches))
            .unwrap_or_else(|ambiguous| {
                rejected.push(Rejected {
                    path: format!("filter_chains[{}].filter_chain_match", ambiguous.second),
                    reason: format!(
                        "matches the same connections as filter_chains[{}]",
                        ambiguous.first
                    ),
                });
                Matcher::default()
            });
        let address: Arc<str> = match &config.stat_prefix {
            Some(prefix) => (**prefix).into(),
            None => config.address.to_string().into(),
        };
        let mut chain = |path: String, chain: &config::listener::FilterChain| {
            let known = previous
                .filter(|previous| has_same_settings(&previous.config, config))
                .and_then(|previous| previous.chain_with(chain.fingerprint));
            match known {
                Some(known) => Some(Arc::clone(known)),
                None => Chain::build(&path, chain, config, &address, with)
                    .map(Arc::new)
                    .map_err(|refused| rejected.push(refused))
                    .ok(),
            }
        };
        let chains: Box<[_]> = config
            .filter_chains
            .iter()
            .enumerate()
            .filter_map(|(index, config)| chain(format!("filter_chains[{index}]"), config))
            .collect();
        let default_chain = config
            .default_filter_chain
            .as_ref()
            .and_then(|config| chain("default_filter_chain".to_owned(), config));
        let loggers = open_logs("access_log", &config.access_logs, with)
            .map_err(|refused| rejected.push(refused))
            .unwrap_or_default();
        if !rejected.is_empty() {
            return Err(rejected);
        }
        let scope = |scope| with.registry.scope(scope);
        Ok(Self {
            id,
            config: Arc::clone(config),
            chains,
            default_chain,
            stats: scope(Scope::Listener(Arc::clone(&address))),
            worker_stats: (0..with.workers)
                .map(|index| {
                    with.registry.scope(Scope::ListenerWorker(Arc::clone(&address), index))
                })
                .collect(),
            tls_stats: with.registry.scope(Scope::Listener(Arc::clone(&address))),
            loggers: Arc::new(loggers),
            filters: config
                .filters
                .iter()
                .map(|filter| filters::Filter::build(filter, with.registry))
                .collect(),
            matcher,
        })
    }

    /// Tells the connections of those chains to end that `next` (the listener's next version, if it has one) does not have.
    pub(crate) fn drain_unless_in(&self, next: Option<&Self>) {
        for chain in self.all_chains() {
            let kept =
                next.is_some_and(|next| next.all_chains().any(|other| Arc::ptr_eq(chain, other)));
            if !kept {
                chain.drain.cancel();
            }
        }
    }

    /// Every chain, the default chain last.
    pub(crate) fn all_chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    fn chain_with(&self, fingerprint: u64) -> Option<&Arc<Chain>> {
        self.all_chains().find(|chain| chain.fingerprint == fingerprint)
    }

    /// The chain that takes a connection.
    pub(crate) fn chain_for(&self, criteria: &filter_chain::Criteria<'_>) -> Option<&Arc<Chain>> {
        match self.matcher.find(criteria) {
            Some(index) => self.chains.get(index),
            None => self.default_chain.as_ref(),
        }
    }
}

/// Whether chains have the same of their listener.
fn has_same_settings(one: &config::listener::Listener, other: &config::listener::Listener) -> bool {
    one.per_connection_buffer_limit == other.per_connection_buffer_limit
        && one.drains_on_health_check_failure == other.drains_on_health_check_failure
        && one.stat_prefix == other.stat_prefix
        && (one.stat_prefix.is_some() || one.address == other.address)
}

impl Chain {
    fn build(
        path: &str,
        chain: &config::listener::FilterChain,
        listener: &config::listener::Listener,
        address: &Arc<str>,
        with: &mut Build<'_>,
    ) -> Result<Self, Rejected> {
        let below = |path: &str, refused: Rejected| Rejected {
            path: match refused.path.as_str() {
                "" => path.to_owned(),
                rest => format!("{path}.{rest}"),
            },
            reason: refused.reason,
        };
        let tls = match &chain.tls {
            None => None,
            Some(tls) => {
                let context = with.tls.server(tls);
                Some(context.map_err(|r| below(&format!("{path}.transport_socket"), r))?)
            }
        };
        let logs = format!("{path}.filters[0].typed_config.access_log");
        let terminal = match &chain.terminal {
            TerminalFilter::Http(http) => {
                let loggers = open_logs(&logs, &http.access_logs, with)?;
                let prefix: Arc<str> = (*http.stat_prefix).into();
                let tracer = tracer(http, listener, with);
                let per_listener = Scope::ListenerHttp(Arc::clone(address), Arc::clone(&prefix));
                Terminal::Http(Arc::new(ConnectionManager {
                    config: Arc::clone(http),
                    routes: (with.routes)(&http.routes),
                    stats: with.registry.scope(Scope::Http(Arc::clone(&prefix))),
                    listener_stats: with.registry.scope(per_listener),
                    paths: (&**http).into(),
                    filters: http
                        .filters
                        .iter()
                        .map(|filter| Filter::build(filter, with.registry, &prefix, with.control))
                        .collect(),
                    buffer_limit: listener.per_connection_buffer_limit,
                    drains_on_health_check_failure: listener.drains_on_health_check_failure,
                    loggers,
                    replies: http.local_replies.as_ref().map(ReplyRules::new),
                    tracer,
                }))
            }
            TerminalFilter::Tcp(tcp) => {
                let loggers = open_logs(&logs, &tcp.access_logs, with)?;
                let stats = with.registry.scope(Scope::Tcp((*tcp.stat_prefix).into()));
                Terminal::Tcp(Arc::new(TcpProxy::build(tcp, stats, loggers, with.cluster)))
            }
        };
        Ok(Self {
            name: Arc::clone(&chain.name),
            fingerprint: chain.fingerprint,
            tls,
            handshake_timeout: chain.transport_socket_connect_timeout,
            filters: NetworkFilters::build(&chain.filters, with.registry),
            terminal,
            drain: CancellationToken::new(),
        })
    }
}

/// Opens the logs that stand at this path.
fn open_logs(path: &str, logs: &[AccessLog], with: &mut Build<'_>) -> Result<Loggers, Rejected> {
    let mut outputs = Outputs {
        writer: with.log_writer,
        streams: &mut *with.log_streams,
        registry: with.registry,
    };
    Loggers::new(logs, &mut outputs).map_err(|(index, error)| Rejected {
        path: format!("{path}[{index}]"),
        reason: format!("the log cannot be opened: {error}"),
    })
}

/// Tracing of a connection manager, if it is configured.
fn tracer(
    http: &HttpConnectionManager,
    listener: &config::listener::Listener,
    with: &mut Build<'_>,
) -> Option<Tracer> {
    let config = Arc::clone(http.tracing.as_ref()?);
    let provider = config.provider.as_ref();
    Some(Tracer {
        reporter: provider.and_then(|provider| with.reporters.of(provider, with.registry)),
        egress: listener.traffic_direction == TrafficDirection::Outbound,
        cells: with.registry.scope(Scope::Http((*http.stat_prefix).into())),
        local_info: Arc::clone(with.local_info),
        config,
    })
}
