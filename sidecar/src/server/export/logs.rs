//! Access logs that are sent over gRPC.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::access_log::grpc::{Message, Opened, message};
use crate::config::access_log::GrpcLogStream;
use crate::config::bootstrap::LocalInfo;
use crate::http::grpc_call::Outgoing;
use crate::local::Local;

const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// Sends the entries of a log for as long as there are any, over one stream that is opened when there is something to send,
/// and again when it broke.
pub(in crate::server) async fn logs(
    mut opened: Opened<GrpcLogStream>,
    local: Rc<Local>,
    local_info: Arc<LocalInfo>,
) {
    let config = Arc::clone(&opened.config);
    let mut stream: Option<Outgoing> = None;
    let mut pause = Duration::ZERO;
    while let Some(entries) = opened.next().await {
        let message = message(config.kind, &entries);
        // Entries that come meanwhile wait, up to the bound of the log.
        if !pause.is_zero() {
            sleep(pause.mul_f64(fastrand::f64())).await;
        }
        if send(&mut stream, &message, &config, &local, &local_info).await {
            pause = Duration::ZERO;
            opened.count_written(message.entries);
            continue;
        }
        if pause.is_zero() {
            let cluster = &config.service.cluster;
            tracing::warn!(log = %config.log_name, %cluster, "access logs cannot be sent");
        }
        let (base, most) = config.backoff;
        pause = pause.saturating_mul(2).clamp(base, most);
        opened.count_dropped(message.entries);
    }
    if let Some(stream) = stream {
        stream.finish().await;
    }
}

/// Sends a message on the stream that is open, or on a new one. Returns whether it went out.
async fn send(
    stream: &mut Option<Outgoing>,
    message: &Message,
    config: &GrpcLogStream,
    local: &Rc<Local>,
    local_info: &LocalInfo,
) -> bool {
    if let Some(open) = stream
        && open.send(&message.bytes).await.is_ok()
    {
        return true;
    }
    let open = stream.insert(Outgoing::open(local, &config.service, PATH));
    let sent = open.send(&message.identified(config, local_info)).await.is_ok();
    if !sent {
        *stream = None;
    }
    sent
}
