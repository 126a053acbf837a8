//! `GET /v1/audit`: who did what, and when. Changes of the configuration are in the history; what else was done is kept
//! beside it, and the two are told as one.

use super::failure::Failure;
use super::identities::blocking;
use super::input::Parameters;
use super::view::rfc3339;
use super::{Api, Peer};
use crate::identity::millis;
use crate::store::{Revision, Store, StoreError, records};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Of the store: milliseconds and a number, to [`Kept`].
const TABLE: &str = "audit";
/// So many are kept; the oldest are forgotten.
const MOST_KEPT: usize = 10_000;
/// So many are listed unless fewer are asked for.
const MOST_LISTED: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Kept {
    at_ms: u64,
    author: String,
    action: String,
    target: String,
}

/// Something that somebody did.
#[derive(Serialize)]
pub(super) struct Entry {
    #[serde(skip)]
    at_ms: u64,
    time: String,
    author: String,
    /// `apply`, `token.create`, `identity.revoke`, `ca.rotate`, `refused`.
    action: String,
    /// What it was done to.
    target: String,
    /// The revision it made, if it changed the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Entries {
    items: Vec<Entry>,
}

/// The newest entries, the newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    mut parameters: Parameters,
) -> Result<Json<Entries>, Failure> {
    let limit = match parameters.take("limit")? {
        None => MOST_LISTED,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=MOST_LISTED).contains(limit)).ok_or_else(
                || Failure::bad_request(format!("`limit` is a number from 1 to {MOST_LISTED}")),
            )?
        }
    };
    parameters.finish(&["limit"])?;
    let store = Arc::clone(&api.store);
    let mut items = blocking(move || read(&*store, limit)).await??;
    items.sort_by_key(|entry| std::cmp::Reverse(entry.at_ms));
    items.truncate(limit);
    Ok(Json(Entries { items }))
}

fn read(store: &dyn Store, limit: usize) -> Result<Vec<Entry>, StoreError> {
    let newest = store.current().revision();
    let after = newest.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
    let mut items: Vec<_> =
        store.history(after, limit)?.into_iter().map(Entry::of_revision).collect();
    let kept = records(store, |records| records.list(TABLE))?;
    let kept = kept.iter().rev().take(limit);
    items.extend(kept.filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).map(Entry::of));
    Ok(items)
}

impl Entry {
    fn of_revision(revision: Revision) -> Self {
        let names = revision.changes.iter().map(|it| format!("{}/{}", it.kind, it.name));
        Self {
            at_ms: revision.at_ms,
            time: rfc3339(revision.time()),
            action: "apply".to_owned(),
            target: names.collect::<Vec<_>>().join(", "),
            revision: Some(revision.revision),
            author: revision.author,
        }
    }

    fn of(Kept { at_ms, author, action, target }: Kept) -> Self {
        let time = rfc3339(UNIX_EPOCH + Duration::from_millis(at_ms));
        Self { at_ms, time, author, action, target, revision: None }
    }
}

impl Api {
    /// Notes that somebody did something; it is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be noted.
    pub(super) async fn audit(
        &self,
        peer: &Peer,
        action: &str,
        target: &str,
    ) -> Result<(), Failure> {
        let author = peer.author();
        tracing::info!(author, action, target, "audit");
        let kept = Kept {
            at_ms: millis(SystemTime::now()),
            author,
            action: action.to_owned(),
            target: target.to_owned(),
        };
        let store = Arc::clone(&self.store);
        blocking(move || keep(&*store, &kept)).await?.map_err(Failure::from)
    }
}

fn keep(store: &dyn Store, kept: &Kept) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(kept).map_err(|error| StoreError::Corrupt {
        place: TABLE.to_owned(),
        reason: error.to_string(),
    })?;
    records(store, |records| {
        let there = records.list(TABLE)?;
        for (key, _) in there.iter().take((there.len() + 1).saturating_sub(MOST_KEPT)) {
            records.remove(TABLE, key)?;
        }
        // Of several within a millisecond, each has a place of its own.
        let newest = there.last().and_then(|(key, _)| key.split_once('.'));
        let number = match newest {
            Some((at, number)) if at >= format!("{:015}", kept.at_ms).as_str() => {
                number.parse::<u64>().unwrap_or(0) + 1
            }
            _ => 0,
        };
        let at = match newest {
            Some((at, _)) if number > 0 => at.to_owned(),
            _ => format!("{:015}", kept.at_ms),
        };
        records.put(TABLE, &format!("{at}.{number:06}"), &bytes)
    })
}
