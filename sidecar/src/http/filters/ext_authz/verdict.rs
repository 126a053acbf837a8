//! What a service says, and what becomes of it.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::access_log::ResponseFlags;
use crate::config::ext_authz::ExtAuthz;
use crate::config::header::AppendAction;
use crate::http::filters::{Passage, Step};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::query;
use crate::http::router::{Refusal, set_path};

/// What a service says.
pub(super) struct Verdict {
    pub(super) decision: Decision,
    /// What it notes.
    pub(super) metadata: Map<String, Value>,
}

pub(super) enum Decision {
    Allowed(Box<Changes>),
    Denied(Box<Denial>),
    /// Nobody decided; with an answer of the service's own.
    Failed(Option<Box<Denial>>),
}

impl Verdict {
    /// Nobody decided.
    pub(super) fn failed() -> Self {
        Self { decision: Decision::Failed(None), metadata: Map::new() }
    }
}

/// How a request that may go on is changed.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) request: Vec<Change>,
    pub(super) remove: Vec<String>,
    pub(super) response: Vec<Change>,
    pub(super) set_parameters: Vec<(String, String)>,
    pub(super) remove_parameters: Vec<String>,
}

/// A header that is changed.
pub(super) struct Change {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
    pub(super) action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    As(AppendAction),
    /// Behind the first value that is there, with a comma; nothing if there is none.
    JoinIfExists,
}

/// An answer of the service.
pub(super) struct Denial {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<Change>,
    pub(super) body: Bytes,
}

/// What the service asks for cannot be.
pub(super) struct Invalid;

impl Changes {
    fn is_empty(&self) -> bool {
        self.request.is_empty()
            && self.remove.is_empty()
            && self.set_parameters.is_empty()
            && self.remove_parameters.is_empty()
    }

    /// Changes the request, and leaves behind what is to be done to the response.
    pub(super) fn apply(self, config: &ExtAuthz, passage: &mut Passage<'_>) -> Result<(), Invalid> {
        if config.validate_mutations {
            let changes = self.request.iter().chain(&self.response);
            let parameters =
                |(key, value): &(String, String)| is_query_text(key) && is_query_text(value);
            if !changes.into_iter().all(Change::is_valid)
                || !self.set_parameters.iter().all(parameters)
            {
                return Err(Invalid);
            }
        }
        passage.rematch |= config.clear_route_cache && !self.is_empty();
        for change in &self.request {
            if let Some(rules) = &config.mutation_rules
                && !rules.allow(&change.name.to_ascii_lowercase())
            {
                if rules.disallow_is_error {
                    return Err(Invalid);
                }
                continue;
            }
            change_request(change, passage);
        }
        for name in &self.remove {
            let name = name.to_ascii_lowercase();
            let is_allowed = config.mutation_rules.as_ref().is_none_or(|rules| rules.allow(&name));
            if name.starts_with(':') || name == "host" {
                continue;
            }
            if !is_allowed {
                if config.mutation_rules.as_ref().is_some_and(|rules| rules.disallow_is_error) {
                    return Err(Invalid);
                }
                continue;
            }
            passage.request.headers.remove(&name);
        }
        if !self.set_parameters.is_empty() || !self.remove_parameters.is_empty() {
            change_query(&self.set_parameters, &self.remove_parameters, passage);
        }
        if !self.response.is_empty() {
            passage.steps.0.push(Step::Authorized(ToResponse(self.response)));
        }
        Ok(())
    }
}

impl Change {
    fn is_valid(&self) -> bool {
        let name = self.name.strip_prefix(':').unwrap_or(&self.name);
        HeaderName::from_bytes(name.as_bytes()).is_ok()
            && HeaderValue::from_bytes(&self.value).is_ok()
    }

    /// What cannot be is left out.
    fn apply(&self, headers: &mut HeaderMap) {
        let name = HeaderName::from_bytes(self.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&self.value)) else { return };
        match (self.action, headers.get_mut(&name)) {
            (Action::As(AppendAction::AppendIfExistsOrAdd), _) => drop(headers.append(name, value)),
            (Action::As(AppendAction::AddIfAbsent), Some(_))
            | (Action::As(AppendAction::OverwriteIfExists) | Action::JoinIfExists, None) => {}
            (Action::As(_), _) => drop(headers.insert(name, value)),
            (Action::JoinIfExists, Some(before)) => {
                let joined = [before.as_bytes(), b",", value.as_bytes()].concat();
                if let Ok(joined) = HeaderValue::from_bytes(&joined) {
                    *before = joined;
                }
            }
        }
    }
}

fn is_query_text(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#'))
}

/// Parts of the request line are changed as headers as well.
fn change_request(change: &Change, passage: &mut Passage<'_>) {
    let request = &mut *passage.request;
    let value = || std::str::from_utf8(&change.value).ok();
    match change.name.to_ascii_lowercase().as_str() {
        ":path" => {
            // One that is no path is left out.
            let _ = value().map(|path| set_path(request, path));
        }
        ":method" => {
            let method = Method::from_bytes(&change.value);
            if let Ok(method) = method {
                request.method = method;
            }
        }
        ":authority" | "host" => {
            if let Ok(host) = HeaderValue::from_bytes(&change.value) {
                request.headers.insert(header::HOST, host);
            }
        }
        name if name.starts_with(':') => {}
        _ => change.apply(&mut request.headers),
    }
}

fn change_query(set: &[(String, String)], remove: &[String], passage: &mut Passage<'_>) {
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        query::parameters(passage.request.uri.query())
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
    for (name, value) in set {
        pairs.retain(|(other, _)| query::decoded(other) != *name);
        pairs.push((name.as_str().into(), value.as_str().into()));
    }
    pairs.retain(|(name, _)| !remove.iter().any(|gone| query::decoded(name) == *gone));
    // As in Envoy they come out in the order of their names.
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let text: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    query::replace(passage.request, text.join("&").into());
}

impl Denial {
    pub(super) fn is_valid(&self) -> bool {
        self.headers.iter().all(Change::is_valid)
    }

    pub(super) fn into_reply(self, details: &'static str, most: Option<usize>) -> Refusal {
        let length = self.body.len().min(most.unwrap_or(usize::MAX));
        let mut reply = LocalReply::new(self.status, self.body.slice(..length), details)
            .because(Reason::AuthorizationDenied)
            .flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE);
        // They take the place of what is there, but not of each other.
        let added = |change: &&Change| change.action != Action::JoinIfExists;
        for change in self.headers.iter().filter(added) {
            reply.headers.remove(&*change.name.to_ascii_lowercase());
        }
        let (added, joined): (Vec<Change>, Vec<Change>) =
            self.headers.into_iter().partition(|change| added(&change));
        for change in added {
            let action = Action::As(AppendAction::AppendIfExistsOrAdd);
            Change { action, ..change }.apply(&mut reply.headers);
        }
        for change in joined {
            change.apply(&mut reply.headers);
        }
        reply.headers.remove(header::CONTENT_LENGTH);
        if length == 0 {
            reply.headers.remove(header::CONTENT_TYPE);
        }
        reply.into()
    }
}

/// Headers that the response gets.
pub(in crate::http::filters) struct ToResponse(Vec<Change>);

impl ToResponse {
    pub(in crate::http::filters) fn apply(self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|change| change.apply(headers));
    }
}
