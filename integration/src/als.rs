//! A server for access logs over gRPC, which keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use outrigger_proto::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use outrigger_proto::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use outrigger_proto::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use outrigger_proto::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::address;

/// One entry, with the log it is of.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the stream said of itself: node id, cluster and log.
    pub log: String,
    /// The entry.
    pub entry: Kind,
}

/// The kinds of entries.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Of a request.
    Http(Box<HttpAccessLogEntry>),
    /// Of a connection.
    Tcp(Box<TcpAccessLogEntry>),
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Entry>>>);

/// A running server. It stops when dropped.
pub struct LogServer {
    address: SocketAddr,
    kept: Kept,
    serving: JoinHandle<()>,
}

impl LogServer {
    /// Starts one on a loopback address of its own.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<LogServer> {
        let listener = TcpListener::bind(address::free()?).await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let service = AccessLogServiceServer::new(kept.clone());
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(LogServer { address, kept, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for LogServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl AccessLogService for Kept {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut log = "unidentified".to_owned();
        while let Some(message) = messages.message().await? {
            if let Some(identifier) = message.identifier {
                let node = identifier.node.unwrap_or_default();
                log = format!("{}/{}/{}", node.id, node.cluster, identifier.log_name);
            }
            let entries: Vec<Kind> = match message.log_entries {
                None => return Err(Status::invalid_argument("no entries")),
                Some(LogEntries::HttpLogs(logs)) => {
                    logs.log_entry.into_iter().map(|entry| Kind::Http(Box::new(entry))).collect()
                }
                Some(LogEntries::TcpLogs(logs)) => {
                    logs.log_entry.into_iter().map(|entry| Kind::Tcp(Box::new(entry))).collect()
                }
            };
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(entries.into_iter().map(|entry| Entry { log: log.clone(), entry }));
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}
