//! `StatsConfig`.

use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::config::bootstrap::v3::bootstrap::StatsFlush as Flush;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::metrics::v3 as proto;
use outrigger_proto::envoy::config::metrics::v3::stats_matcher::StatsMatcher as Matcher;
use outrigger_proto::envoy::config::metrics::v3::stats_sink::ConfigType;
use outrigger_proto::envoy::config::metrics::v3::statsd_sink::StatsdSpecifier;
use outrigger_proto::envoy::config::metrics::v3::tag_specifier::TagValue;
use outrigger_proto::envoy::r#type::matcher::v3::ListStringMatcher;
use outrigger_proto::google::protobuf::Duration as DurationProto;
use regex::Regex;

use crate::config::Problems;
use crate::config::matcher::StringMatcher;
use crate::config::stats::{
    HistogramBuckets, StatTag, StatTagValue, StatsConfig, StatsFlush, StatsMatcher, StatsdSink,
};

use super::common::{
    boolean, ip_and_port, positive_duration, required, text, unknown_type, unpack, unsupported,
};
use super::matcher;

/// What names begin with where nothing is set.
const DEFAULT_PREFIX: &str = "envoy";
/// Bounds of the interval, Envoy's: from the first, below the second.
const FLUSH_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(300));

/// The field `stats_sinks`.
pub(super) fn sinks(problems: &mut Problems, protos: Vec<proto::StatsSink>) -> Vec<StatsdSink> {
    let each = protos.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("stats_sinks", index, |problems| sink(problems, proto))
    });
    each.collect()
}

fn sink(problems: &mut Problems, proto: proto::StatsSink) -> Option<StatsdSink> {
    // name: of the sink, which its type already says.
    let proto::StatsSink { name: _, config_type } = proto;
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        problems.reject_field("typed_config", "required");
        return None;
    };
    problems.field("typed_config", |problems| {
        if !any::holds::<proto::StatsdSink>(&config) {
            unknown_type(problems, &config, &["StatsdSink"]);
            return None;
        }
        let proto::StatsdSink { prefix, statsd_specifier } = unpack(problems, &config)?;
        let address = match statsd_specifier {
            Some(StatsdSpecifier::Address(mut address)) => {
                // Datagrams are sent whatever it says, as by Envoy.
                if let Some(core::address::Address::SocketAddress(socket)) = &mut address.address {
                    socket.protocol = core::socket_address::Protocol::Tcp.into();
                }
                problems.field("address", |problems| ip_and_port(problems, address))?
            }
            Some(StatsdSpecifier::TcpClusterName(_)) => {
                problems.unsupported("tcp_cluster_name", true);
                return None;
            }
            None => {
                problems.reject_field("address", "required");
                return None;
            }
        };
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { &prefix };
        Some(StatsdSink { address, prefix: prefix.into() })
    })
}

/// The fields `stats_flush_interval` and `stats_flush_on_admin`.
pub(super) fn flush(
    problems: &mut Problems,
    interval: Option<DurationProto>,
    flush: Option<Flush>,
) -> StatsFlush {
    let is_given = interval.is_some();
    let interval = positive_duration(problems, "stats_flush_interval", interval);
    let (least, below) = FLUSH_BOUNDS;
    if interval.is_some_and(|it| it < least || it >= below) {
        problems.reject_field("stats_flush_interval", "must be from 0.001s to below 300s");
    }
    match flush {
        Some(Flush::StatsFlushOnAdmin(true)) => {
            if is_given {
                let reason = "cannot be set together with stats_flush_interval";
                problems.reject_field("stats_flush_on_admin", reason);
            }
            StatsFlush::OnAdmin
        }
        Some(Flush::StatsFlushOnAdmin(false)) => {
            problems.reject_field("stats_flush_on_admin", "must be true, or not be there");
            StatsFlush::default()
        }
        None => interval.map_or_else(StatsFlush::default, StatsFlush::Every),
    }
}

pub(super) fn convert(problems: &mut Problems, proto: proto::StatsConfig) -> StatsConfig {
    let proto::StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides: _, // of a tag of the same name Envoy's own counts, as by default
    } = proto;
    let default_tags = boolean(use_all_default_tags, true);
    let tags = stats_tags.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("stats_tags", index, |problems| tag(problems, proto, default_tags))
    });
    let tags = tags.collect();
    let matcher = stats_matcher.and_then(|proto| {
        problems.field("stats_matcher", |problems| stats_matcher_of(problems, proto))
    });
    let buckets = histogram_bucket_settings.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("histogram_bucket_settings", index, |problems| buckets(problems, proto))
    });
    StatsConfig { matcher, default_tags, tags, buckets: buckets.collect() }
}

/// `None` for one of Envoy's own tags, which are there anyway.
fn tag(problems: &mut Problems, proto: proto::TagSpecifier, default_tags: bool) -> Option<StatTag> {
    let proto::TagSpecifier { tag_name, tag_value } = proto;
    let is_empty = |value: &TagValue| matches!(value, TagValue::Regex(regex) if regex.is_empty());
    let value = match tag_value.filter(|value| !is_empty(value)) {
        None => {
            if !tag_name.starts_with("envoy.") {
                problems
                    .reject_field("regex", format!("required: {tag_name:?} is no tag of Envoy's"));
            }
            // Each of them, or none: they are not found by regexes here.
            problems.unsupported("tag_name", !default_tags);
            return None;
        }
        Some(TagValue::FixedValue(value)) => StatTagValue::Fixed(value.into()),
        Some(TagValue::Regex(regex)) => match Regex::new(&regex) {
            Ok(regex) if regex.captures_len() > 1 => StatTagValue::Regex(regex),
            Ok(_) => {
                problems.reject_field("regex", "has no group that could be the value");
                return None;
            }
            Err(error) => {
                problems.reject_field("regex", error.to_string());
                return None;
            }
        },
    };
    Some(StatTag { name: text(problems, "tag_name", tag_name).into(), value })
}

fn stats_matcher_of(problems: &mut Problems, proto: proto::StatsMatcher) -> Option<StatsMatcher> {
    let proto::StatsMatcher { stats_matcher } = proto;
    match stats_matcher {
        None => {
            problems.reject("one of reject_all, exclusion_list, inclusion_list is required");
            None
        }
        Some(Matcher::RejectAll(all)) => all.then_some(StatsMatcher::RejectAll),
        Some(Matcher::ExclusionList(list)) => {
            Some(StatsMatcher::Exclusion(names(problems, "exclusion_list", list)))
        }
        Some(Matcher::InclusionList(list)) => {
            Some(StatsMatcher::Inclusion(names(problems, "inclusion_list", list)))
        }
    }
}

fn names(problems: &mut Problems, name: &str, proto: ListStringMatcher) -> Vec<StringMatcher> {
    let ListStringMatcher { patterns } = proto;
    problems.field(name, |problems| {
        if patterns.is_empty() {
            problems.reject_field("patterns", "must have at least one entry");
        }
        let one = |(index, pattern)| {
            problems.element("patterns", index, |problems| matcher::string(problems, pattern))
        };
        patterns.into_iter().enumerate().filter_map(one).collect()
    })
}

fn buckets(
    problems: &mut Problems,
    proto: proto::HistogramBucketSettings,
) -> Option<HistogramBuckets> {
    let proto::HistogramBucketSettings { r#match, buckets, bins } = proto;
    unsupported!(problems; bins);
    if buckets.iter().any(|bound| bound.is_nan() || *bound <= 0.0) {
        problems.reject_field("buckets", "must be more than zero");
    }
    let mut bounds = buckets;
    bounds.sort_by(f64::total_cmp);
    if bounds.windows(2).any(|pair| pair[0] == pair[1]) {
        problems.reject_field("buckets", "must differ from each other");
    }
    let names = required(problems, "match", r#match)?;
    let names = problems.field("match", |problems| matcher::string(problems, names))?;
    Some(HistogramBuckets { names, bounds: bounds.into() })
}
