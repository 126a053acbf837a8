//! Sends statistics to statsd servers (`stats_sinks`), on a thread of its own: with thousands of clusters that takes a while,
//! for which discovery does not wait.
//!
//! As in Envoy each statistic that was ever used is a datagram: `PREFIX.NAME:5|c` says by how much a counter grew since the
//! last flush, `|g` what a gauge shows. The samples of histograms (`|ms`) are sent with the flush as well, where Envoy sends
//! each when it comes: one datagram for each value, whose sample rate says for how many it stands.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::config::stats::StatsdSink;
use crate::stats::histogram::Snapshot;
use crate::stats::registry::Reading;
use crate::stats::{Registry, ServerCells, Sharded};

/// The thread that sends. It ends when this is dropped.
pub(super) struct Sinks {
    wake: SyncSender<()>,
    cells: Arc<Sharded<ServerCells>>,
}

impl Sinks {
    /// Starts the thread; `None` without a sink.
    ///
    /// # Errors
    /// If there is no socket, or no thread.
    pub(super) fn start(
        sinks: &[StatsdSink],
        registry: &Arc<Registry>,
        cells: &Arc<Sharded<ServerCells>>,
    ) -> io::Result<Option<Self>> {
        if sinks.is_empty() {
            return Ok(None);
        }
        let servers = sinks.iter().map(Statsd::new).collect::<io::Result<Vec<_>>>()?;
        let (wake, woken) = sync_channel(1);
        let registry = Arc::clone(registry);
        std::thread::Builder::new()
            .name("stats-sinks".to_owned())
            .spawn(move || run(&servers, &registry, &woken))?;
        Ok(Some(Self { wake, cells: Arc::clone(cells) }))
    }

    /// Sends what there is now. Where the last time is not over it is left out, and counted.
    pub(super) fn flush(&self) {
        if let Err(TrySendError::Full(())) = self.wake.try_send(()) {
            self.cells.local().dropped_stat_flushes.inc();
        }
    }
}

fn run(servers: &[Statsd], registry: &Registry, woken: &Receiver<()>) {
    let mut before = Before::default();
    while woken.recv().is_ok() {
        for line in before.lines(registry) {
            servers.iter().for_each(|server| server.send(&line));
        }
    }
}

/// A statsd server.
struct Statsd {
    socket: UdpSocket,
    prefix: Box<str>,
}

impl Statsd {
    fn new(sink: &StatsdSink) -> io::Result<Self> {
        let any: SocketAddr = match sink.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(sink.address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, prefix: sink.prefix.clone() })
    }

    fn send(&self, line: &str) {
        // Nobody need listen, and what does not fit is lost, as all of UDP may be.
        let _ = self.socket.send(format!("{}.{line}", self.prefix).as_bytes());
    }
}

/// What was sent before.
#[derive(Default)]
struct Before {
    counters: HashMap<String, u64>,
    histograms: HashMap<String, Snapshot>,
}

impl Before {
    /// What there is to send, a line for each datagram, without the prefix. What is gone is forgotten.
    fn lines(&mut self, registry: &Registry) -> Vec<String> {
        let mut lines = Vec::new();
        let mut now = Self::default();
        registry.visit(&mut |sample| {
            let name = match sample.prefix {
                "" => sample.name.text.to_owned(),
                prefix => format!("{prefix}.{}", sample.name.text),
            };
            match sample.reading {
                Reading::Counter { value, used: true } => {
                    let before = self.counters.get(&name).copied().unwrap_or(0);
                    // Smaller: the operator has set it to 0.
                    let delta = value.checked_sub(before).unwrap_or(value);
                    lines.push(format!("{name}:{delta}|c"));
                    now.counters.insert(name, value);
                }
                Reading::Gauge { value, used: true } => lines.push(format!("{name}:{value}|g")),
                Reading::Histogram(all) if !all.is_empty() => {
                    let since = match self.histograms.get(&name) {
                        Some(before) => all.since(before),
                        None => all.clone(),
                    };
                    for (left, _, count) in since.bins() {
                        let rate = match count {
                            1 => String::new(),
                            count => format!("|@{}", 1.0 / count as f64),
                        };
                        lines.push(format!("{name}:{left}|ms{rate}"));
                    }
                    now.histograms.insert(name, all.clone());
                }
                Reading::Counter { .. } | Reading::Gauge { .. } => {}
                // statsd has no texts.
                Reading::Histogram(_) | Reading::Text(_) => {}
            }
        });
        *self = now;
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{ClusterCells, Scope};

    fn of_cluster(before: &mut Before, registry: &Registry) -> Vec<String> {
        before.lines(registry).into_iter().filter(|it| it.starts_with("cluster.a.")).collect()
    }

    #[test]
    fn counters_say_what_came_since_the_last_time_and_gauges_what_they_show() {
        let registry = Registry::new(0);
        let cells: Arc<Sharded<ClusterCells>> = registry.scope(Scope::Cluster("a".into()));
        let mut before = Before::default();
        assert_eq!(of_cluster(&mut before, &registry), [""; 0], "nothing was used");
        cells.local().upstream_rq_total.add(3);
        cells.local().upstream_rq_active.inc();
        let expected = ["cluster.a.upstream_rq_active:1|g", "cluster.a.upstream_rq_total:3|c"];
        assert_eq!(of_cluster(&mut before, &registry), expected);
        cells.local().upstream_rq_total.inc();
        cells.local().upstream_rq_active.dec();
        let expected = ["cluster.a.upstream_rq_active:0|g", "cluster.a.upstream_rq_total:1|c"];
        assert_eq!(of_cluster(&mut before, &registry), expected);
        registry.reset_counters();
        cells.local().upstream_rq_total.add(2);
        let expected = ["cluster.a.upstream_rq_active:0|g", "cluster.a.upstream_rq_total:2|c"];
        assert_eq!(of_cluster(&mut before, &registry), expected);
    }

    #[test]
    fn samples_of_one_value_are_one_datagram_with_a_rate() {
        let registry = Registry::new(0);
        let cells: Arc<Sharded<ClusterCells>> = registry.scope(Scope::Cluster("a".into()));
        let histogram = &cells.local().upstream_cx_connect_ms;
        [7, 7, 30].into_iter().for_each(|value| histogram.record(value));
        let mut before = Before::default();
        let expected = [
            "cluster.a.upstream_cx_connect_ms:7|ms|@0.5",
            "cluster.a.upstream_cx_connect_ms:30|ms",
        ];
        assert_eq!(of_cluster(&mut before, &registry), expected);
        histogram.record(7);
        let expected = ["cluster.a.upstream_cx_connect_ms:7|ms"];
        assert_eq!(of_cluster(&mut before, &registry), expected);
        assert_eq!(of_cluster(&mut before, &registry), [""; 0]);
    }
}
