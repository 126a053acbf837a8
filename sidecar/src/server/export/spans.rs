//! The spans of tracing providers.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use crate::config::tracing::{Exporter, OpenTelemetry};
use crate::http::call::{CallError, call};
use crate::http::grpc_call::{self, GrpcError};
use crate::local::Local;
use crate::trace::{Opened, otlp};

/// For one batch, where nothing is set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Grpc(#[from] GrpcError),
    #[error("{0}")]
    Http(#[from] CallError),
    #[error("answered with {0}")]
    Refused(StatusCode),
}

/// Sends the spans of a provider for as long as there are any: one batch after the other, so that a slow collector makes
/// larger batches and not more calls.
pub(in crate::server) async fn spans(opened: Opened, local: Rc<Local>) {
    let Opened { config, mut batches } = opened;
    // Says so once, and again when it is over.
    let mut is_failing = false;
    while let Some(batch) = batches.next().await {
        let count = batch.len();
        let sent = send(&config, otlp::encode(&config, batch), &local).await;
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

async fn send(
    config: &OpenTelemetry,
    message: Vec<u8>,
    local: &Rc<Local>,
) -> Result<(), ExportError> {
    match &config.exporter {
        None => Ok(()),
        Some(Exporter::Grpc(service)) => {
            let limit = service.timeout.unwrap_or(TIMEOUT);
            Ok(grpc_call::notify(local, service, otlp::GRPC_PATH, &message, limit).await?)
        }
        Some(Exporter::Http(service)) => {
            let mut request = Request::new(Bytes::from(message));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = Uri::from(service.path.clone());
            let headers = request.headers_mut();
            headers.insert(header::HOST, service.authority.clone());
            let protobuf = HeaderValue::from_static("application/x-protobuf");
            headers.insert(header::CONTENT_TYPE, protobuf);
            let agent = concat!("OTel-OTLP-Exporter-Outrigger/", env!("CARGO_PKG_VERSION"));
            headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            for (name, value) in &service.headers {
                headers.append(name, value.clone());
            }
            let limit = Some(service.timeout);
            let (cluster, version) = (&service.cluster, Version::HTTP_11);
            let answer = call(local, cluster, request, version, limit, MAX_ANSWER).await?;
            match answer.head.status {
                status if status.is_success() => Ok(()),
                status => Err(ExportError::Refused(status)),
            }
        }
    }
}
