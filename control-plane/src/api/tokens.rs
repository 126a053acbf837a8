//! `POST /v1/tokens`.

use super::failure::Failure;
use super::identities::blocking;
use super::input::{self, Parameters};
use super::view::rfc3339;
use super::{Api, Peer};
use crate::model::read;
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
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
    Extension(peer): Extension<Peer>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    parameters.finish(&[])?;
    let text = input::text(&headers, body).await?;
    let request = api.read(move || read::token_request(&text)).await?.map_err(Failure::invalid)?;
    let read::TokenRequest { service, ttl, uses } = request.clone();
    let tokens = Arc::clone(&api.tokens);
    let issued =
        blocking(move || tokens.issue(&request.service, request.ttl, request.uses)).await?;
    let issued = issued.map_err(|reason| {
        tracing::error!(%reason, "a join token could not be issued");
        Failure::unavailable(reason)
    })?;
    tracing::info!(%service, ?ttl, uses, "join token issued");
    api.audit(&peer, "token.create", &service).await?;
    let token = Token { token: issued.token, service, expires: rfc3339(issued.expires), uses };
    // A secret: not for any cache on the way.
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(token)))
}
