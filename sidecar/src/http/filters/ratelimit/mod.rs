//! Limits that a service knows, `envoy.filters.http.ratelimit`: it is told how a request is described, and says whether
//! that is over a limit.

mod service;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::descriptors::{describe, rules_of_route};
use super::local_ratelimit::{LIMIT, REMAINING, RESET};
use super::{Passage, Step, happens};
use crate::access_log::ResponseFlags;
use crate::config::header::{HeaderMutations, HeaderTemplate};
use crate::config::rate_limit::{Descriptor, HostRules, RateLimit, RateLimitPerRoute};
use crate::http::exchange::Exchange;
use crate::http::grpc_call;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::matching::is_grpc;
use crate::http::mutations::Side;
use crate::http::router::Refusal;
use crate::local::ClusterRef;
use crate::stats::{RateLimitServiceCells, Registry, Scope, Sharded};

use service::Decision;

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u8 = 8;
/// Longest answer of the service.
const MOST: usize = 1 << 20;

const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const TRUE: HeaderValue = HeaderValue::from_static("true");

type Cells = Arc<Sharded<RateLimitServiceCells>>;

/// The filter of one connection manager.
pub(super) struct Filter {
    config: Arc<RateLimit>,
    registry: Arc<Registry>,
    /// Counters by the cluster that requests are for.
    cells: Mutex<BTreeMap<Arc<str>, Cells>>,
}

/// What the service wants to have said in the response.
pub(super) struct Said {
    config: Arc<RateLimit>,
    headers: HeaderMap,
    /// It is our own, and refuses the request.
    refuses: bool,
}

impl Said {
    pub(super) fn apply(mut self, headers: &mut HeaderMap, exchange: &Exchange) {
        if self.refuses && self.headers.contains_key(header::CONTENT_TYPE) {
            // A gRPC client gets no body of the service.
            if is_grpc(headers) {
                self.headers.remove(header::CONTENT_TYPE);
            } else {
                headers.remove(header::CONTENT_TYPE);
            }
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if self.refuses {
            let record = &mut || exchange.record_for_additions();
            self.config.response_headers.apply(headers, Side::Response, record);
        }
    }
}

impl Filter {
    pub(super) fn new(config: &Arc<RateLimit>, registry: &Arc<Registry>) -> Self {
        Self { config: Arc::clone(config), registry: Arc::clone(registry), cells: Mutex::default() }
    }

    /// The counters of requests to a cluster.
    fn cells(&self, cluster: &ClusterRef) -> Cells {
        // Nothing in here panics half-way through a change.
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let name = cluster.observed_name();
        if let Some(cells) = cells.get(name) {
            return Arc::clone(cells);
        }
        let name: Arc<str> = name.into();
        let own = Arc::clone(&self.config.stat_prefix);
        let found: Cells = self.registry.scope(Scope::ClusterRateLimit(Arc::clone(&name), own));
        cells.insert(name, Arc::clone(&found));
        found
    }

    /// Lets the request pass, or refuses it.
    pub(super) async fn run(
        &self,
        per_route: Option<&RateLimitPerRoute>,
        passage: &mut Passage<'_>,
    ) -> Result<(), Refusal> {
        let config = &self.config;
        if !happens(config.enabled.current()) {
            return Ok(());
        }
        let internal = passage.request.headers.get(INTERNAL).is_some_and(|value| value == "true");
        if config.internal.is_some_and(|only| only != internal) {
            return Ok(());
        }
        // Who is not forwarded to any cluster is not asked about.
        let Some(cluster) = passage.target.clone() else { return Ok(()) };
        let descriptors = self.descriptors(per_route, passage);
        if descriptors.is_empty() {
            return Ok(());
        }
        let domain = per_route.and_then(|route| route.domain.as_deref()).unwrap_or(&config.domain);
        let message = service::request(domain, &descriptors);
        let local = &passage.connection.local;
        let answer =
            grpc_call::ask(local, &config.service, service::METHOD, &message, config.timeout, MOST);
        let decision = match answer.await {
            Ok(answer) => service::decision(&answer, &descriptors, config.x_headers),
            Err(error) => {
                tracing::debug!(cluster = %config.service.cluster, %error, "no answer about a limit");
                None
            }
        };
        let cells = self.cells(&cluster);
        match decision {
            Some(decision) => self.conclude(decision, &cluster, &cells, passage),
            None => self.fail(&cells),
        }
    }

    fn descriptors(
        &self,
        per_route: Option<&RateLimitPerRoute>,
        passage: &Passage<'_>,
    ) -> Vec<Descriptor> {
        let stage = self.config.stage;
        let own = per_route.map(|route| &route.rules).filter(|rules| !rules.is_empty());
        let own = own.unwrap_or(&self.config.rules);
        if !own.is_empty() {
            // What stands in the filter has no stage.
            return describe(own.iter(), 0, true, passage);
        }
        let host_rules = per_route.map_or(HostRules::Override, |route| route.host_rules);
        describe(rules_of_route(passage, host_rules), stage, true, passage)
    }

    fn conclude(
        &self,
        decision: Decision,
        cluster: &ClusterRef,
        cells: &Cells,
        passage: &mut Passage<'_>,
    ) -> Result<(), Refusal> {
        let config = &self.config;
        if !decision.metadata.is_empty() {
            passage.exchange.state().metadata.put(&config.namespace, decision.metadata);
        }
        let mut headers = decision.response_headers;
        if decision.over_limit {
            cells.local().over_limit.inc();
            cluster.stats.local().responses_internal.record(config.status.as_u16());
            if config.limited_header {
                headers.insert(LIMITED, TRUE);
            }
        } else {
            cells.local().ok.inc();
        }
        if let Some(nearest) = decision.nearest
            && let Ok(limit) = HeaderValue::from_str(&nearest.limit)
        {
            headers.append(LIMIT, limit);
            headers.append(REMAINING, nearest.remaining.into());
            headers.append(RESET, nearest.reset.into());
        }
        let refuses = decision.over_limit && happens(config.enforced.current());
        if refuses
            && config.retry_after
            && config.status == StatusCode::TOO_MANY_REQUESTS
            && !headers.contains_key(header::RETRY_AFTER)
            && let Some(seconds) = decision.retry_after
        {
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if refuses && has_commands(&config.response_headers) {
            passage.exchange.collect(passage.request);
        }
        let said = Said { config: Arc::clone(config), headers, refuses };
        passage.steps.0.push(Step::RateLimited(Box::new(said)));
        if !refuses {
            for (name, value) in &decision.request_headers {
                passage.request.headers.append(name, value.clone());
            }
            return Ok(());
        }
        let mut reply = LocalReply::new(config.status, decision.body, "request_rate_limited")
            .because(Reason::RateLimited)
            .flagged(ResponseFlags::RATE_LIMITED);
        reply.grpc_status = config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        Err(reply.into())
    }

    /// Nobody says anything.
    fn fail(&self, cells: &Cells) -> Result<(), Refusal> {
        cells.local().error.inc();
        if !happens(self.config.deny_on_failure.current()) {
            cells.local().failure_mode_allowed.inc();
            return Ok(());
        }
        let reply = LocalReply::new(self.config.status_on_error, "", "rate_limiter_error")
            .because(Reason::RateLimited)
            .flagged(ResponseFlags::RATE_LIMIT_SERVICE_ERROR);
        Err(reply.into())
    }
}

/// Whether some value has command operators.
pub(super) fn has_commands(added: &HeaderMutations) -> bool {
    added.add.iter().any(|add| matches!(add.value, HeaderTemplate::Format(_)))
}
