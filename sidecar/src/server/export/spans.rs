//! The spans of tracing providers.

use std::rc::Rc;

use super::otlp::send;
use crate::local::Local;
use crate::trace::{Opened, otlp};

/// Sends the spans of a provider for as long as there are any: one batch after the other, so that a slow collector makes
/// larger batches and not more calls.
pub(in crate::server) async fn spans(opened: Opened, local: Rc<Local>) {
    let Opened { config, mut batches } = opened;
    // Says so once, and again when it is over.
    let mut is_failing = false;
    while let Some(batch) = batches.next().await {
        let count = batch.len();
        let message = otlp::encode(&config, batch);
        let sent = match &config.exporter {
            None => Ok(()),
            Some(exporter) => send(exporter, otlp::GRPC_PATH, message, &local).await,
        };
        batches.count(count, sent.is_ok());
        match &sent {
            Ok(()) if is_failing => tracing::info!("spans are sent again"),
            Ok(()) => {}
            Err(error) if !is_failing => tracing::warn!(%error, "spans cannot be sent"),
            Err(error) => tracing::debug!(%error, "spans cannot be sent"),
        }
        is_failing = sent.is_err();
    }
}
