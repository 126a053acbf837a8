//! The way of spans from workers to the control thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Span;
use crate::config::tracing::OpenTelemetry;
use crate::stats::{Registry, Scope, Sharded, TracerCells};

/// Spans that are sent at once, where no more than these have come (Envoy's `min_flush_spans`).
const ENOUGH: usize = 5;
/// Spans wait at most so long for others (Envoy's `flush_interval_ms`).
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// Most spans of one batch: it stays well below the 4 MB that gRPC servers take.
const MAX_BATCH: usize = 512;

/// Takes the spans of one provider, from any worker.
#[derive(Debug)]
pub(crate) struct Reporter {
    config: Arc<OpenTelemetry>,
    spans: mpsc::Sender<Span>,
    cells: Arc<Sharded<TracerCells>>,
}

impl Reporter {
    /// Hands over a span. Where none has a place any more it is dropped, and counted.
    pub(crate) fn report(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.cells.local().spans_dropped.inc();
        }
    }
}

/// A provider that spans are to be sent for, from now on.
pub(crate) struct Opened {
    /// Where to.
    pub(crate) config: Arc<OpenTelemetry>,
    /// What.
    pub(crate) batches: Batches,
}

/// The reporters of the process, one for each provider that is configured. Lives on the control thread.
#[derive(Default)]
pub(crate) struct Reporters {
    known: Vec<Weak<Reporter>>,
    opened: Vec<Opened>,
}

impl Reporters {
    /// The reporter of a provider: the one that is there, or a new one. `None` if its spans are sent nowhere.
    pub(crate) fn of(
        &mut self,
        config: &Arc<OpenTelemetry>,
        registry: &Registry,
    ) -> Option<Arc<Reporter>> {
        config.exporter.as_ref()?;
        self.known.retain(|known| known.strong_count() > 0);
        let known = self.known.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.into_iter().find(|known| *known.config == **config) {
            return Some(known);
        }
        let (spans, received) = mpsc::channel(config.max_cache_size);
        let cells: Arc<Sharded<TracerCells>> = registry.scope(Scope::Root("tracing.opentelemetry"));
        let batches = Batches { spans: received, cells: Arc::clone(&cells) };
        let reporter = Arc::new(Reporter { config: Arc::clone(config), spans, cells });
        self.known.push(Arc::downgrade(&reporter));
        self.opened.push(Opened { config: Arc::clone(config), batches });
        Some(reporter)
    }

    /// Providers that came since the last call.
    pub(crate) fn take_opened(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.opened)
    }
}

/// Spans as they are to be sent.
pub(crate) struct Batches {
    spans: mpsc::Receiver<Span>,
    cells: Arc<Sharded<TracerCells>>,
}

impl Batches {
    /// The next batch: as soon as there are some spans, or they have waited for long enough, all that are there. `None`: no
    /// more will come, because nobody uses the provider any more.
    pub(crate) async fn next(&mut self) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        if self.spans.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return None;
        }
        let deadline = Instant::now() + FLUSH_INTERVAL;
        while batch.len() < ENOUGH {
            let room = MAX_BATCH - batch.len();
            match timeout_at(deadline, self.spans.recv_many(&mut batch, room)).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => {
                    self.cells.local().timer_flushed.inc();
                    break;
                }
            }
        }
        Some(batch)
    }

    /// What became of a batch.
    pub(crate) fn count(&self, spans: usize, arrived: bool) {
        let cells = self.cells.local();
        if arrived {
            cells.spans_sent.add(spans as u64);
        } else {
            cells.spans_dropped.add(spans as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::config::grpc_service::GrpcService;
    use crate::config::tracing::Exporter;
    use crate::trace::{Kind, SpanContext, SpanId, TraceId};

    fn config(cluster: &str) -> Arc<OpenTelemetry> {
        let service = GrpcService {
            cluster: cluster.into(),
            authority: None,
            timeout: None,
            initial_metadata: Vec::new(),
        };
        Arc::new(OpenTelemetry {
            exporter: Some(Exporter::Grpc(service)),
            resource: Vec::new(),
            instrumentation_scope: true,
            sampler: None,
            max_cache_size: 8,
        })
    }

    fn span() -> Span {
        let context = SpanContext {
            trace: TraceId::random(),
            span: SpanId::random(),
            sampled: true,
            state: http::HeaderValue::from_static(""),
        };
        let now = SystemTime::now();
        Span {
            context,
            parent: None,
            name: "a".to_owned(),
            kind: Kind::Server,
            start: now,
            end: now,
            attributes: Vec::new(),
            events: Vec::new(),
            failed: false,
        }
    }

    fn opened() -> (Arc<Registry>, Reporters, Arc<Reporter>, Batches) {
        let registry = Registry::new(1);
        let mut reporters = Reporters::default();
        let reporter = reporters.of(&config("a"), &registry).unwrap();
        let batches = reporters.take_opened().remove(0).batches;
        (registry, reporters, reporter, batches)
    }

    fn dropped(registry: &Registry) -> u64 {
        let cells: Arc<Sharded<TracerCells>> = registry.scope(Scope::Root("tracing.opentelemetry"));
        cells.local().spans_dropped.value()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_spans_wait_for_others_and_many_do_not() {
        let (_registry, _reporters, reporter, mut batches) = opened();
        let started = Instant::now();
        reporter.report(span());
        assert_eq!(batches.next().await.unwrap().len(), 1);
        assert_eq!(started.elapsed(), FLUSH_INTERVAL);
        let started = Instant::now();
        (0..6).for_each(|_| reporter.report(span()));
        assert_eq!(batches.next().await.unwrap().len(), 6);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_place_is_counted() {
        let (registry, _reporters, reporter, mut batches) = opened();
        (0..10).for_each(|_| reporter.report(span()));
        assert_eq!(dropped(&registry), 2);
        assert_eq!(batches.next().await.unwrap().len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn listeners_with_the_same_provider_share_its_reporter_and_the_last_ends_it() {
        let (registry, mut reporters, reporter, mut batches) = opened();
        let same = reporters.of(&config("a"), &registry).unwrap();
        assert!(Arc::ptr_eq(&reporter, &same));
        let other = reporters.of(&config("b"), &registry).unwrap();
        assert!(!Arc::ptr_eq(&reporter, &other));
        reporter.report(span());
        drop((reporter, same));
        assert_eq!(batches.next().await.unwrap().len(), 1, "what was handed over is still sent");
        assert!(batches.next().await.is_none());
    }
}
