//! Buffers of lines, and the thread that writes them to their files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::config::access_log::Sink;
use crate::stats::{FilesystemCells, Registry, Scope, Sharded};

/// A buffer of this size is written at once.
const FLUSH_BYTES: usize = 64 * 1024;
/// Every buffer is written once in this time.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Lines are dropped, and counted, when the disk has not taken so much of one thread's lines.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Writes access logs. One for the process.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shards: usize,
}

struct Shared {
    outputs: Mutex<HashMap<Sink, Arc<Output>>>,
    /// What the thread is asked for.
    wanted: Mutex<Wanted>,
    wake: Condvar,
    cells: Arc<Sharded<FilesystemCells>>,
}

#[derive(Default)]
struct Wanted {
    flush: bool,
    reopen: bool,
    stop: bool,
}

/// One file with the buffers of every thread.
pub(super) struct Output {
    /// A thread takes only its own lock, and shares it only with the writer, for the moment in which that swaps the buffer.
    buffers: Box<[CachePadded<Mutex<Vec<u8>>>]>,
    /// The writer was told of a full buffer.
    told: AtomicBool,
    target: Mutex<Target>,
    shared: std::sync::Weak<Shared>,
}

enum Target {
    File(File),
    Stdout,
    Stderr,
}

impl Writer {
    /// Starts the writer.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(registry: &Registry) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            outputs: Mutex::default(),
            wanted: Mutex::default(),
            wake: Condvar::new(),
            cells: registry.scope(Scope::Root("filesystem")),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || for_thread.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), shards: registry.shards() })
    }

    /// The output of a sink: every log of the same file shares it. A file is created if it is missing.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn output(&self, sink: &Sink) -> io::Result<Arc<Output>> {
        let mut outputs = lock(&self.shared.outputs);
        if let Some(output) = outputs.get(sink) {
            return Ok(Arc::clone(output));
        }
        let target = match sink {
            Sink::File(path) => Target::File(open(path)?),
            Sink::Stdout => Target::Stdout,
            Sink::Stderr => Target::Stderr,
        };
        let output = Arc::new(Output {
            buffers: (0..self.shards).map(|_| CachePadded::default()).collect(),
            told: AtomicBool::new(false),
            target: Mutex::new(target),
            shared: Arc::downgrade(&self.shared),
        });
        outputs.insert(sink.clone(), Arc::clone(&output));
        Ok(output)
    }

    /// A file that takes lines of no access log. It is created if it is missing.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn lines(&self, path: &Path) -> io::Result<Lines> {
        self.output(&Sink::File(path.to_owned())).map(Lines)
    }

    /// Opens every file again under its name: it was moved away (log rotation). SIGHUP and `POST /reopen_logs`.
    pub(crate) fn reopen(&self) {
        self.shared.tell(|wanted| wanted.reopen = true);
    }

    /// Writes what is buffered and ends. Lines logged later are lost; called when the workers have ended.
    pub(crate) fn shutdown(&self) {
        self.shared.tell(|wanted| wanted.stop = true);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

/// A file that takes lines.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Output>);

impl Lines {
    /// Appends a line, and a line break.
    pub(crate) fn append(&self, line: &str) {
        self.0.append(|out| {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Output {
    /// Appends a line to the buffer of this thread.
    pub(super) fn append(&self, line: impl FnOnce(&mut Vec<u8>)) {
        let shard = crate::stats::sharded::shard();
        let Some(buffer) = self.buffers.get(shard).or(self.buffers.first()) else { return };
        let full = {
            let mut buffer = lock(buffer);
            if buffer.len() >= MAX_BYTES {
                drop(buffer);
                if let Some(shared) = self.shared.upgrade() {
                    shared.cells.local().write_failed.inc();
                }
                return;
            }
            line(&mut buffer);
            buffer.len() >= FLUSH_BYTES
        };
        if full
            && !self.told.swap(true, Relaxed)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.tell(|wanted| wanted.flush = true);
        }
    }

    /// Writes what every thread has buffered. `spare` is an empty buffer to leave behind.
    fn flush(&self, spare: &mut Vec<u8>) -> io::Result<bool> {
        self.told.store(false, Relaxed);
        let mut written = false;
        for buffer in &self.buffers {
            {
                let mut buffer = lock(buffer);
                if buffer.is_empty() {
                    continue;
                }
                std::mem::swap(&mut *buffer, spare);
            }
            let result = lock(&self.target).write_all(spare);
            // A burst should not hold its memory for ever.
            spare.clear();
            spare.shrink_to(4 * FLUSH_BYTES);
            result?;
            written = true;
        }
        Ok(written)
    }
}

impl Target {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
        }
    }
}

impl Shared {
    fn tell(&self, want: impl FnOnce(&mut Wanted)) {
        want(&mut lock(&self.wanted));
        self.wake.notify_one();
    }

    fn run(&self) {
        let mut spare = Vec::with_capacity(FLUSH_BYTES);
        loop {
            let Wanted { reopen, stop, flush } = {
                let wanted = lock(&self.wanted);
                let idle = |wanted: &mut Wanted| !(wanted.flush || wanted.reopen || wanted.stop);
                let waited = self.wake.wait_timeout_while(wanted, FLUSH_INTERVAL, idle);
                let mut wanted = waited.unwrap_or_else(PoisonError::into_inner).0;
                std::mem::take(&mut *wanted)
            };
            let outputs: Vec<_> = lock(&self.outputs)
                .iter()
                .map(|(sink, output)| (sink.clone(), Arc::clone(output)))
                .collect();
            for (sink, output) in &outputs {
                self.flush(sink, output, flush, &mut spare);
                if reopen {
                    self.reopen(sink, output);
                }
            }
            drop(outputs);
            if stop {
                return;
            }
            self.forget_unused();
        }
    }

    fn flush(&self, sink: &Sink, output: &Output, wanted: bool, spare: &mut Vec<u8>) {
        let cells = self.cells.local();
        match output.flush(spare) {
            Ok(true) => {
                cells.write_completed.inc();
                if !wanted {
                    cells.flushed_by_timer.inc();
                }
            }
            Ok(false) => {}
            Err(error) => {
                cells.write_failed.inc();
                tracing::warn!(?sink, %error, "access log cannot be written");
            }
        }
    }

    fn reopen(&self, sink: &Sink, output: &Output) {
        let Sink::File(path) = sink else { return };
        match open(path) {
            Ok(file) => *lock(&output.target) = Target::File(file),
            Err(error) => {
                self.cells.local().reopen_failed.inc();
                tracing::warn!(path = %path.display(), %error, "access log cannot be reopened");
            }
        }
    }

    /// Closes files that no log writes any more.
    fn forget_unused(&self) {
        lock(&self.outputs).retain(|_, output| {
            let used = Arc::strong_count(output) > 1;
            used || output.buffers.iter().any(|buffer| !lock(buffer).is_empty())
        });
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A thread that panicked has left whole lines behind, or a part of one: nothing that the others could not use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(output: &Output, text: &str) {
        output.append(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn nothing_is_lost_at_shutdown_and_lines_of_all_threads_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let registry = Registry::new(2);
        let writer = Writer::start(&registry).unwrap();
        let output = writer.output(&Sink::File(path.clone())).unwrap();
        std::thread::scope(|scope| {
            for worker in [1, 2] {
                let output = &output;
                scope.spawn(move || {
                    crate::stats::set_shard(worker);
                    // Enough to pass the size at which a buffer is written in between.
                    for number in 0..5000 {
                        line(output, &format!("worker {worker} line {number:>20}\n"));
                    }
                });
            }
        });
        writer.shutdown();
        let text = std::fs::read_to_string(&path).unwrap();
        for worker in [1, 2] {
            let prefix = format!("worker {worker} ");
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with(&prefix)).collect();
            assert_eq!(lines.len(), 5000);
            assert!(
                lines.windows(2).all(|pair| pair[0] < pair[1]),
                "lines of a worker stay in order"
            );
        }
    }

    #[test]
    fn a_moved_file_is_written_anew_after_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let writer = Writer::start(&Registry::new(0)).unwrap();
        let output = writer.output(&Sink::File(path.clone())).unwrap();
        line(&output, "before\n");
        std::fs::rename(&path, &moved).unwrap();
        writer.reopen();
        // The reopening itself flushes: what came before it belongs to the moved file.
        while !path.exists() {
            std::thread::yield_now();
        }
        line(&output, "after\n");
        writer.shutdown();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "before\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn logs_of_one_file_share_its_buffers_and_a_file_without_logs_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::File(folder.path().join("log"));
        let writer = Writer::start(&Registry::new(0)).unwrap();
        let (first, second) = (writer.output(&sink).unwrap(), writer.output(&sink).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        line(&first, "last words\n");
        drop((first, second));
        let Sink::File(path) = &sink else { panic!() };
        writer.shared.flush(&sink, &writer.output(&sink).unwrap(), false, &mut Vec::new());
        writer.shared.forget_unused();
        assert!(lock(&writer.shared.outputs).is_empty());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "last words\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let writer = Writer::start(&Registry::new(0)).unwrap();
        assert!(writer.output(&Sink::File("/no/such/folder/log".into())).is_err());
    }
}
