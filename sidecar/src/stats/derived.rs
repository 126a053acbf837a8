//! Statistics that are no cells: worked out of several when somebody reads them, such as answers by class.

use super::cell::{Counter, ResponseCodes};
use super::cells::{AuthCounters, ClusterCells, HttpCells, HttpListenerCells};
use super::grpc;
use super::histogram::{Histogram, Snapshot};
use super::registry::{Name, Reading, Sink};

pub(super) fn cluster_responses(shards: &[&ClusterCells], sink: &mut Sink<'_>) {
    let mut all = [0; 500];
    for (prefix, responses) in [
        ("external.", (|cells| &cells.responses_external) as fn(&ClusterCells) -> &ResponseCodes),
        ("internal.", |cells| &cells.responses_internal),
    ] {
        let mut sums = [0; 500];
        shards.iter().for_each(|cells| responses(cells).add_to(&mut sums));
        responses_by_code(prefix, "upstream_rq", &sums, sink);
        all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
    }
    responses_by_code("", "upstream_rq", &all, sink);
    let mut retried = [0; 500];
    shards.iter().for_each(|cells| cells.responses_retry.add_to(&mut retried));
    responses_by_code("retry.", "upstream_rq", &retried, sink);

    for (name, counter) in [
        ("ext_authz.ok", (|counters| &counters.ok) as fn(&AuthCounters) -> &Counter),
        ("ext_authz.denied", |counters| &counters.denied),
        ("ext_authz.error", |counters| &counters.error),
        ("ext_authz.failure_mode_allowed", |counters| &counters.failure_mode_allowed),
        ("ext_authz.invalid", |counters| &counters.invalid),
    ] {
        let sum = shards.iter().map(|cells| counter(&cells.ext_authz).value());
        let sum = sum.fold(0u64, u64::wrapping_add);
        if sum > 0 {
            sink(Name::plain(name), Reading::Counter { value: sum, used: true });
        }
    }

    grpc::read(shards.iter().map(|cells| &cells.grpc), sink);

    let mut all = Snapshot::default();
    for (name, histogram) in [
        (
            "external.upstream_rq_time",
            (|cells| &cells.upstream_rq_time_external) as fn(&ClusterCells) -> &Histogram,
        ),
        ("internal.upstream_rq_time", |cells| &cells.upstream_rq_time_internal),
    ] {
        let mut snapshot = Snapshot::default();
        shards.iter().for_each(|cells| histogram(cells).add_to(&mut snapshot));
        if !snapshot.is_empty() {
            sink(Name::plain(name), Reading::Histogram(&snapshot));
        }
        shards.iter().for_each(|cells| histogram(cells).add_to(&mut all));
    }
    if !all.is_empty() {
        sink(Name::plain("upstream_rq_time"), Reading::Histogram(&all));
    }
}

pub(super) fn http_responses(shards: &[&HttpCells], sink: &mut Sink<'_>) {
    let mut sums = [0; 500];
    shards.iter().for_each(|cells| cells.responses.add_to(&mut sums));
    responses_by_class("downstream_rq", &sums, sink);
}

pub(super) fn listener_responses(shards: &[&HttpListenerCells], sink: &mut Sink<'_>) {
    let mut sums = [0; 500];
    shards.iter().for_each(|cells| cells.responses.add_to(&mut sums));
    responses_by_class("downstream_rq", &sums, sink);
}

/// `STEM_200`, `STEM_2xx` and `STEM_completed`, each only once something was counted.
fn responses_by_code(prefix: &str, stem: &str, sums: &[u64; 500], sink: &mut Sink<'_>) {
    let base = format!("{prefix}{stem}");
    let class_base = format!("{base}_xx");
    let mut completed = 0;
    for (class, codes) in (1u16..).zip(sums.chunks_exact(100)) {
        let mut in_class = 0;
        for (code, &value) in (class * 100..).zip(codes).filter(|&(_, &value)| value > 0) {
            let code = code.to_string();
            let tags = [("envoy_response_code", code.as_str())];
            let text = format!("{base}_{code}");
            sink(Name { text: &text, stem: &base, tags: &tags }, counter(value));
            in_class += value;
        }
        if in_class > 0 {
            let digit = class.to_string();
            let tags = [("envoy_response_code_class", digit.as_str())];
            let text = format!("{base}_{class}xx");
            sink(Name { text: &text, stem: &class_base, tags: &tags }, counter(in_class));
        }
        completed += in_class;
    }
    if completed > 0 {
        sink(Name::plain(&format!("{base}_completed")), counter(completed));
    }
}

/// `STEM_1xx` to `STEM_5xx` and `STEM_completed`, always.
fn responses_by_class(stem: &str, sums: &[u64; 500], sink: &mut Sink<'_>) {
    let class_base = format!("{stem}_xx");
    for (class, codes) in (1u16..).zip(sums.chunks_exact(100)) {
        let digit = class.to_string();
        let tags = [("envoy_response_code_class", digit.as_str())];
        let text = format!("{stem}_{class}xx");
        let value = codes.iter().sum();
        sink(Name { text: &text, stem: &class_base, tags: &tags }, counter(value));
    }
    sink(Name::plain(&format!("{stem}_completed")), counter(sums.iter().sum()));
}

fn counter(value: u64) -> Reading<'static> {
    Reading::Counter { value, used: value != 0 }
}
