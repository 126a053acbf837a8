//! What is counted, and how it is printed. Names and forms are those of Envoy 1.40.

use std::sync::Arc;

use regex::Regex;
use serde_json::json;

use super::render::{self, Filter, HistogramForm, Kind};
use super::*;

fn text(registry: &Registry, filter: &Filter) -> String {
    render::text(registry, filter, HistogramForm::Summary)
}

fn used() -> Filter {
    Filter { used_only: true, ..Filter::default() }
}

fn named(name: &str) -> Filter {
    Filter { name: Some(Regex::new(name).unwrap()), ..Filter::default() }
}

fn prometheus(registry: &Registry, filter: &Filter) -> String {
    prometheus::render(registry, filter, HistogramForm::Cumulative, false)
}

#[test]
fn a_scope_asked_for_twice_is_one_and_lives_as_long_as_someone_holds_it() {
    let registry = Registry::new(0);
    let first = registry.scope::<TcpCells>(Scope::Tcp("x".into()));
    let second = registry.scope::<TcpCells>(Scope::Tcp("x".into()));
    assert!(Arc::ptr_eq(&first, &second));
    first.local().downstream_cx_total.inc();
    assert!(text(&registry, &Filter::default()).contains("tcp.x.downstream_cx_total: 1\n"));
    drop((first, second));
    assert_eq!(text(&registry, &Filter::default()), "");
}

#[test]
fn different_cells_of_one_scope_are_printed_together_sorted_by_name() {
    let registry = Registry::new(0);
    let cluster = registry.scope::<ClusterCells>(Scope::Cluster("c".into()));
    let tls = registry.scope::<TlsCells>(Scope::Cluster("c".into()));
    let version = NamedAs::tagged("ssl.versions", "envoy_ssl_version", "TLSv1.3");
    let version = registry.counter(Scope::Cluster("c".into()), version);
    cluster.local().upstream_rq_total.inc();
    cluster.local().upstream_cx_total.inc();
    tls.local().handshake.inc();
    version.inc();
    assert_eq!(
        text(&registry, &used()),
        "cluster.c.ssl.handshake: 1\ncluster.c.ssl.versions.TLSv1.3: 1\n\
         cluster.c.upstream_cx_total: 1\ncluster.c.upstream_rq_total: 1\n"
    );
    let printed = prometheus(&registry, &used());
    let line =
        "envoy_cluster_ssl_versions{envoy_ssl_version=\"TLSv1.3\",envoy_cluster_name=\"c\"} 1\n";
    assert!(printed.contains(line), "{printed}");
}

#[test]
fn counts_of_all_threads_are_added_up() {
    let registry = Registry::new(2);
    let cells = registry.scope::<HttpCells>(Scope::Http("in".into()));
    cells.local().downstream_rq_total.inc();
    std::thread::scope(|scope| {
        for worker in [1, 2] {
            let cells = &cells;
            scope.spawn(move || {
                set_shard(worker);
                cells.local().downstream_rq_total.add(10);
                cells.local().downstream_rq_active.inc();
                cells.local().downstream_rq_time.record(5);
            });
        }
    });
    let printed = text(&registry, &used());
    assert!(printed.contains("http.in.downstream_rq_total: 21\n"));
    assert!(printed.contains("http.in.downstream_rq_active: 2\n"));
    assert!(printed.contains("http.in.downstream_rq_time: P0(nan,5.033333333333333)"), "{printed}");
}

#[test]
fn one_response_counts_its_code_its_class_and_the_total_internal_or_external() {
    let registry = Registry::new(0);
    let cells = registry.scope::<ClusterCells>(Scope::Cluster("c".into()));
    cells.local().responses_external.record(503);
    cells.local().responses_internal.record(200);
    cells.local().upstream_rq_time_internal.record(1);
    let numbers = Filter { kind: Some(Kind::Counters), ..used() };
    assert_eq!(
        text(&registry, &numbers),
        "cluster.c.external.upstream_rq_503: 1\ncluster.c.external.upstream_rq_5xx: 1\n\
         cluster.c.external.upstream_rq_completed: 1\ncluster.c.internal.upstream_rq_200: 1\n\
         cluster.c.internal.upstream_rq_2xx: 1\ncluster.c.internal.upstream_rq_completed: 1\n\
         cluster.c.upstream_rq_200: 1\ncluster.c.upstream_rq_2xx: 1\ncluster.c.upstream_rq_503: 1\n\
         cluster.c.upstream_rq_5xx: 1\ncluster.c.upstream_rq_completed: 2\n"
    );
    assert_eq!(
        prometheus(&registry, &numbers),
        "# TYPE envoy_cluster_external_upstream_rq counter\n\
         envoy_cluster_external_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_external_upstream_rq_completed counter\n\
         envoy_cluster_external_upstream_rq_completed{envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_external_upstream_rq_xx counter\n\
         envoy_cluster_external_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_internal_upstream_rq counter\n\
         envoy_cluster_internal_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_internal_upstream_rq_completed counter\n\
         envoy_cluster_internal_upstream_rq_completed{envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_internal_upstream_rq_xx counter\n\
         envoy_cluster_internal_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"c\"} 1\n\
         envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"c\"} 1\n\
         # TYPE envoy_cluster_upstream_rq_completed counter\n\
         envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"c\"} 2\n\
         # TYPE envoy_cluster_upstream_rq_xx counter\n\
         envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"c\"} 1\n\
         envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"c\"} 1\n"
    );
}

#[test]
fn series_of_one_metric_stand_together_under_one_type_line() {
    let registry = Registry::new(0);
    let scopes: Vec<_> = ["127.0.0.1:80", "ll2"]
        .map(|address| registry.scope::<ListenerCells>(Scope::Listener(address.into())))
        .into();
    let worker =
        registry.scope::<ListenerWorkerCells>(Scope::ListenerWorker("127.0.0.1:80".into(), 0));
    scopes[0].local().downstream_cx_total.add(3);
    worker.local().downstream_cx_total.add(3);
    let printed = prometheus(&registry, &named("downstream_cx_total"));
    assert_eq!(
        printed,
        "# TYPE envoy_listener_downstream_cx_total counter\n\
         envoy_listener_downstream_cx_total{envoy_listener_address=\"127.0.0.1_80\"} 3\n\
         envoy_listener_downstream_cx_total{envoy_listener_address=\"ll2\"} 0\n\
         # TYPE envoy_listener_worker_downstream_cx_total counter\n\
         envoy_listener_worker_downstream_cx_total{envoy_worker_id=\"0\",envoy_listener_address=\"127.0.0.1_80\"} 3\n"
    );
}

#[test]
fn a_histogram_in_prometheus_has_envoys_buckets_sum_and_count() {
    let registry = Registry::new(0);
    let cells = registry.scope::<HttpCells>(Scope::Http("ingress".into()));
    for value in [1, 1, 2] {
        cells.local().downstream_cx_length_ms.record(value);
    }
    let printed = prometheus(&registry, &named("cx_length"));
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], "# TYPE envoy_http_downstream_cx_length_ms histogram");
    let name = "envoy_http_downstream_cx_length_ms";
    let labels = "envoy_http_conn_manager_prefix=\"ingress\"";
    for (at, (bound, count)) in
        [("0.5", 0), ("1", 2), ("5", 3), ("10", 3), ("25", 3)].into_iter().enumerate()
    {
        assert_eq!(lines[at + 1], format!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}"));
    }
    assert_eq!(lines[19], format!("{name}_bucket{{{labels},le=\"3600000\"}} 3"));
    assert_eq!(lines[20], format!("{name}_bucket{{{labels},le=\"+Inf\"}} 3"));
    assert_eq!(lines[21], format!("{name}_sum{{{labels}}} 4.1440185830429729918478187755682"));
    assert_eq!(lines[22], format!("{name}_count{{{labels}}} 3"));
    assert_eq!(lines.len(), 23);
}

#[test]
fn an_interval_of_a_histogram_ends_with_a_flush() {
    let registry = Registry::new(0);
    let cells = registry.scope::<HttpCells>(Scope::Http("ingress".into()));
    let print = || text(&registry, &named("^http.ingress.downstream_rq_time$"));
    assert_eq!(print(), "http.ingress.downstream_rq_time: No recorded values\n");
    cells.local().downstream_rq_time.record(0);
    registry.flush_histograms();
    assert!(print().starts_with("http.ingress.downstream_rq_time: P0(0,0) P25(0,0) P50(0,0) "));
    cells.local().downstream_rq_time.record(100);
    registry.flush_histograms();
    assert!(print().contains(" P0(105,0) "), "{}", print());
    registry.flush_histograms();
    assert!(print().contains(" P0(nan,0) "), "{}", print());
}

#[test]
fn histograms_have_four_forms() {
    let registry = Registry::new(0);
    let cells = registry.scope::<HttpCells>(Scope::Http("ingress".into()));
    for value in [1, 1, 2] {
        cells.local().downstream_cx_length_ms.record(value);
    }
    let filter = named("cx_length");
    let print = |form| render::text(&registry, &filter, form);
    assert!(
        print(HistogramForm::Cumulative).starts_with(
            "http.ingress.downstream_cx_length_ms: B0.5(0,0) B1(0,2) B5(0,3) B10(0,3) "
        )
    );
    assert!(
        print(HistogramForm::Cumulative).ends_with(" B600000(0,3) B1.8e+06(0,3) B3.6e+06(0,3)\n")
    );
    assert!(
        print(HistogramForm::Disjoint).starts_with(
            "http.ingress.downstream_cx_length_ms: B0.5(0,0) B1(0,2) B5(0,1) B10(0,0) "
        )
    );
    assert!(print(HistogramForm::Detailed).starts_with(
        "http.ingress.downstream_cx_length_ms:\n  totals=1,0.1:2, 2,0.1:1\n  intervals=\n  summary=P0(nan,1.0333333333333334) "
    ));
    let detailed = render::json(&registry, &filter, HistogramForm::Detailed);
    assert_eq!(
        detailed["stats"][0]["histograms"]["details"][0]["totals"],
        json!([{"lower_bound": 1, "width": 0.1, "count": 2}, {"lower_bound": 2, "width": 0.1, "count": 1}])
    );
    let cumulative = render::json(&registry, &filter, HistogramForm::Cumulative);
    assert_eq!(
        cumulative["stats"][0]["histograms"][0]["buckets"][1],
        json!({"upper_bound": 1, "interval": 0, "cumulative": 2})
    );
}

#[test]
fn json_lists_texts_then_numbers_then_all_histograms() {
    let registry = Registry::new(0);
    let version = registry.text(Scope::Cds, NamedAs::plain("version_text"));
    version.set("v\"1");
    let cds = registry.scope::<SubscriptionCells>(Scope::Cds);
    cds.local().update_success.inc();
    cds.local().update_duration.record(4);
    assert_eq!(
        render::json(&registry, &used(), HistogramForm::Summary)["stats"].as_array().unwrap()[..2],
        [
            json!({"name": "cluster_manager.cds.version_text", "value": "v\"1"}),
            json!({"name": "cluster_manager.cds.update_success", "value": 1}),
        ]
    );
    let all = render::json(&registry, &used(), HistogramForm::Summary);
    let histograms = &all["stats"][2]["histograms"];
    assert_eq!(
        histograms["supported_quantiles"],
        json!([0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100])
    );
    let first = &histograms["computed_quantiles"][0];
    assert_eq!(first["name"], "cluster_manager.cds.update_duration");
    assert_eq!(first["values"][0], json!({"cumulative": 4.05, "interval": null}));
    let printed = text(&registry, &used());
    assert!(printed.starts_with("cluster_manager.cds.version_text: \"v&quot;1\"\n"), "{printed}");
}

#[test]
fn a_text_is_in_prometheus_only_if_asked_for() {
    let registry = Registry::new(0);
    let version = registry.text(Scope::Cds, NamedAs::plain("version_text"));
    version.set("7");
    assert_eq!(prometheus(&registry, &Filter::default()), "");
    assert_eq!(
        prometheus::render(&registry, &Filter::default(), HistogramForm::Cumulative, true),
        "# TYPE envoy_cluster_manager_cds_version_text gauge\n\
         envoy_cluster_manager_cds_version_text{text_value=\"7\"} 0\n"
    );
}

#[test]
fn a_gauge_back_at_zero_counts_as_used_and_an_untouched_one_does_not() {
    let registry = Registry::new(0);
    let cells = registry.scope::<ListenerWorkerCells>(Scope::ListenerWorker("a".into(), 0));
    assert_eq!(text(&registry, &used()), "");
    cells.local().downstream_cx_active.inc();
    cells.local().downstream_cx_active.dec();
    assert_eq!(text(&registry, &used()), "listener.a.worker_0.downstream_cx_active: 0\n");
}

#[test]
fn a_filter_takes_or_leaves_what_matches_anywhere_in_the_full_name() {
    let registry = Registry::new(0);
    let _cells = registry.scope::<ListenerWorkerCells>(Scope::ListenerWorker("a".into(), 0));
    let total = "listener.a.worker_0.downstream_cx_total: 0\n";
    assert_eq!(text(&registry, &named("cx_tot")), total);
    let inverted = Filter { invert: true, ..named("cx_active") };
    assert_eq!(text(&registry, &inverted), total);
    let counters = Filter { kind: Some(Kind::Counters), ..Filter::default() };
    assert_eq!(text(&registry, &counters), total);
}

#[test]
fn reset_counters_begin_again_at_zero_while_gauges_stay() {
    let registry = Registry::new(0);
    let cells = registry.scope::<ListenerCells>(Scope::Listener("a".into()));
    cells.local().downstream_cx_total.add(5);
    cells.local().downstream_cx_active.add(2);
    let version = registry.counter(Scope::Listener("a".into()), NamedAs::plain("ssl.x"));
    version.inc();
    registry.reset_counters();
    cells.local().downstream_cx_total.inc();
    let printed = text(&registry, &Filter::default());
    assert!(printed.contains("listener.a.downstream_cx_total: 1\n"));
    assert!(printed.contains("listener.a.downstream_cx_active: 2\n"));
    assert!(printed.contains("listener.a.ssl.x: 0\n"));
    assert!(text(&registry, &used()).contains("downstream_cx_total"), "used before, used for ever");
}

#[test]
fn ten_thousand_unused_clusters_cost_no_cells() {
    let registry = Registry::new(4);
    let scopes: Vec<_> = (0..10_000)
        .map(|number| registry.scope::<ClusterCells>(Scope::Cluster(format!("c{number}").into())))
        .collect();
    assert!(scopes.iter().all(|cells| cells.used().count() == 0));
    scopes[17].local().upstream_rq_total.inc();
    assert_eq!(text(&registry, &used()), "cluster.c17.upstream_rq_total: 1\n");
}
