//! `GET /v1/history` and `GET /v1/events`: the same items, from the newest back, and as they come.

use super::Api;
use super::failure::Failure;
use super::input::Parameters;
use super::view::rfc3339;
use crate::model::Config;
use crate::model::changes::{self, FieldChange};
use crate::store::{ChangeKind, Revision, Store, StoreError};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// So many revisions are listed unless fewer are asked for.
const MOST_LISTED: usize = 1000;
/// So many are read from the store at a time for somebody who is behind.
const BATCH: usize = 100;
/// A line is sent after so long without one, so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One revision.
#[derive(Serialize)]
pub(super) struct Item {
    revision: u64,
    time: String,
    author: String,
    changes: Vec<ItemChange>,
}

#[derive(Serialize)]
struct ItemChange {
    kind: String,
    name: String,
    action: ChangeKind,
    /// The fields that differ, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<FieldChange>>,
}

impl Item {
    fn of(revision: Revision, with_fields: bool) -> Self {
        let time = rfc3339(revision.time());
        let changes = revision.changes.into_iter().map(|change| ItemChange {
            action: change.action(),
            fields: with_fields
                .then(|| changes::of_documents(change.before.as_ref(), change.after.as_ref())),
            kind: change.kind,
            name: change.name,
        });
        Self {
            revision: revision.revision,
            time,
            author: revision.author,
            changes: changes.collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Items {
    items: Vec<Item>,
}

/// The newest revisions, the newest first; with `diff=true`, each with the fields that it changed.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    mut parameters: Parameters,
) -> Result<Json<Items>, Failure> {
    let limit = match parameters.take("limit")? {
        None => MOST_LISTED,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=MOST_LISTED).contains(limit)).ok_or_else(
                || Failure::bad_request(format!("`limit` is a number from 1 to {MOST_LISTED}")),
            )?
        }
    };
    let with_fields = parameters.take_flag("diff")?;
    parameters.finish(&["limit", "diff"])?;
    let newest = api.store.current().revision();
    let after = newest.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
    let revisions = read(Arc::clone(&api.store), after, limit).await?;
    Ok(Json(Items {
        items: revisions.into_iter().rev().map(|it| Item::of(it, with_fields)).collect(),
    }))
}

async fn read(
    store: Arc<dyn Store>,
    after: u64,
    limit: usize,
) -> Result<Vec<Revision>, StoreError> {
    let read = tokio::task::spawn_blocking(move || store.history(after, limit)).await;
    read.unwrap_or_else(|error| {
        Err(StoreError::Corrupt { place: "history".to_owned(), reason: error.to_string() })
    })
}

/// Server-sent events (HTML standard, section 9.2), one a revision. Without `Last-Event-ID` from now on; with it, what came
/// after that revision first (of what is kept).
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.finish(&[])?;
    let current = api.store.current().revision();
    let after = match headers.get("last-event-id") {
        None => current,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|after| *after <= current)
            .ok_or_else(|| {
                Failure::bad_request(format!(
                    "Last-Event-ID is a revision up to the current one, {current}"
                ))
            })?,
    };
    let feed = Feed {
        store: Arc::clone(&api.store),
        watch: api.store.watch(),
        ready: api.ready.clone(),
        after,
        waiting: VecDeque::new(),
        greeted: false,
    };
    let body = stream::unfold(feed, async |mut feed| feed.next().await.map(|text| (text, feed)));
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// What one listener has still to be told.
struct Feed {
    store: Arc<dyn Store>,
    watch: watch::Receiver<Config>,
    /// No longer true when the control plane stops.
    ready: watch::Receiver<bool>,
    /// The last revision it was told.
    after: u64,
    waiting: VecDeque<Revision>,
    greeted: bool,
}

impl Feed {
    /// The next piece of the stream; `None` when the control plane stops.
    async fn next(&mut self) -> Option<Result<Bytes, Infallible>> {
        if !self.greeted {
            // So that the listener knows at once that it is connected.
            self.greeted = true;
            return Some(Ok(Bytes::from_static(b": events of the mesh, one a revision\n\n")));
        }
        loop {
            if let Some(revision) = self.waiting.pop_front() {
                self.after = revision.revision;
                return Some(Ok(event(revision)));
            }
            if self.watch.borrow_and_update().revision() > self.after {
                match read(Arc::clone(&self.store), self.after, BATCH).await {
                    Ok(revisions) if !revisions.is_empty() => {
                        self.waiting = revisions.into();
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "the history cannot be read");
                        return None;
                    }
                }
            }
            tokio::select! {
                changed = self.watch.changed() => changed.ok()?,
                () = stopped(&mut self.ready) => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Ok(Bytes::from_static(b":\n\n"))),
            }
        }
    }
}

/// Waits until the control plane is about to stop: it is not ready any more.
async fn stopped(ready: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = ready.wait_for(|ready| !*ready).await;
}

fn event(revision: Revision) -> Bytes {
    let id = revision.revision;
    let data = serde_json::to_string(&Item::of(revision, false)).unwrap_or_default();
    Bytes::from(format!("id: {id}\nevent: revision\ndata: {data}\n\n"))
}
