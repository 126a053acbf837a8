//! `StatsConfig`.

use serde_json::json;

use super::harness::{accepted, refused, refused_at};
use crate::config::stats::{StatTagValue, StatsMatcher};

#[test]
fn what_is_said_of_statistics_arrives() {
    let bootstrap = accepted(&[(
        "stats_config",
        json!({
            "stats_tags": [
                {"tag_name": "a", "fixed_value": "b"},
                {"tag_name": "c", "regex": "^x((.))"},
                {"tag_name": "envoy.cluster_name"},
            ],
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster."}]}},
            "histogram_bucket_settings": [{"match": {"exact": "h"}, "buckets": [3, 1, 2]}],
        }),
    )]);
    let stats = &bootstrap.stats;
    assert_eq!(stats.tags.len(), 2, "Envoy's own tags are there anyway");
    assert!(matches!(&stats.tags[0].value, StatTagValue::Fixed(value) if &**value == "b"));
    assert!(matches!(&stats.tags[1].value, StatTagValue::Regex(_)));
    let matcher = stats.matcher.as_ref().expect("a matcher");
    assert!(matcher.keeps("cluster.a.b") && !matcher.keeps("http.a.b"));
    assert_eq!(*stats.buckets[0].bounds, [1.0, 2.0, 3.0]);
}

#[test]
fn a_matcher_keeps_all_but_what_it_excludes_or_nothing() {
    let exclusion = json!({"exclusion_list": {"patterns": [{"suffix": "_x"}]}});
    let bootstrap = accepted(&[("stats_config.stats_matcher", exclusion)]);
    let matcher = bootstrap.stats.matcher.expect("a matcher");
    assert!(matcher.keeps("a") && !matcher.keeps("a_x"));
    let bootstrap = accepted(&[("stats_config.stats_matcher", json!({"reject_all": true}))]);
    assert!(matches!(bootstrap.stats.matcher, Some(StatsMatcher::RejectAll)));
    let bootstrap = accepted(&[("stats_config.stats_matcher", json!({"reject_all": false}))]);
    assert!(bootstrap.stats.matcher.is_none());
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    refused("stats_config.stats_matcher", json!({}), "required");
    for (field, value, path, reason) in [
        ("stats_tags", json!([{"tag_name": "a", "regex": "("}]), "stats_tags[0].regex", "unclosed"),
        ("stats_tags", json!([{"tag_name": "a", "regex": "a"}]), "stats_tags[0].regex", "no group"),
        (
            "histogram_bucket_settings",
            json!([{"match": {"exact": "h"}, "buckets": [0]}]),
            "histogram_bucket_settings[0].buckets",
            "more than zero",
        ),
        (
            "histogram_bucket_settings",
            json!([{"match": {"exact": "h"}, "buckets": [1, 1]}]),
            "histogram_bucket_settings[0].buckets",
            "differ",
        ),
        (
            "histogram_bucket_settings",
            json!([{"buckets": [1]}]),
            "histogram_bucket_settings[0].match",
            "required",
        ),
        (
            "histogram_bucket_settings",
            json!([{"match": {"exact": "h"}, "bins": 7}]),
            "histogram_bucket_settings[0].bins",
            "not supported",
        ),
    ] {
        let config = json!({field: value});
        refused_at(&[("stats_config", config)], &format!("stats_config.{path}"), reason);
    }
}
