//! `POST /v1/tokens`.

use super::Api;
use super::failure::Failure;
use super::input::{self, Parameters};
use super::view::rfc3339;
use crate::model::read;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct Token {
    token: String,
    service: String,
    expires: String,
    uses: u32,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    parameters.finish(&[])?;
    let text = input::text(&headers, body).await?;
    let request = api.read(move || read::token_request(&text)).await?.map_err(Failure::invalid)?;
    let read::TokenRequest { service, ttl, uses } = request.clone();
    let issued = tokio::task::spawn_blocking(move || {
        api.tokens.issue(&request.service, request.ttl, request.uses)
    });
    let issued = issued.await.map_err(|error| Failure::unavailable(error.to_string()))?;
    let issued = issued.map_err(|reason| {
        tracing::error!(%reason, "a join token could not be issued");
        Failure::unavailable(reason)
    })?;
    tracing::info!(%service, ?ttl, uses, "join token issued");
    let token = Token { token: issued.token, service, expires: rfc3339(issued.expires), uses };
    // A secret: not for any cache on the way.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(token)))
}
