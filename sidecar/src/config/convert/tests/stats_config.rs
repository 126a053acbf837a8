//! `StatsConfig`.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{accepted, refused, refused_at};
use crate::config::stats::{StatTagValue, StatsFlush, StatsMatcher};

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

fn statsd(fields: &Value) -> Value {
    let mut config = fields.clone();
    config["@type"] = json!("type.googleapis.com/envoy.config.metrics.v3.StatsdSink");
    json!([{"name": "s", "typed_config": config}])
}

fn address() -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": 8125}})
}

#[test]
fn sinks_have_an_address_and_a_prefix() {
    let bootstrap = accepted(&[("stats_sinks", statsd(&json!({"address": address()})))]);
    let sink = &bootstrap.stats_sinks[0];
    assert_eq!((sink.address.to_string().as_str(), &*sink.prefix), ("127.0.0.1:8125", "envoy"));
    assert_eq!(bootstrap.stats_flush, StatsFlush::Every(Duration::from_secs(5)));
    let mine = statsd(&json!({"address": address(), "prefix": "mine"}));
    let bootstrap = accepted(&[("stats_sinks", mine), ("stats_flush_interval", json!("0.5s"))]);
    assert_eq!(&*bootstrap.stats_sinks[0].prefix, "mine");
    assert_eq!(bootstrap.stats_flush, StatsFlush::Every(Duration::from_millis(500)));
    let bootstrap = accepted(&[("stats_flush_on_admin", json!(true))]);
    assert_eq!(bootstrap.stats_flush, StatsFlush::OnAdmin);
}

#[test]
fn what_is_wrong_with_sinks_and_flushes_is_refused() {
    let dog = json!([{"name": "d", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink", "address": address()}}]);
    let config = "stats_sinks[0].typed_config";
    refused_at(&[("stats_sinks", dog)], config, "DogStatsdSink is not");
    refused_at(&[("stats_sinks", json!([{"name": "d"}]))], config, "required");
    let tcp = statsd(&json!({"tcp_cluster_name": "static"}));
    let field = format!("{config}.tcp_cluster_name");
    refused_at(&[("stats_sinks", tcp)], &field, "not supported");
    let nowhere = statsd(&json!({}));
    refused_at(&[("stats_sinks", nowhere)], &format!("{config}.address"), "required");
    refused("stats_flush_interval", json!("300s"), "below 300s");
    refused("stats_flush_interval", json!("0.0001s"), "from 0.001s");
    refused("stats_flush_on_admin", json!(false), "must be true");
    refused_at(
        &[("stats_flush_on_admin", json!(true)), ("stats_flush_interval", json!("1s"))],
        "stats_flush_on_admin",
        "together with stats_flush_interval",
    );
}
