//! How a message reaches an OpenTelemetry collector.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use crate::config::tracing::Exporter;
use crate::http::call::{CallError, call};
use crate::http::grpc_call::{self, GrpcError};
use crate::local::Local;

/// For one batch, where nothing is set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The call over gRPC failed.
    #[error("{0}")]
    Grpc(#[from] GrpcError),
    /// The request failed.
    #[error("{0}")]
    Http(#[from] CallError),
    /// The collector does not want it.
    #[error("answered with {0}")]
    Refused(StatusCode),
}

/// Sends a message: over gRPC to the method `path`, over HTTP to where the exporter says.
///
/// # Errors
/// If the collector cannot be reached, or does not take it.
pub(super) async fn send(
    exporter: &Exporter,
    path: &'static str,
    message: Vec<u8>,
    local: &Rc<Local>,
) -> Result<(), ExportError> {
    match exporter {
        Exporter::Grpc(service) => {
            let limit = service.timeout.unwrap_or(TIMEOUT);
            Ok(grpc_call::notify(local, service, path, &message, limit).await?)
        }
        Exporter::Http(service) => {
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
