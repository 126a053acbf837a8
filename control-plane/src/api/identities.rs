//! `GET /v1/identities`, `POST /v1/identities/NAME/revoke`, `GET /v1/ca`, `POST /v1/ca/rotate`.

use super::failure::Failure;
use super::input::{self, Parameters};
use super::view::{AuthorityStatus, IdentityStatus, RevokeError, Revoked, RotationStatus};
use super::{Api, Peer};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that `wait` may be.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How often a rotation that is waited for is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Serialize)]
pub(super) struct IdentityList {
    items: Vec<IdentityStatus>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<Json<IdentityList>, Failure> {
    parameters.finish(&[])?;
    Ok(Json(IdentityList { items: api.identities.identities() }))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<String>, PathRejection>,
    parameters: Parameters,
) -> Result<Json<Revoked>, Failure> {
    let name = input::path(path)?;
    parameters.finish(&[])?;
    let (identities, named) = (api.identities.clone(), name.clone());
    let revoked = blocking(move || identities.revoke(&named)).await?;
    let revoked = revoked.map_err(|error| match error {
        RevokeError::Unknown => Failure::not_found(format!(
            "no service and no instance `{name}` has a certificate that is still good"
        )),
        RevokeError::Ambiguous(names) => Failure::new(
            StatusCode::CONFLICT,
            "ambiguous",
            "Ambiguous name",
            format!("`{name}` may be any of {}: give one of these", names.join(", ")),
        ),
        RevokeError::Failed(reason) => Failure::unavailable(reason),
    })?;
    api.audit(&peer, "identity.revoke", &name).await?;
    Ok(Json(revoked))
}

pub(super) async fn authority(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<Json<AuthorityStatus>, Failure> {
    parameters.finish(&[])?;
    Ok(Json(api.identities.authority()))
}

/// Begins a rotation of the root: 202 with how it stands. With `wait` it is answered when it is over (200), or when the
/// time is (504, naming whom it waits for; it goes on).
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    mut parameters: Parameters,
) -> Result<(StatusCode, Json<AuthorityStatus>), Failure> {
    let wait = parameters.take_duration("wait", LONGEST_WAIT)?;
    parameters.finish(&["wait"])?;
    let identities = api.identities.clone();
    let begun = blocking(move || identities.rotate()).await?;
    begun.map_err(Failure::unavailable)?;
    api.audit(&peer, "ca.rotate", "root").await?;
    let Some(wait) = wait else {
        return Ok((StatusCode::ACCEPTED, Json(api.identities.authority())));
    };
    let deadline = Instant::now() + wait;
    loop {
        let status = api.identities.authority();
        let Some(rotation) = &status.rotation else { return Ok((StatusCode::OK, Json(status))) };
        if Instant::now() >= deadline {
            return Err(unfinished(wait, rotation));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn unfinished(wait: Duration, rotation: &RotationStatus) -> Failure {
    let waiting: Vec<_> =
        rotation.waiting_for.iter().map(|it| format!("{} {}", it.node, it.reason)).collect();
    let detail = format!(
        "after {} the rotation goes on and waits: {}",
        crate::model::duration::format(wait),
        if waiting.is_empty() { "a step is about to begin".to_owned() } else { waiting.join("; ") },
    );
    let laggards: Vec<_> = rotation
        .waiting_for
        .iter()
        .map(|it| serde_json::json!({"node": it.node, "reason": it.reason}))
        .collect();
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "not-acknowledged", "Not acknowledged", detail)
        .with("laggards", laggards)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::unavailable(error.to_string()))
}
