//! The state of the process, and the gauges of `server.`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::stats::registry::{Name, Reading, Sink, Source};
use crate::stats::{Registry, Scope};

/// Envoy's `ServerInfo.State`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Serving.
    Live = 0,
    /// Being drained, or failing its health checks on request.
    Draining = 1,
    /// Waiting for the clusters of the bootstrap.
    PreInitializing = 2,
    /// Waiting for the first discovery.
    Initializing = 3,
}

impl State {
    /// As `/ready` and `/server_info` name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// The state of the process. Shared by the control thread, which sets it, and whoever reads it.
#[derive(Debug)]
pub(crate) struct Status {
    state: AtomicU8,
    health_checks_fail: AtomicBool,
    started: Instant,
    concurrency: usize,
}

impl Status {
    /// Of a process that starts now, with so many workers. Its gauges are printed from now on.
    pub(crate) fn new(registry: &Registry, concurrency: usize) -> Arc<Self> {
        let status = Arc::new(Self {
            state: AtomicU8::new(State::PreInitializing as u8),
            health_checks_fail: AtomicBool::new(false),
            started: Instant::now(),
            concurrency,
        });
        registry.add_source(Scope::Server, &status);
        status
    }

    /// Goes on to a state.
    pub(crate) fn set(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// What `/ready` answers: draining also while health checks are made to fail.
    pub(crate) fn get(&self) -> State {
        if self.health_checks_fail.load(Relaxed) {
            return State::Draining;
        }
        match self.state.load(Relaxed) {
            0 => State::Live,
            1 => State::Draining,
            2 => State::PreInitializing,
            _ => State::Initializing,
        }
    }

    /// `/healthcheck/fail` (`true`) and `/healthcheck/ok`.
    pub(crate) fn fail_health_checks(&self, fail: bool) {
        self.health_checks_fail.store(fail, Relaxed);
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Number of workers.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }
}

impl Source for Status {
    fn read(&self, sink: &mut Sink<'_>) {
        let memory = Memory::read();
        let state = self.get();
        let mut gauge = |name, value| {
            sink(Name::plain(name), Reading::Gauge { value, used: true });
        };
        gauge("concurrency", self.concurrency as u64);
        gauge("hot_restart_epoch", 0);
        gauge("live", (state == State::Live).into());
        gauge("memory_allocated", memory.allocated);
        gauge("memory_heap_size", memory.heap_size);
        gauge("memory_physical_size", memory.physical);
        gauge("state", state as u64);
        gauge("uptime", self.uptime().as_secs());
    }
}

/// Memory of the process in bytes, as the kernel counts it; zeros where it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Anonymous memory in use.
    pub(super) allocated: u64,
    /// Anonymous memory that was asked for.
    pub(super) heap_size: u64,
    /// All memory in use, files included.
    pub(super) physical: u64,
}

impl Memory {
    pub(super) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kibibytes.unwrap_or(0u64) * 1024
        };
        Self {
            allocated: bytes("RssAnon:"),
            heap_size: bytes("VmData:"),
            physical: bytes("VmRSS:"),
        }
    }
}
