//! `POST /v1/apply`, `POST /v1/rollback/REV`, `GET /v1/export`.

use super::failure::Failure;
use super::input::{self, Parameters};
use super::view::{Acked, Effect, Laggard};
use super::{Api, Peer};
use crate::model::lint::{self, Observed};
use crate::model::plan::{Plan, PlannedObject, plan};
use crate::model::read::{self, Content, Document};
use crate::model::{Config, Problem};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The longest that `wait` may be.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What an apply answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    revision: u64,
    objects: Vec<PlannedObject>,
    acked: usize,
    total: usize,
    /// What a dry run would change, sidecar by sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Problem>,
}

impl Applied {
    fn of(plan: Plan, acked: &Acked) -> Self {
        Self {
            revision: plan.config.revision(),
            objects: plan.objects,
            acked: acked.acked,
            total: acked.total,
            effect: None,
            warnings: plan.warnings,
        }
    }
}

pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    mut parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Applied>, Failure> {
    let dry_run = parameters.take_flag("dryRun")?;
    let wait = parameters.take_duration("wait", LONGEST_WAIT)?;
    parameters.finish(&["dryRun", "wait"])?;
    if !dry_run {
        api.writable()?;
    }
    let text = input::text(&headers, body).await?;
    let (documents, problems) = api.read(move || read::documents(&text)).await?;
    if !problems.is_empty() {
        return Err(api.rejected(problems));
    }
    if documents.is_empty() {
        let detail = "there is no document in the body";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "empty", "Empty input", detail));
    }
    if dry_run {
        return api.dry_run(documents).await.map(Json);
    }
    let mut plan = api.change(&peer.author(), |_| Ok(documents.clone())).await?;
    api.warn_of_the_live_mesh(&mut plan, &documents);
    api.answer(plan, wait).await.map(Json)
}

pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<String>, PathRejection>,
    mut parameters: Parameters,
) -> Result<Json<Applied>, Failure> {
    let revision = input::path(path)?;
    let revision: u64 = revision
        .parse()
        .map_err(|_| Failure::not_found(format!("`{revision}` is not the number of a revision")))?;
    let wait = parameters.take_duration("wait", LONGEST_WAIT)?;
    parameters.finish(&["wait"])?;
    api.writable()?;
    let store = Arc::clone(&api.store);
    let objects = tokio::task::spawn_blocking(move || store.objects_at(revision)).await;
    let objects = objects.map_err(|error| Failure::unavailable(error.to_string()))??;
    let objects =
        objects.ok_or_else(|| Failure::not_found(format!("revision {revision} is not known")))?;
    let documents: Vec<_> =
        objects.into_iter().map(|object| Document::from(Content::Object(object))).collect();
    let author = format!("{} (rollback to {revision})", peer.author());
    let plan = api.change(&author, |base| Ok(replacing(base, &documents))).await?;
    api.answer(plan, wait).await.map(Json)
}

/// `documents`, and such that delete every object they do not name: together they make the whole of a configuration.
pub(super) fn replacing(base: &Config, documents: &[Document]) -> Vec<Document> {
    let names: HashSet<_> =
        documents.iter().map(|document| (document.kind(), document.name())).collect();
    let gone = base.objects().filter_map(|(object, _)| {
        let (kind, name) = (object.kind(), object.name());
        (!names.contains(&(kind, name))).then(|| Content::Delete(kind, name.to_owned()).into())
    });
    documents.iter().cloned().chain(gone).collect()
}

/// Every object, as documents that make the same configuration again.
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Failure> {
    parameters.finish(&[])?;
    let mut text = String::new();
    for (object, _) in api.store.current().objects() {
        let document = serde_saphyr::to_string(&object)
            .map_err(|error| Failure::unavailable(format!("cannot print an object: {error}")))?;
        text.push_str("---\n");
        text.push_str(&document);
    }
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text))
}

impl Api {
    /// What the documents would do.
    async fn dry_run(self: &Arc<Self>, documents: Vec<Document>) -> Result<Applied, Failure> {
        let api = Arc::clone(self);
        self.read(move || {
            let base = api.store.current();
            let mut plan = plan(&base, &documents).map_err(|problems| api.rejected(problems))?;
            api.check_trust_domain(&base, &plan)?;
            api.warn_of_the_live_mesh(&mut plan, &documents);
            let effect = api.view.effect(plan.config);
            plan.config = base;
            let acked = api.view.acked(plan.config.revision());
            Ok(Applied { effect: Some(effect), ..Applied::of(plan, &acked) })
        })
        .await?
    }

    /// Adds the warnings that only the instances and callers there are can give.
    fn warn_of_the_live_mesh(&self, plan: &mut Plan, documents: &[Document]) {
        let mut mesh = Observed::default();
        for endpoint in self.view.endpoints(None) {
            mesh.instances.entry(endpoint.service).or_default().push(endpoint.labels);
        }
        // Endpoint objects of the plan are not in the view yet.
        for endpoint in plan.config.endpoints() {
            let labels = endpoint.workload_labels.clone();
            mesh.instances.entry(endpoint.service.clone()).or_default().push(labels);
        }
        mesh.callers = self.view.sidecars().into_iter().map(|it| it.service).collect();
        plan.warnings.extend(lint::observed(&plan.config, documents, &mesh));
    }

    /// How a transaction came out, once everybody has it (if that was asked for).
    async fn answer(&self, plan: Plan, wait: Option<Duration>) -> Result<Applied, Failure> {
        let revision = plan.config.revision();
        let acked = self.acked(revision, wait.unwrap_or(Duration::ZERO)).await;
        match wait {
            Some(wait) if acked.acked < acked.total => Err(laggards(revision, wait, &acked)),
            _ => Ok(Applied::of(plan, &acked)),
        }
    }

    /// # Errors
    /// 403 if the mesh is configured from a directory.
    pub(super) fn writable(&self) -> Result<(), Failure> {
        match &self.read_only {
            None => Ok(()),
            Some(directory) => Err(Failure::new(
                StatusCode::FORBIDDEN,
                "read-only",
                "Read-only",
                format!("the mesh is configured from the files in {}", directory.display()),
            )),
        }
    }
}

/// The revision is in force, but not in effect everywhere.
fn laggards(revision: u64, wait: Duration, acked: &Acked) -> Failure {
    let nodes: Vec<_> = acked
        .laggards
        .iter()
        .map(|Laggard { node, reason }| format!("{node} ({reason})"))
        .collect();
    let detail = format!(
        "revision {revision} is in force, but after {} only {} of {} have it in effect; not yet: {}",
        crate::model::duration::format(wait),
        acked.acked,
        acked.total,
        nodes.join(", "),
    );
    let laggards: Vec<_> = acked
        .laggards
        .iter()
        .map(|Laggard { node, reason }| serde_json::json!({"node": node, "reason": reason}))
        .collect();
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "not-acknowledged", "Not acknowledged", detail)
        .with("revision", revision)
        .with("acked", acked.acked)
        .with("total", acked.total)
        .with("laggards", laggards)
}
