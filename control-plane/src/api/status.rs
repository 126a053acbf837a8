//! `GET /v1/status`, `/v1/status/KIND/NAME`, `/v1/endpoints`, `/healthz`, `/readyz`.

use super::Api;
use super::alarms::Alarm;
use super::failure::Failure;
use super::input::{self, Parameters};
use super::view::{EndpointStatus, ObjectStatus, SidecarStatus};
use crate::model::{Kind, Object};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(super) struct Status {
    revision: u64,
    sidecars: Vec<SidecarStatus>,
    objects: Vec<NamedStatus>,
    /// What will go wrong if nobody does anything.
    alarms: Vec<Alarm>,
}

#[derive(Serialize)]
pub(super) struct NamedStatus {
    kind: Kind,
    name: String,
    /// The revision that last changed it.
    revision: u64,
    #[serde(flatten)]
    status: ObjectStatus,
}

impl NamedStatus {
    fn of(api: &Api, object: &Object, revision: u64) -> Self {
        let (kind, name) = (object.kind(), object.name().to_owned());
        let status = api.view.object(kind, &name, revision);
        Self { kind, name, revision, status }
    }
}

pub(super) async fn all(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<Json<Status>, Failure> {
    parameters.finish(&[])?;
    let config = api.store.current();
    let objects =
        config.objects().map(|(object, revision)| NamedStatus::of(&api, &object, revision));
    let objects = objects.collect();
    let (revision, sidecars, alarms) = (config.revision(), api.view.sidecars(), api.alarms());
    Ok(Json(Status { revision, sidecars, objects, alarms }))
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    parameters: Parameters,
) -> Result<Json<NamedStatus>, Failure> {
    let (kind, name) = input::path(path)?;
    let kind = input::kind(&kind)?;
    parameters.finish(&[])?;
    let (object, revision) = api
        .store
        .current()
        .object(kind, &name)
        .ok_or_else(|| Failure::not_found(format!("there is no {kind} `{name}`")))?;
    Ok(Json(NamedStatus::of(&api, &object, revision)))
}

#[derive(Serialize)]
pub(super) struct Endpoints {
    items: Vec<EndpointStatus>,
}

pub(super) async fn endpoints(
    State(api): State<Arc<Api>>,
    mut parameters: Parameters,
) -> Result<Json<Endpoints>, Failure> {
    let service = parameters.take("service")?;
    parameters.finish(&["service"])?;
    Ok(Json(Endpoints { items: api.view.endpoints(service.as_deref()) }))
}

/// The process answers.
pub(super) async fn alive(parameters: Parameters) -> Result<&'static str, Failure> {
    parameters.finish(&[])?;
    Ok("ok\n")
}

/// The process does all it is there for.
pub(super) async fn ready(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<&'static str, Failure> {
    parameters.finish(&[])?;
    if *api.ready.borrow() {
        return Ok("ready\n");
    }
    Err(Failure::unavailable("the control plane is starting or stopping"))
}
