//! gRPC calls to a cluster, by method: what `envoy.filters.http.grpc_stats` counts.
//!
//! Names come from requests, so there is a limit to them: calls of methods beyond it are counted without a name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::cell::Counter;
use super::histogram::{Histogram, Snapshot};
use super::registry::{Name, Reading, Sink};

/// Most bytes of names of a cluster's methods that one thread keeps.
const ROOM: usize = 256 * 1024;

/// The calls to a cluster that one thread counts. Costs nothing until there is one.
#[derive(Debug, Default)]
pub(crate) struct GrpcCalls(OnceLock<Box<Mutex<Methods>>>);

#[derive(Debug, Default)]
struct Methods {
    /// Calls that are not counted by method.
    all: Arc<GrpcMethodCells>,
    /// By service, then by method.
    named: HashMap<Box<str>, HashMap<Box<str>, Arc<GrpcMethodCells>>>,
    /// Bytes of the names.
    bytes: usize,
}

/// Calls of one method.
#[derive(Debug, Default)]
pub(crate) struct GrpcMethodCells {
    pub(crate) success: Counter,
    pub(crate) failure: Counter,
    pub(crate) request_message_count: Counter,
    pub(crate) response_message_count: Counter,
    pub(crate) upstream_rq_time: Histogram,
    /// By the statuses that gRPC defines.
    statuses: [Counter; 17],
}

impl GrpcMethodCells {
    /// Counts how a call ended. A status that gRPC does not define has no counter of its own.
    pub(crate) fn ended(&self, status: &[u8]) {
        if status == b"0" {
            self.success.inc()
        } else {
            self.failure.inc()
        }
        let known = std::str::from_utf8(status).ok().and_then(|text| text.parse::<usize>().ok());
        // `00` is none of them.
        let known = known.filter(|number| status.len() == if *number < 10 { 1 } else { 2 });
        if let Some(counter) = known.and_then(|number| self.statuses.get(number)) {
            counter.inc();
        }
    }
}

impl GrpcCalls {
    /// The calls of a method, or of all those that have none.
    pub(crate) fn of(&self, method: Option<(&str, &str)>) -> Arc<GrpcMethodCells> {
        let mut methods = lock(self.0.get_or_init(Box::default));
        let Some((service, method)) = method else { return Arc::clone(&methods.all) };
        let known = methods.named.get(service).and_then(|methods| methods.get(method));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let bytes = methods.bytes + service.len() + method.len();
        if bytes > ROOM {
            return Arc::clone(&methods.all);
        }
        methods.bytes = bytes;
        let of_service = methods.named.entry(service.into()).or_default();
        Arc::clone(of_service.entry(method.into()).or_default())
    }
}

fn lock(methods: &Mutex<Methods>) -> MutexGuard<'_, Methods> {
    methods.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives what all threads counted to `sink`. As in Envoy a name is there once something was counted under it.
pub(super) fn read<'a>(shards: impl Iterator<Item = &'a GrpcCalls>, sink: &mut Sink<'_>) {
    let mut all: BTreeMap<String, Vec<Arc<GrpcMethodCells>>> = BTreeMap::new();
    for methods in shards.filter_map(|calls| calls.0.get()) {
        let methods = lock(methods);
        all.entry(String::new()).or_default().push(Arc::clone(&methods.all));
        for (service, methods) in &methods.named {
            for (method, cells) in methods {
                let prefix = format!("{service}.{method}.");
                all.entry(prefix).or_default().push(Arc::clone(cells));
            }
        }
    }
    for (prefix, cells) in &all {
        let sum = |counter: &dyn Fn(&GrpcMethodCells) -> u64| {
            cells.iter().fold(0u64, |sum, cells| sum.wrapping_add(counter(cells)))
        };
        let success = sum(&|cells| cells.success.value());
        let failure = sum(&|cells| cells.failure.value());
        let mut counted = vec![
            ("success".to_owned(), success),
            ("failure".to_owned(), failure),
            ("total".to_owned(), success.wrapping_add(failure)),
            ("request_message_count".to_owned(), sum(&|cells| cells.request_message_count.value())),
            (
                "response_message_count".to_owned(),
                sum(&|cells| cells.response_message_count.value()),
            ),
        ];
        for status in 0..17 {
            let value = sum(&|cells| cells.statuses.get(status).map_or(0, Counter::value));
            counted.push((status.to_string(), value));
        }
        for (name, value) in counted.into_iter().filter(|(_, value)| *value > 0) {
            named(prefix, &name, Reading::Counter { value, used: true }, sink);
        }
        let mut times = Snapshot::default();
        cells.iter().for_each(|cells| cells.upstream_rq_time.add_to(&mut times));
        if !times.is_empty() {
            named(prefix, "upstream_rq_time", Reading::Histogram(&times), sink);
        }
    }
}

/// Envoy takes the first two parts of a name for the service and the method, wherever the names of these have dots.
fn named(prefix: &str, name: &str, reading: Reading<'_>, sink: &mut Sink<'_>) {
    let text = format!("grpc.{prefix}{name}");
    let mut parts = prefix.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), Some(rest)) => {
            let stem = format!("grpc.{rest}{name}");
            let tags =
                [("envoy_grpc_bridge_service", service), ("envoy_grpc_bridge_method", method)];
            sink(Name { text: &text, stem: &stem, tags: &tags }, reading);
        }
        _ => sink(Name::plain(&text), reading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(calls: &GrpcCalls) -> Vec<String> {
        let mut names = Vec::new();
        read([calls].into_iter(), &mut |name, _| names.push(name.text.to_owned()));
        names
    }

    #[test]
    fn a_status_that_grpc_does_not_define_has_no_counter() {
        let calls = GrpcCalls::default();
        let cells = calls.of(Some(("a.B", "C")));
        for status in ["0", "16", "17", "00", "x", "", "99999999999999999999"] {
            cells.ended(status.as_bytes());
        }
        assert_eq!(
            names(&calls),
            ["success", "failure", "total", "0", "16"].map(|name| format!("grpc.a.B.C.{name}"))
        );
    }

    #[test]
    fn what_clients_call_cannot_fill_the_memory() {
        let calls = GrpcCalls::default();
        let long = "x".repeat(1000);
        for number in 0..1000 {
            calls.of(Some((&format!("{number}"), &long))).ended(b"0");
        }
        let names = names(&calls);
        assert!(names.iter().map(String::len).sum::<usize>() < 4 * ROOM);
        assert!(names.contains(&"grpc.success".to_owned()), "the rest is counted without a name");
        calls.of(Some(("0", &long))).ended(b"0");
    }
}
