//! Listeners and filter chains.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{self as core, TrafficDirection as DirectionProto};
use outrigger_proto::envoy::config::listener::v3 as proto;
use outrigger_proto::envoy::config::listener::v3::filter::ConfigType as FilterConfigType;
use outrigger_proto::envoy::config::listener::v3::listener::DrainType;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use outrigger_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use outrigger_proto::google::protobuf::{Any, BoolValue};

use crate::config::Problems;
use crate::config::address::Address;
use crate::config::cluster::TcpKeepalive;
use crate::config::listener::{
    FilterChain, Listener, SocketSettings, TerminalFilter, TrafficDirection,
};
use crate::config::listener_filter::{ListenerFilter, ListenerFilterKind};
use crate::config::network_filter::NetworkFilter;
use crate::config::tls::DownstreamTls;

use super::common::{
    address, boolean, enumeration, fingerprint, limit, number, optional, required, text,
    unknown_type, unpack, unsupported, unsupported_if_true,
};
use super::{
    access_log, buffer_limit, extensions, filter_chain_match, http_connection_manager,
    listener_filter, network_filter, socket_option, tcp_proxy, tls,
};

/// Listener filters may take so long where nothing is set.
const DEFAULT_LISTENER_FILTERS: Duration = Duration::from_secs(15);

/// A listener.
#[allow(clippy::too_many_lines)] // one field after the other, as in the proto
pub(super) fn convert(problems: &mut Problems, proto: proto::Listener) -> Option<Listener> {
    let proto::Listener {
        name,
        address: place,
        additional_addresses,
        stat_prefix,
        stats_matcher: _, // only leaves statistics out
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata: _, // for people and control planes: nothing here reads it
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port: _, // deprecated, and without effect in Envoy too: enable_reuse_port replaced it
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event: _, // how the accept loop takes turns; changes no outcome
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit: _, // there is no global limit
        bypass_overload_manager: _,  // there is no overload manager
        tcp_keepalive,
        listener_specifier,
    } = proto;
    unsupported!(problems;
        fcds_config, filter_chain_matcher,
        per_connection_buffer_high_watermark_timeout, tcp_fast_open_queue_length,
        udp_listener_config, api_listener, connection_balance_config, enable_mptcp);
    if listener_specifier.is_some() {
        problems.unsupported("internal_listener", true);
    }
    let old_bind =
        deprecated_v1.and_then(|proto::listener::DeprecatedV1 { bind_to_port }| bind_to_port);
    let drain_type = enumeration(problems, "drain_type", drain_type);

    let place = required(problems, "address", place)
        .and_then(|proto| problems.field("address", |problems| address(problems, proto)));
    let (place, mode) = place.unzip();
    let socket = SocketSettings {
        backlog: number(tcp_backlog_size),
        reuse_port: boolean(enable_reuse_port, true),
        transparent: transparent.map(|BoolValue { value }| value),
        freebind: freebind.map(|BoolValue { value }| value),
        keepalive: keepalive(tcp_keepalive),
        mode: mode.flatten(),
        options: socket_option::list(problems, "socket_options", socket_options),
    };
    let additional_addresses = additional_addresses
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("additional_addresses", index, |problems| {
                additional_address(problems, proto, &socket)
            })
        })
        .collect();
    let mut filters: Vec<ListenerFilter> = listener_filters
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("listener_filters", index, |problems| {
                listener_filter::convert(problems, proto)
            })
        })
        .collect();
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        problems.reject_field("filter_chains", "must have at least one entry");
    }
    let chains: Vec<(usize, FilterChain)> = filter_chains
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems
                .element("filter_chains", index, |problems| filter_chain(problems, proto))
                .map(|chain| (index, chain))
        })
        .collect();
    filter_chain_match::unique(problems, &chains);
    let filter_chains: Vec<FilterChain> = chains.into_iter().map(|(_, chain)| chain).collect();
    let default_filter_chain = default_filter_chain.and_then(|proto| {
        problems.field("default_filter_chain", |problems| filter_chain(problems, proto))
    });
    let use_original_dst = boolean(use_original_dst, false);
    if use_original_dst {
        // As Envoy does it, behind all others.
        filters.push(ListenerFilter { kind: ListenerFilterKind::OriginalDst, disabled: None });
    }
    let traffic_direction = match enumeration(problems, "traffic_direction", traffic_direction) {
        Some(DirectionProto::Inbound) => TrafficDirection::Inbound,
        Some(DirectionProto::Outbound) => TrafficDirection::Outbound,
        Some(DirectionProto::Unspecified) | None => TrafficDirection::Unspecified,
    };
    let listener_filters_timeout = limit(
        problems,
        "listener_filters_timeout",
        listener_filters_timeout,
        Some(DEFAULT_LISTENER_FILTERS),
    );
    let access_logs = access_log::convert(problems, "access_log", access_log);
    let address = place?;
    // Envoy makes up a random name for a listener without one; ours is the same each time.
    let name = if name.is_empty() { address.to_string() } else { name };
    Some(Listener {
        name: name.into(),
        address,
        socket: Arc::new(socket),
        additional_addresses,
        stat_prefix: optional(stat_prefix),
        filter_chains,
        default_filter_chain,
        use_original_dst,
        bind_to_port: boolean(bind_to_port, true) && boolean(old_bind, true),
        filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        per_connection_buffer_limit: buffer_limit(per_connection_buffer_limit_bytes),
        drains_on_health_check_failure: drain_type != Some(DrainType::ModifyOnly),
        traffic_direction,
        access_logs,
    })
}

/// A further address: its sockets are like those of the listener, but for what it says itself.
fn additional_address(
    problems: &mut Problems,
    proto: proto::AdditionalAddress,
    socket: &SocketSettings,
) -> Option<(Address, Arc<SocketSettings>)> {
    let proto::AdditionalAddress { address: place, socket_options, tcp_keepalive } = proto;
    let mut socket = socket.clone();
    if let Some(core::SocketOptionsOverride { socket_options }) = socket_options {
        socket.options = problems.field("socket_options", |problems| {
            socket_option::list(problems, "socket_options", socket_options)
        });
    }
    if tcp_keepalive.is_some() {
        socket.keepalive = keepalive(tcp_keepalive);
    }
    let place = required(problems, "address", place)?;
    let (place, mode) = problems.field("address", |problems| address(problems, place))?;
    socket.mode = mode;
    Some((place, Arc::new(socket)))
}

/// A part that is 0 turns it off.
fn keepalive(proto: Option<core::TcpKeepalive>) -> Option<TcpKeepalive> {
    let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = proto?;
    let (probes, time, interval) =
        (number(keepalive_probes), number(keepalive_time), number(keepalive_interval));
    let is_off = [probes, time, interval].contains(&Some(0));
    let seconds = |value: u32| Duration::from_secs(value.into());
    (!is_off).then(|| TcpKeepalive {
        probes,
        time: time.map(seconds),
        interval: interval.map(seconds),
    })
}

fn filter_chain(problems: &mut Problems, proto: proto::FilterChain) -> Option<FilterChain> {
    let proto::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata: _, // for people and control planes: nothing here reads it
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = proto;
    unsupported_if_true!(problems; use_proxy_proto);
    let matches = filter_chain_match
        .map(|proto| {
            problems.field("filter_chain_match", |problems| {
                filter_chain_match::convert(problems, proto)
            })
        })
        .unwrap_or_default();
    let tls = transport_socket.and_then(|proto| {
        problems.field("transport_socket", |problems| downstream_transport(problems, proto))
    });
    let transport_socket_connect_timeout =
        limit(problems, "transport_socket_connect_timeout", transport_socket_connect_timeout, None);
    let (filters, terminal) = network_filters(problems, filters)?;
    let mut chain = FilterChain {
        name: name.into(),
        matches,
        tls,
        transport_socket_connect_timeout,
        filters,
        terminal,
        fingerprint: 0,
    };
    chain.fingerprint = fingerprint(&chain);
    Some(chain)
}

/// `None` is plaintext, or refused.
fn downstream_transport(
    problems: &mut Problems,
    proto: core::TransportSocket,
) -> Option<Arc<DownstreamTls>> {
    let config = tls::transport_socket(problems, proto)?;
    problems.field("typed_config", |problems| tls::downstream(problems, &config)).map(Arc::new)
}

/// The filters of a chain: exactly one of them takes the connection for itself, and it is the last.
fn network_filters(
    problems: &mut Problems,
    protos: Vec<proto::Filter>,
) -> Option<(Vec<NetworkFilter>, TerminalFilter)> {
    let mut before = Vec::new();
    let mut terminal = None;
    let mut is_over = false;
    for (index, proto) in protos.into_iter().enumerate() {
        let config = match &proto.config_type {
            Some(FilterConfigType::TypedConfig(config)) => Some(config.clone()),
            _ => None,
        };
        if config.as_ref().is_some_and(extensions::is_harmless_network) {
            continue;
        }
        problems.element("filters", index, |problems| {
            if is_over {
                problems.reject("stands behind a filter that ends the chain");
            }
            if let Some(config) = config.filter(network_filter::is_known) {
                text(problems, "name", proto.name);
                before.extend(
                    problems.field("typed_config", |problems| {
                        network_filter::convert(problems, &config)
                    }),
                );
                return;
            }
            let filter = terminal_filter(problems, proto);
            if !is_over {
                terminal = filter;
            }
            is_over = true;
        });
    }
    if !is_over {
        problems.reject_field("filters", "must have at least one entry that ends the chain");
    }
    Some((before, terminal?))
}

fn terminal_filter(problems: &mut Problems, proto: proto::Filter) -> Option<TerminalFilter> {
    let proto::Filter { name, config_type } = proto;
    text(problems, "name", name);
    let config: Any = match config_type {
        Some(FilterConfigType::TypedConfig(config)) => config,
        Some(FilterConfigType::ConfigDiscovery(_)) => {
            problems.unsupported("config_discovery", true);
            return None;
        }
        None => {
            problems.reject_field("typed_config", "required");
            return None;
        }
    };
    problems.field("typed_config", |problems| {
        if any::holds::<HttpConnectionManager>(&config) {
            let proto = unpack(problems, &config)?;
            let hcm = http_connection_manager::convert(problems, proto)?;
            return Some(TerminalFilter::Http(Arc::new(hcm)));
        }
        if any::holds::<TcpProxy>(&config) {
            let proto = unpack(problems, &config)?;
            return Some(TerminalFilter::Tcp(Arc::new(tcp_proxy::convert(problems, proto)?)));
        }
        let others = &["HttpConnectionManager", "TcpProxy"];
        unknown_type(problems, &config, &[others, &network_filter::NAMES[..]].concat());
        None
    })
}
