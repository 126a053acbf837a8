//! Log lines of the process, on standard error.

use crate::cli::{LogFormat, LogLevel};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::TRACE,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warning => Self::WARN,
            LogLevel::Error => Self::ERROR,
            LogLevel::Off => Self::OFF,
        }
    }
}

/// Sets up logging. A process that embeds the control plane and set up its own keeps it.
pub(crate) fn init(level: LogLevel, format: LogFormat) {
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(LevelFilter::from(level));
    let _ = match format {
        LogFormat::Text => registry.with(text.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(text.json()).try_init(),
    };
}
