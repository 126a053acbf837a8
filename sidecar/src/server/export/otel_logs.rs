//! Access logs that are sent to an OpenTelemetry collector.

use std::rc::Rc;
use std::sync::Arc;

use super::otlp::send;
use crate::access_log::grpc::Opened;
use crate::access_log::otel;
use crate::config::access_log::OtelLogStream;
use crate::config::bootstrap::LocalInfo;
use crate::local::Local;

/// Sends the records of a log for as long as there are any, one message after the other. As in Envoy one that does not
/// arrive is not sent again.
pub(in crate::server) async fn otel_logs(
    mut opened: Opened<OtelLogStream>,
    local: Rc<Local>,
    local_info: Arc<LocalInfo>,
) {
    let config = Arc::clone(&opened.config);
    // Says so once, and again when it is over.
    let mut is_failing = false;
    while let Some(records) = opened.next().await {
        let count = records.len() as u64;
        let message = otel::request(&config, &local_info, &records);
        match send(&config.exporter, otel::GRPC_PATH, message, &local).await {
            Ok(()) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!(log = %config.log_name, "access logs are sent again");
                }
                opened.count_written(count);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(log = %config.log_name, %error, "access logs cannot be sent");
                }
                opened.count_dropped(count);
            }
        }
    }
}
