//! `GET /v1/KIND`, `GET|PUT|DELETE /v1/KIND/NAME`.

use super::failure::Failure;
use super::input::{self, Parameters};
use super::view::ObjectStatus;
use super::{Api, Peer};
use crate::model::plan::PlannedAction;
use crate::model::read::{self, Content};
use crate::model::{Config, Kind, Object};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

/// An object with what is known about it.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    object: Object,
    /// The revision that last changed it.
    revision: u64,
    status: ObjectStatus,
}

impl Answer {
    fn of(api: &Api, (object, revision): (Object, u64)) -> Self {
        let status = api.view.object(object.kind(), object.name(), revision);
        Self { object, revision, status }
    }
}

/// One object; its ETag is the revision that last changed it.
impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::ETAG, tag(self.revision))], Json(self)).into_response()
    }
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn unknown(kind: Kind, name: &str) -> Failure {
    Failure::not_found(format!("there is no {kind} `{name}`"))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    parameters: Parameters,
) -> Result<Json<serde_json::Value>, Failure> {
    let kind = input::kind(&input::path(path)?)?;
    parameters.finish(&[])?;
    let objects = api.store.current().objects_of(kind);
    let items: Vec<_> = objects.into_iter().map(|object| Answer::of(&api, object)).collect();
    Ok(Json(serde_json::json!({ "items": items })))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    let (kind, name) = named(path, parameters)?;
    let object = api.store.current().object(kind, &name).ok_or_else(|| unknown(kind, &name))?;
    Ok(Answer::of(&api, object).into_response())
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let (kind, name) = named(path, parameters)?;
    api.writable()?;
    let text = input::text(&headers, body).await?;
    let about = name.clone();
    let object = api.read(move || read::document_about(&text, kind, &about)).await?;
    let object = object.map_err(|problems| api.rejected(problems))?;
    let documents = |base: &Config| {
        check_preconditions(&headers, base, kind, &name)?;
        Ok(vec![Content::Object(object.clone()).into()])
    };
    let plan = api.change(&peer.author(), documents).await?;
    let created = plan.objects.iter().any(|object| object.action == PlannedAction::Created);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let object = plan.config.object(kind, &name).ok_or_else(|| unknown(kind, &name))?;
    Ok((status, Answer::of(&api, object)).into_response())
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let (kind, name) = named(path, parameters)?;
    api.writable()?;
    let documents = |base: &Config| {
        check_preconditions(&headers, base, kind, &name)?;
        base.object(kind, &name).ok_or_else(|| unknown(kind, &name))?;
        Ok(vec![Content::Delete(kind, name.clone()).into()])
    };
    api.change(&peer.author(), documents).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn named(
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
) -> Result<(Kind, String), Failure> {
    let (kind, name) = input::path(path)?;
    let kind = input::kind(&kind)?;
    parameters.finish(&[])?;
    Ok((kind, name))
}

/// `If-Match` (RFC 9110, section 13.1.1: strong comparison) and `If-None-Match: *`, against the object as it is now.
fn check_preconditions(
    headers: &HeaderMap,
    config: &Config,
    kind: Kind,
    name: &str,
) -> Result<(), Failure> {
    let revision = config.object(kind, name).map(|(_, revision)| revision);
    if let Some(tags) = tags(headers, &header::IF_MATCH)? {
        let current = revision.map(tag);
        let matches = tags.iter().any(|tag| Some(tag) == current.as_ref() || tag == "*");
        if revision.is_none() || !matches {
            return Err(Failure::precondition(match current {
                Some(current) => format!("the {kind} `{name}` has the ETag {current} now"),
                None => format!("there is no {kind} `{name}`"),
            }));
        }
    }
    if let Some(tags) = tags(headers, &header::IF_NONE_MATCH)? {
        let matches = |tag: &String| {
            let weak = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || revision.is_some_and(|revision| self::tag(revision) == weak)
        };
        if revision.is_some() && tags.iter().any(matches) {
            return Err(Failure::precondition(format!("there is a {kind} `{name}` already")));
        }
    }
    Ok(())
}

/// The entity tags of a header, over all its lines.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>, Failure> {
    let mut tags = None;
    for value in headers.get_all(name) {
        let text = value
            .to_str()
            .map_err(|_| Failure::bad_request(format!("{name} is no list of entity tags")))?;
        let list = text.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty());
        tags.get_or_insert_with(Vec::new).extend(list);
    }
    Ok(tags)
}
