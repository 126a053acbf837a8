//! Log lines of the process, on standard error.

use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::cli::{LogFormat, LogLevel};

/// The level is the only thing that changes while the process runs (`POST /logging?level=`).
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::TRACE,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warning => Self::WARN,
            LogLevel::Error | LogLevel::Critical => Self::ERROR,
            LogLevel::Off => Self::OFF,
        }
    }
}

/// Sets up logging. A process that embeds the sidecar and set up its own keeps it.
pub(crate) fn init(level: LogLevel, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Text => registry.with(text.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(text.json()).try_init(),
    };
    if installed.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level. Returns whether this process's logging is ours to change.
pub(crate) fn set_level(level: LogLevel) -> bool {
    LEVEL.get().is_some_and(|handle| handle.reload(LevelFilter::from(level)).is_ok())
}

/// The level in effect, in Envoy's names; `None` if this process's logging is not ours.
pub(crate) fn level() -> Option<&'static str> {
    let level = LEVEL.get()?.with_current(|level| *level).ok()?;
    Some(match level.into_level() {
        None => "off",
        Some(tracing::Level::ERROR) => "error",
        Some(tracing::Level::WARN) => "warning",
        Some(tracing::Level::INFO) => "info",
        Some(tracing::Level::DEBUG) => "debug",
        Some(tracing::Level::TRACE) => "trace",
    })
}
