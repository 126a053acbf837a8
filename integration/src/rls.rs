//! A service of rate limits over gRPC, which decides by what it is told and keeps it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use outrigger_proto::envoy::config::core::v3::HeaderValue;
use outrigger_proto::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use outrigger_proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use outrigger_proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use outrigger_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use outrigger_proto::google::protobuf::value::Kind;
use outrigger_proto::google::protobuf::{Duration, Struct, Value};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::address;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

/// A running server. It stops when dropped.
///
/// The value of the last entry of each description says what it answers: `over` is over its limit, `full` is not and has
/// all that an answer may have, `unknown` is no decision, `fail` is an error, `hang` is never answered; all else is fine.
pub struct LimitServer {
    address: SocketAddr,
    kept: Kept,
    serving: JoinHandle<()>,
}

impl LimitServer {
    /// Starts one on a loopback address of its own.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<LimitServer> {
        let listener = TcpListener::bind(address::free()?).await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let service = RateLimitServiceServer::new(kept.clone());
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(LimitServer { address, kept, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.kept.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for LimitServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A question as text.
fn text(request: &RateLimitRequest) -> String {
    let mut text = format!("{}:", request.domain);
    for descriptor in &request.descriptors {
        let entries: Vec<String> = descriptor
            .entries
            .iter()
            .map(|entry| format!("{}={}", entry.key, entry.value))
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(text, " [{}]", entries.join(", "));
        if let Some(limit) = &descriptor.limit {
            let _ = write!(text, " limit {} per {}", limit.requests_per_unit, limit.unit);
        }
        if let Some(hits) = &descriptor.hits_addend {
            let _ = write!(text, " hits {}", hits.value);
        }
        if descriptor.is_negative_hits {
            text.push_str(" back");
        }
    }
    if request.hits_addend != 0 {
        let _ = write!(text, " hits {}", request.hits_addend);
    }
    text
}

fn header(key: &str, value: &str) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() }
}

/// The answer about one description.
fn status(wish: &str) -> DescriptorStatus {
    let (code, limit, unit, remaining, reset) = match wish {
        "over" => (Code::OverLimit, 10, Unit::Minute, 0, 42),
        "full" => (Code::Ok, 100, Unit::Hour, 7, 1800),
        _ => (Code::Ok, 50, Unit::Second, 20, 1),
    };
    let name = if wish == "full" { "hourly" } else { "" };
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit {
            name: name.to_owned(),
            requests_per_unit: limit,
            unit: unit.into(),
        }),
        limit_remaining: remaining,
        duration_until_reset: Some(Duration { seconds: reset, nanos: 500_000_000 }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl RateLimitService for Kept {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text(&request));
        let wishes: Vec<&str> = request
            .descriptors
            .iter()
            .map(|descriptor| descriptor.entries.last().map_or("", |entry| entry.value.as_str()))
            .collect();
        if wishes.contains(&"fail") {
            return Err(Status::unavailable("not now"));
        }
        if wishes.contains(&"hang") {
            std::future::pending::<()>().await;
        }
        let over = wishes.contains(&"over");
        let code = match () {
            () if wishes.contains(&"unknown") => Code::Unknown,
            () if over => Code::OverLimit,
            () => Code::Ok,
        };
        let mut response = RateLimitResponse {
            overall_code: code.into(),
            statuses: wishes.iter().map(|wish| status(wish)).collect(),
            ..Default::default()
        };
        if over {
            response.raw_body = b"{\"limited\": true}".to_vec();
            response.response_headers_to_add =
                vec![header("content-type", "application/json"), header("x-service", "over")];
        }
        if wishes.contains(&"full") {
            response.response_headers_to_add =
                vec![header("x-service", "1"), header("x-service", "2")];
            response.request_headers_to_add = vec![header("x-told", "1")];
            let value = Value { kind: Some(Kind::StringValue("noted".to_owned())) };
            let fields = [("note".to_owned(), value)].into();
            response.dynamic_metadata = Some(Struct { fields });
        }
        Ok(Response::new(response))
    }
}
