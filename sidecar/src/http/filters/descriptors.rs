//! How rate limits describe a request: by the rules of its route, of its virtual host, or of the filter itself.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Passage, happens};
use crate::config::matcher::MatchedHeader;
use crate::config::metadata::Metadata;
use crate::config::rate_limit::{
    Descriptor, HostRules, LimitOverride, MetadataPath, MetadataSource, RateLimitAction,
    RateLimitRule,
};
use crate::config::route::RouteAction;
use crate::http::matching::RequestView;
use crate::http::stream_state::metadata_of;

/// The rules that count for a request: those of its route, and of its virtual host as `host_rules` says. A request that
/// is not forwarded has none.
pub(super) fn rules_of_route<'r>(
    passage: &Passage<'r>,
    host_rules: HostRules,
) -> impl Iterator<Item = &'r RateLimitRule> + use<'r> {
    let action = passage.route.and_then(|route| match &route.action {
        RouteAction::Forward(action) => Some(action),
        _ => None,
    });
    let of_route = action.map_or(&[][..], |action| &action.rate_limits);
    let host_rules = match action {
        None => HostRules::Ignore,
        Some(action) if action.include_vh_rate_limits => HostRules::Include,
        Some(_) => host_rules,
    };
    let of_host = match host_rules {
        HostRules::Ignore => &[][..],
        HostRules::Override if !of_route.is_empty() => &[][..],
        HostRules::Override | HostRules::Include => {
            action.map_or(&[][..], |action| &*action.host_rate_limits)
        }
    };
    of_route.iter().chain(of_host)
}

/// The descriptions of a request by these rules. `asks`: they are for a service, of which the runtime may take some.
pub(super) fn describe<'r>(
    rules: impl Iterator<Item = &'r RateLimitRule>,
    stage: u32,
    asks: bool,
    passage: &Passage<'_>,
) -> Vec<Descriptor> {
    let rules = rules.filter(|rule| rule.stage == stage);
    let rules = rules.filter(|rule| match &rule.disable_key {
        None => true,
        // As in Envoy the filter of this process alone leaves out whatever could be turned off.
        Some((_, share)) => asks && happens(share.current()),
    });
    rules.filter_map(|rule| one(rule, passage)).collect()
}

fn one(rule: &RateLimitRule, passage: &Passage<'_>) -> Option<Descriptor> {
    let view = passage.view();
    let mut descriptor =
        Descriptor { hits: rule.hits, x_headers: rule.x_headers, ..Descriptor::default() };
    for action in &rule.actions {
        match entry(action, &view, passage) {
            Said::Entry(key, value) => descriptor.entries.push((key, value)),
            Said::Nothing => {}
            Said::No => return None,
        }
    }
    descriptor.limit = match &rule.limit {
        None => None,
        Some(LimitOverride::Fixed(requests, unit)) => Some((*requests, *unit)),
        Some(LimitOverride::Metadata(place)) => {
            let metadata = metadata_of(passage.exchange.state.as_deref());
            metadata.and_then(|metadata| limit_in(metadata, place))
        }
    };
    Some(descriptor)
}

/// What an action says of a request.
enum Said {
    Entry(Box<str>, Box<str>),
    /// There is no such entry.
    Nothing,
    /// There is no such description.
    No,
}

impl Said {
    fn when(holds: bool, (key, value): &(Box<str>, Box<str>)) -> Self {
        if holds { Self::Entry(key.clone(), value.clone()) } else { Self::No }
    }

    /// A value that may be absent.
    fn value(key: &str, value: Option<&str>, skip_if_absent: bool) -> Self {
        match value {
            Some(value) => Self::Entry(key.into(), value.into()),
            None if skip_if_absent => Self::Nothing,
            None => Self::No,
        }
    }
}

fn entry(action: &RateLimitAction, view: &RequestView<'_>, passage: &Passage<'_>) -> Said {
    let client = passage.accepted.client;
    match action {
        RateLimitAction::SourceCluster => {
            let cluster = &passage.connection.local.shared.node_cluster;
            Said::value("source_cluster", cluster.to_str().ok(), false)
        }
        RateLimitAction::DestinationCluster => {
            let name = passage.cluster.or(passage.target.as_ref().map(|target| &*target.name));
            Said::value("destination_cluster", name, false)
        }
        RateLimitAction::Header { name, key, skip_if_absent } => {
            Said::value(key, value_of(name, view), *skip_if_absent)
        }
        RateLimitAction::QueryParameter { name, key, skip_if_absent } => {
            Said::value(key, view.query_parameter(name), *skip_if_absent)
        }
        RateLimitAction::RemoteAddress => {
            // A client of a Unix domain socket has none.
            let Some(client) = client else { return Said::No };
            Said::Entry("remote_address".into(), client.to_string().into())
        }
        RateLimitAction::MaskedRemoteAddress { v4, v6 } => {
            let Some(client) = client else { return Said::No };
            let length = match client {
                IpAddr::V4(_) => *v4,
                IpAddr::V6(_) => *v6,
            };
            match IpNet::new(client, length) {
                Ok(network) => {
                    let network = network.trunc().to_string();
                    Said::Entry("masked_remote_address".into(), network.into())
                }
                // Lengths were checked with the configuration.
                Err(_) => Said::No,
            }
        }
        RateLimitAction::Fixed(key, value) => Said::Entry(key.clone(), value.clone()),
        RateLimitAction::HeadersMatch { entry, expect, headers } => {
            let all = headers.iter().all(|header| header.matches(view));
            Said::when(all == *expect, entry)
        }
        RateLimitAction::QueryMatch { entry, expect, parameters } => {
            let all = parameters.iter().all(|parameter| parameter.matches(view.query));
            Said::when(all == *expect, entry)
        }
        RateLimitAction::AddressMatch { entry, ranges, invert } => {
            let within =
                client.is_some_and(|client| ranges.iter().any(|range| range.contains(&client)));
            Said::when(within != *invert, entry)
        }
        RateLimitAction::Metadata { key, place, source, default, skip_if_absent } => {
            let metadata = match source {
                MetadataSource::Request => metadata_of(passage.exchange.state.as_deref()),
                MetadataSource::Route => passage.route.map(|route| &route.metadata),
                MetadataSource::Cluster => {
                    passage.target.as_ref().map(|target| &*target.config.metadata)
                }
            };
            let value = metadata.and_then(|metadata| metadata.value(&place.filter, &place.path));
            let value = value.and_then(|value| value.as_str()).filter(|value| !value.is_empty());
            Said::value(key, value.or(default.as_deref()), *skip_if_absent)
        }
    }
}

/// The first line of a header, or a part of the request.
fn value_of<'v>(name: &MatchedHeader, view: &RequestView<'v>) -> Option<&'v str> {
    match name {
        MatchedHeader::Header(name) => view.headers.get(name)?.to_str().ok(),
        MatchedHeader::Method => Some(view.method.as_str()),
        MatchedHeader::Path => Some(view.path_and_query),
        MatchedHeader::Authority => Some(view.authority),
        MatchedHeader::Scheme => Some(view.scheme),
    }
}

/// A limit that a filter has noted: `requests_per_unit` and the name of a `unit`.
fn limit_in(metadata: &Metadata, place: &MetadataPath) -> Option<(u32, i32)> {
    let object = metadata.value(&place.filter, &place.path)?.as_object()?;
    let requests = object.get("requests_per_unit")?.as_f64()?;
    let unit = match object.get("unit")?.as_str()? {
        "UNKNOWN" => 0,
        "SECOND" => 1,
        "MINUTE" => 2,
        "HOUR" => 3,
        "DAY" => 4,
        "MONTH" => 5,
        "YEAR" => 6,
        _ => return None,
    };
    Some((requests as u32, unit))
}
