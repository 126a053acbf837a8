//! The way of entries from workers to the control thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::access_log::{GrpcLogStream, OtelLogStream};
use crate::stats::{GrpcLogCells, Registry, Scope, Sharded};

/// Entries of a stream that may wait for the control thread.
const WAITING: usize = 4096;

/// How entries are put together to messages. Logs for which it is equal share a stream.
pub(crate) trait Buffering: PartialEq {
    /// Entries wait at most so long for others.
    fn flush_interval(&self) -> Duration;
    /// Bytes of entries that are sent at once.
    fn buffer_size(&self) -> usize;
    /// Where it is counted.
    fn scope(&self) -> Scope;
}

impl Buffering for GrpcLogStream {
    fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    fn scope(&self) -> Scope {
        Scope::Root("access_logs.grpc_access_log")
    }
}

impl Buffering for OtelLogStream {
    fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    fn scope(&self) -> Scope {
        Scope::OtelLog((&*self.stat_prefix).into())
    }
}

/// Takes the entries of one log, from any worker.
#[derive(Debug)]
pub(crate) struct Stream<C> {
    config: Arc<C>,
    entries: mpsc::Sender<Bytes>,
    cells: Arc<Sharded<GrpcLogCells>>,
}

impl<C> Stream<C> {
    /// Hands over an encoded entry. Where it has no place it is dropped, and counted.
    pub(in crate::access_log) fn write(&self, entry: Bytes) {
        if self.entries.try_send(entry).is_err() {
            self.cells.local().logs_dropped.inc();
        }
    }
}

/// A log that is to be sent from now on.
pub(crate) struct Opened<C> {
    /// Where to, and how.
    pub(crate) config: Arc<C>,
    entries: mpsc::Receiver<Bytes>,
    cells: Arc<Sharded<GrpcLogCells>>,
}

/// The streams of the process, one for each log that is configured. Lives on the control thread.
pub(crate) struct Streams<C> {
    known: Vec<Weak<Stream<C>>>,
    opened: Vec<Opened<C>>,
}

impl<C> Default for Streams<C> {
    fn default() -> Self {
        Self { known: Vec::new(), opened: Vec::new() }
    }
}

impl<C: Buffering> Streams<C> {
    /// The stream of a log: the one that is there, or a new one.
    pub(crate) fn of(&mut self, config: &Arc<C>, registry: &Registry) -> Arc<Stream<C>> {
        self.known.retain(|known| known.strong_count() > 0);
        let mut known = self.known.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| *known.config == **config) {
            return known;
        }
        let (entries, received) = mpsc::channel(WAITING);
        let cells: Arc<Sharded<GrpcLogCells>> = registry.scope(config.scope());
        let stream =
            Arc::new(Stream { config: Arc::clone(config), entries, cells: Arc::clone(&cells) });
        self.known.push(Arc::downgrade(&stream));
        self.opened.push(Opened { config: Arc::clone(config), entries: received, cells });
        stream
    }

    /// Logs that came since the last call.
    pub(crate) fn take_opened(&mut self) -> Vec<Opened<C>> {
        std::mem::take(&mut self.opened)
    }
}

impl<C: Buffering> Opened<C> {
    /// The entries of the next message: as soon as they make up its size, or have waited for long enough. `None`: no more
    /// will come, because nobody uses the log any more.
    pub(crate) async fn next(&mut self) -> Option<Vec<Bytes>> {
        let first = self.entries.recv().await?;
        let mut size = first.len();
        let mut entries = vec![first];
        let deadline = Instant::now() + self.config.flush_interval();
        while size < self.config.buffer_size() {
            match timeout_at(deadline, self.entries.recv()).await {
                Ok(Some(entry)) => {
                    size += entry.len();
                    entries.push(entry);
                }
                Ok(None) | Err(_) => break,
            }
        }
        Some(entries)
    }

    /// So many entries were sent.
    pub(crate) fn count_written(&self, entries: u64) {
        self.cells.local().logs_written.add(entries);
    }

    /// So many entries could not be sent.
    pub(crate) fn count_dropped(&self, entries: u64) {
        self.cells.local().logs_dropped.add(entries);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::access_log::GrpcLogKind;
    use crate::config::grpc_service::GrpcService;

    fn config(name: &str, buffer_size: usize) -> Arc<GrpcLogStream> {
        let service = GrpcService {
            cluster: "a".into(),
            authority: None,
            timeout: None,
            initial_metadata: Vec::new(),
        };
        Arc::new(GrpcLogStream {
            kind: GrpcLogKind::Http,
            log_name: name.into(),
            service,
            flush_interval: Duration::from_secs(2),
            buffer_size,
            backoff: (Duration::from_millis(1), Duration::from_millis(2)),
        })
    }

    fn opened(
        buffer_size: usize,
    ) -> (Arc<Registry>, Streams<GrpcLogStream>, Arc<Stream<GrpcLogStream>>, Opened<GrpcLogStream>)
    {
        let registry = Registry::new(1);
        let mut streams = Streams::default();
        let stream = streams.of(&config("a", buffer_size), &registry);
        let opened = streams.take_opened().remove(0);
        (registry, streams, stream, opened)
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_others_until_they_make_up_a_message_or_for_long_enough() {
        let (_registry, _streams, stream, mut opened) = opened(10);
        let started = Instant::now();
        stream.write(Bytes::from_static(b"123"));
        assert_eq!(opened.next().await.unwrap().len(), 1);
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        let started = Instant::now();
        (0..5).for_each(|_| stream.write(Bytes::from_static(b"1234")));
        assert_eq!(opened.next().await.unwrap().len(), 3, "10 bytes are reached");
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_buffer_every_entry_is_a_message() {
        let (_registry, _streams, stream, mut opened) = opened(0);
        let started = Instant::now();
        (0..2).for_each(|_| stream.write(Bytes::from_static(b"1")));
        assert_eq!(opened.next().await.unwrap().len(), 1);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_place_is_counted_and_the_last_logger_ends_it() {
        let (registry, mut streams, stream, mut opened) = opened(usize::MAX);
        let other = streams.of(&config("b", 0), &registry);
        assert!(!Arc::ptr_eq(&stream, &other));
        assert!(Arc::ptr_eq(&stream, &streams.of(&config("a", usize::MAX), &registry)));
        (0..=WAITING).for_each(|_| stream.write(Bytes::from_static(b"1")));
        let cells: Arc<Sharded<GrpcLogCells>> =
            registry.scope(Scope::Root("access_logs.grpc_access_log"));
        assert_eq!(cells.local().logs_dropped.value(), 1);
        drop(stream);
        assert_eq!(opened.next().await.unwrap().len(), WAITING);
        assert!(opened.next().await.is_none());
    }
}
