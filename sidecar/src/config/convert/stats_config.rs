//! `StatsConfig`.

use outrigger_proto::envoy::config::metrics::v3 as proto;
use outrigger_proto::envoy::config::metrics::v3::stats_matcher::StatsMatcher as Matcher;
use outrigger_proto::envoy::config::metrics::v3::tag_specifier::TagValue;
use outrigger_proto::envoy::r#type::matcher::v3::ListStringMatcher;
use regex::Regex;

use crate::config::Problems;
use crate::config::matcher::StringMatcher;
use crate::config::stats::{HistogramBuckets, StatTag, StatTagValue, StatsConfig, StatsMatcher};

use super::common::{required, text, unsupported};
use super::matcher;

pub(super) fn convert(problems: &mut Problems, proto: proto::StatsConfig) -> StatsConfig {
    let proto::StatsConfig {
        stats_tags,
        use_all_default_tags,
        stats_matcher,
        histogram_bucket_settings,
        allow_default_tag_overrides: _, // of a tag of the same name Envoy's own counts, as by default
    } = proto;
    if use_all_default_tags.is_some_and(|all| !all.value) {
        problems.unsupported("use_all_default_tags", true);
    }
    let tags = stats_tags.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("stats_tags", index, |problems| tag(problems, proto))
    });
    let tags = tags.collect();
    let matcher = stats_matcher.and_then(|proto| {
        problems.field("stats_matcher", |problems| stats_matcher_of(problems, proto))
    });
    let buckets = histogram_bucket_settings.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("histogram_bucket_settings", index, |problems| buckets(problems, proto))
    });
    StatsConfig { matcher, tags, buckets: buckets.collect() }
}

/// `None` for one of Envoy's own tags, which are there anyway.
fn tag(problems: &mut Problems, proto: proto::TagSpecifier) -> Option<StatTag> {
    let proto::TagSpecifier { tag_name, tag_value } = proto;
    let value = match tag_value {
        None => return None,
        Some(TagValue::Regex(regex)) if regex.is_empty() => return None,
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
