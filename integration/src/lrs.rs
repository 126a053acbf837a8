//! A server for load reports, which keeps what it gets.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use outrigger_proto::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use outrigger_proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::address;

/// A report, with the number of its stream: 0 for the first.
pub type Report = (usize, LoadStatsRequest);

#[derive(Clone)]
struct Kept {
    reports: Arc<Mutex<Vec<Report>>>,
    streams: Arc<Mutex<usize>>,
    /// What clients are asked for, and how often they were sent away.
    asked: watch::Sender<(LoadStatsResponse, usize)>,
}

/// A running server. It stops when dropped.
pub struct LoadServer {
    address: SocketAddr,
    kept: Kept,
    serving: JoinHandle<()>,
}

impl LoadServer {
    /// Starts one on a loopback address of its own. It asks for nothing until it is told to.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<LoadServer> {
        let listener = TcpListener::bind(address::free()?).await?;
        let address = listener.local_addr()?;
        let (asked, _) = watch::channel((LoadStatsResponse::default(), 0));
        let kept = Kept { reports: Arc::default(), streams: Arc::default(), asked };
        let service = LoadReportingServiceServer::new(kept.clone());
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(LoadServer { address, kept, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks every client for this, those that come later too.
    pub fn ask(&self, response: LoadStatsResponse) {
        self.kept.asked.send_modify(|(asked, _)| *asked = response);
    }

    /// Ends every stream without an error.
    pub fn disconnect(&self) {
        self.kept.asked.send_modify(|(_, sent_away)| *sent_away += 1);
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Report> {
        std::mem::take(&mut *self.kept.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for LoadServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl LoadReportingService for Kept {
    type StreamLoadStatsStream =
        Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let stream = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            *streams += 1;
            *streams - 1
        };
        let (reports, mut requests) = (Arc::clone(&self.reports), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(report)) = requests.message().await {
                reports.lock().unwrap_or_else(PoisonError::into_inner).push((stream, report));
            }
        });
        let began = self.asked.borrow().1;
        let asked = WatchStream::new(self.asked.subscribe())
            .take_while(move |(_, sent_away)| *sent_away == began)
            .map(|(asked, _)| asked)
            // Nothing was asked for yet.
            .filter(|asked| *asked != LoadStatsResponse::default())
            .map(Ok);
        Ok(Response::new(Box::pin(asked)))
    }
}
