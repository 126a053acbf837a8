//! The gRPC server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_proto::demo::v1::ledger_server::{Ledger, LedgerServer};
use outrigger_proto::demo::v1::{RecordRequest, RecordResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::App;

struct Service {
    app: Arc<App>,
    written: AtomicU64,
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, app: Arc<App>) -> anyhow::Result<()> {
    let service = LedgerServer::new(Service { app, written: AtomicU64::new(0) });
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

#[tonic::async_trait]
impl Ledger for Service {
    async fn record(
        &self,
        _request: Request<RecordRequest>,
    ) -> Result<Response<RecordResponse>, Status> {
        let switches = &self.app.switches;
        tokio::time::sleep(switches.delay()).await;
        if switches.fails_now() {
            return Err(Status::internal("told to fail"));
        }
        Ok(Response::new(RecordResponse {
            sequence: self.written.fetch_add(1, Ordering::Relaxed) + 1,
            instance: self.app.instance.clone(),
            version: switches.version(),
        }))
    }
}
