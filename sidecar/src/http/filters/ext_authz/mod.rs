//! Decisions of others, `envoy.filters.http.ext_authz`: a service is asked about each request, and says whether it goes on,
//! and how it is changed.
//!
//! [`Filter::run`] finds out whether to ask, and whom ([`grpc`], [`http_service`]); [`question`] is what both of them get,
//! [`verdict`] what they say and what becomes of it.

mod grpc;
mod http_service;
mod question;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::buffer::too_large;
use super::{Passage, happens};
use crate::access_log::ResponseFlags;
use crate::config::ext_authz::{AuthBody, AuthCheck, AuthPerRoute, AuthService, ExtAuthz};
use crate::config::http_filters::{FilterOverride, RouteFilter};
use crate::http::body::ClientBody;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::replay::{Filled, Kept};
use crate::http::router::Refusal;
use crate::http::stream_state::metadata_of;
use crate::local::ClusterRef;
use crate::stats::{ExtAuthzCells, Registry, Scope, Sharded};

use question::Question;
pub(in crate::http::filters) use verdict::ToResponse;
use verdict::Verdict;

/// Namespace of what the service notes.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// Longest answer of a service.
const MOST: usize = 4 << 20;

/// The filter of one connection manager.
pub(super) struct Filter {
    config: Arc<ExtAuthz>,
    stats: Arc<Sharded<ExtAuthzCells>>,
}

/// What counts for one request.
struct Settings<'a> {
    service: &'a AuthService,
    body: Option<AuthBody>,
    extensions: Vec<(&'a str, &'a str)>,
}

impl Filter {
    pub(super) fn new(config: &Arc<ExtAuthz>, registry: &Arc<Registry>, prefix: &Arc<str>) -> Self {
        let own = Arc::clone(&config.stat_prefix);
        let stats = registry.scope(Scope::HttpFilter("ext_authz", Arc::clone(prefix), own));
        Self { config: Arc::clone(config), stats }
    }

    /// Lets the request pass, or refuses it. `name` is the filter's.
    pub(super) async fn run(
        &self,
        name: &str,
        passage: &mut Passage<'_>,
        body: ClientBody,
    ) -> Result<ClientBody, Refusal> {
        let Some(settings) = self.settings(name, passage) else { return Ok(body) };
        if !self.is_enabled(passage) {
            self.stats.local().disabled.inc();
            if self.config.deny_at_disable.current() {
                return Err(self.error());
            }
            return Ok(body);
        }
        let cluster = passage.target.clone();
        let (body, sent) = match settings.body {
            Some(limits) => buffered(body, limits, passage).await?,
            None => (body, None),
        };
        let question = Question::new(&self.config, passage, sent);
        let began = Instant::now();
        let verdict = match settings.service {
            AuthService::Grpc(service) => {
                let request = grpc::request(&self.config, &settings, &question, passage);
                grpc::ask(service, request, passage).await
            }
            AuthService::Http(service) => http_service::ask(service, &question, passage).await,
        };
        drop(question);
        self.conclude(verdict, passage, cluster.as_ref(), began.elapsed())?;
        Ok(body)
    }

    /// `None`: nothing is checked here.
    fn settings<'s>(&'s self, name: &str, passage: &Passage<'s>) -> Option<Settings<'s>> {
        passage.route?;
        let mut levels = Vec::new();
        for said in passage.overrides.iter().flatten().filter_map(|level| level.of(name)) {
            match said {
                FilterOverride::Configured(RouteFilter::ExtAuthz(AuthPerRoute::Disabled))
                    if levels.is_empty() =>
                {
                    return None;
                }
                FilterOverride::Configured(RouteFilter::ExtAuthz(AuthPerRoute::Check(check))) => {
                    levels.push(&**check);
                }
                _ => {}
            }
        }
        let none = AuthCheck::default();
        let specific = levels.first().copied();
        let without_body = specific.unwrap_or(&none).without_body;
        let mut extensions: Vec<(&str, &str)> = Vec::new();
        for (key, value) in levels.iter().flat_map(|level| &level.context_extensions) {
            if !extensions.iter().any(|(known, _)| *known == &**key) {
                extensions.push((key, value));
            }
        }
        Some(Settings {
            service: specific
                .and_then(|level| level.service.as_ref())
                .unwrap_or(&self.config.service),
            body: specific
                .and_then(|level| level.body)
                .or(self.config.body)
                .filter(|_| !without_body),
            extensions,
        })
    }

    fn is_enabled(&self, passage: &Passage<'_>) -> bool {
        let metadata = metadata_of(passage.exchange.state.as_deref());
        self.config.enabled.as_ref().is_none_or(|share| happens(share.current()))
            && self.config.enabled_metadata.as_ref().is_none_or(|it| it.matches(metadata))
    }

    fn conclude(
        &self,
        verdict: Verdict,
        passage: &mut Passage<'_>,
        cluster: Option<&ClusterRef>,
        took: Duration,
    ) -> Result<(), Refusal> {
        let stats = self.stats.local();
        let cluster = cluster.map(|cluster| cluster.stats.local());
        let Verdict { decision, mut metadata } = verdict;
        if !metadata.is_empty() {
            if self.config.takes_metadata {
                if matches!(decision, verdict::Decision::Allowed(_)) {
                    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    metadata.insert("ext_authz_duration".to_owned(), took.into());
                }
                passage.exchange.state().metadata.put(NAMESPACE, metadata);
            } else {
                stats.ignored_dynamic_metadata.inc();
            }
        }
        match decision {
            verdict::Decision::Allowed(changes) => {
                let Ok(()) = changes.apply(&self.config, passage) else {
                    stats.invalid.inc();
                    cluster.inspect(|cells| cells.ext_authz.invalid.inc());
                    return Err(invalid());
                };
                stats.ok.inc();
                cluster.inspect(|cells| cells.ext_authz.ok.inc());
                Ok(())
            }
            verdict::Decision::Denied(denial) => {
                stats.denied.inc();
                if let Some(cells) = cluster {
                    cells.ext_authz.denied.inc();
                    if self.config.charge_cluster {
                        cells.responses_internal.record(denial.status.as_u16());
                    }
                }
                if self.config.validate_mutations && !denial.is_valid() {
                    stats.invalid.inc();
                    cluster.inspect(|cells| cells.ext_authz.invalid.inc());
                    return Err(invalid());
                }
                Err(denial.into_reply("ext_authz_denied", self.config.max_denied_body))
            }
            verdict::Decision::Failed(denial) => {
                stats.error.inc();
                cluster.inspect(|cells| cells.ext_authz.error.inc());
                if self.config.failure_mode_allow {
                    stats.failure_mode_allowed.inc();
                    cluster.inspect(|cells| cells.ext_authz.failure_mode_allowed.inc());
                    if self.config.failure_mode_allow_header {
                        let value = http::HeaderValue::from_static("true");
                        let headers = &mut passage.request.headers;
                        headers.append("x-envoy-auth-failure-mode-allowed", value);
                    }
                    return Ok(());
                }
                Err(match denial {
                    Some(denial) => {
                        denial.into_reply("ext_authz_error", self.config.max_denied_body)
                    }
                    None => self.error(),
                })
            }
        }
    }

    /// Nobody decides.
    fn error(&self) -> Refusal {
        LocalReply::new(self.config.status_on_error, "", "ext_authz_error")
            .because(Reason::AuthorizationDenied)
            .flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE)
            .into()
    }
}

/// The service asks for what cannot be.
fn invalid() -> Refusal {
    LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "ext_authz_invalid")
        .because(Reason::AuthorizationDenied)
        .flagged(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE)
        .into()
}

/// A request's body, as far as the service gets it.
struct Sent {
    data: Bytes,
    /// Bytes that came so far.
    received: usize,
    partial: bool,
}

/// Reads a body as far as the service gets it. All of it still goes to the endpoint.
async fn buffered(
    body: ClientBody,
    limits: AuthBody,
    passage: &Passage<'_>,
) -> Result<(ClientBody, Option<Sent>), Refusal> {
    let Some(progress) = passage.exchange.progress.clone() else { return Ok((body, None)) };
    if passage.accepted.upgrade.is_some() {
        return Ok((body, None));
    }
    let most = u64::from(limits.max_bytes);
    let kept = match body {
        ClientBody::Empty => return Ok((body, None)),
        ClientBody::Whole(whole) => {
            let length = whole.data.len().min(limits.max_bytes as usize);
            let partial = length < whole.data.len();
            if partial && !limits.allow_partial {
                return Err(too_large(passage));
            }
            let sent =
                Sent { data: whole.data.slice(..length), received: whole.data.len(), partial };
            return Ok((ClientBody::Whole(whole), Some(sent)));
        }
        ClientBody::Incoming(incoming) => {
            let limit = passage.connection.manager.buffer_limit as u64;
            Kept::new(incoming, progress, limit.max(most))
        }
        ClientBody::Kept(kept) => kept,
    };
    // One byte more tells whether it is longer.
    let wanted = if limits.allow_partial { most } else { most + 1 };
    let filled = kept.fill(wanted, passage).await?;
    let Filled { data, ended } = filled;
    if data.len() as u64 > most && !limits.allow_partial {
        return Err(too_large(passage));
    }
    let length = data.len().min(limits.max_bytes as usize);
    let partial = !ended || length < data.len();
    let sent = Sent { data: data.slice(..length), received: data.len(), partial };
    Ok((ClientBody::Kept(kept), Some(sent)))
}
