//! Access logs that are sent to a server over gRPC (`AccessLogService`).
//!
//! A worker makes an entry of a record at once ([`entry`]), encoded, and hands it to the [`Stream`] of its log. There it
//! waits, with a bound, for the control thread, which puts entries together to messages ([`batch`]) and sends them. An entry
//! that finds no place is dropped and counted: no request waits for a log server.

mod batch;
pub(crate) mod entry;
mod stream;

use std::sync::Arc;

use super::record::LogRecord;
use crate::config::access_log::{GrpcAccessLog, GrpcLogStream};

pub(crate) use batch::{Message, message};
pub(crate) use stream::{Opened, Stream, Streams};

/// One configured log.
pub(super) struct GrpcLogger {
    config: Arc<GrpcAccessLog>,
    stream: Arc<Stream<GrpcLogStream>>,
}

impl GrpcLogger {
    pub(super) fn new(config: &Arc<GrpcAccessLog>, stream: Arc<Stream<GrpcLogStream>>) -> Self {
        Self { config: Arc::clone(config), stream }
    }

    pub(super) fn log(&self, record: &LogRecord<'_>) {
        self.stream.write(entry::encoded(&self.config, record));
    }
}
