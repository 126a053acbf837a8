//! The log of a listener itself: a line for each connection at its end, whatever became of it.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Listener;
use crate::access_log::{LogRecord, LogType, ResponseFlags};
use crate::local::Local;
use crate::log_facts;
use crate::tls::TlsFacts;
use crate::transport::Ends;

/// When a connection began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    time: SystemTime,
    instant: Instant,
}

/// What is known of a connection at its end.
pub(super) struct Known<'a> {
    pub(super) ends: &'a Ends,
    pub(super) server_name: Option<&'a str>,
    /// Name of the filter chain, if one has taken it.
    pub(super) chain: &'a str,
    pub(super) tls: Option<&'a TlsFacts>,
    pub(super) flags: ResponseFlags,
}

impl Began {
    pub(super) fn now() -> Self {
        Self { time: SystemTime::now(), instant: Instant::now() }
    }
}

/// Writes the line. Costs nothing where the listener has no log.
pub(super) fn write(local: &Local, listener: &Listener, began: Began, known: &Known<'_>) {
    if listener.loggers.is_empty() {
        return;
    }
    let mut record = LogRecord::new(began.time);
    record.log_type = LogType::NotSet;
    record.flags = known.flags;
    record.duration = Some(began.instant.elapsed());
    record.downstream_remote = Some(known.ends.peer.clone());
    record.downstream_direct_remote = Some(known.ends.direct_peer.clone());
    record.downstream_local = Some(known.ends.local.clone());
    record.requested_server_name = known.server_name;
    record.filter_chain_name = Some(known.chain).filter(|name| !name.is_empty());
    record.connection_id = Some(local.next_id());
    if let Some(tls) = known.tls {
        log_facts::downstream_tls(&mut record, tls);
    }
    listener.loggers.log(&record);
}
