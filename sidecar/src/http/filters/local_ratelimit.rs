//! A limit of this process alone, `envoy.filters.http.local_ratelimit`: a request takes a token or is refused.

use std::sync::Arc;

use http::HeaderMap;

use super::{Passage, Step, happens};
use crate::access_log::ResponseFlags;
use crate::config::header::{HeaderMutations, HeaderTemplate};
use crate::config::http_filters::LocalRateLimit;
use crate::http::exchange::Exchange;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::mutations::Side;
use crate::http::router::Refusal;
use crate::stats::{RateLimitCells, Registry, Scope};

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u8 = 8;

/// The filter of one connection manager.
pub(super) struct Filter {
    pub(super) config: Arc<LocalRateLimit>,
    registry: Arc<Registry>,
}

/// What is added to a refusal.
pub(super) struct Refused(Arc<LocalRateLimit>);

impl Refused {
    pub(super) fn apply(self, headers: &mut HeaderMap, exchange: &Exchange) {
        let record = &mut || exchange.record_for_additions();
        self.0.response_headers.apply(headers, Side::Response, record);
    }
}

impl Filter {
    pub(super) fn new(config: &Arc<LocalRateLimit>, registry: &Arc<Registry>) -> Self {
        Self { config: Arc::clone(config), registry: Arc::clone(registry) }
    }

    /// Counters stand under the prefix of the configuration that applies; they are found once for each.
    fn stats<'a>(&self, config: &'a LocalRateLimit) -> &'a RateLimitCells {
        let scope = || Scope::LocalRateLimit(Arc::clone(&config.stat_prefix));
        config.stats.0.get_or_init(|| self.registry.scope(scope())).local()
    }

    pub(super) fn run(
        &self,
        config: &Arc<LocalRateLimit>,
        passage: &mut Passage<'_>,
    ) -> Result<(), Refusal> {
        if !happens(config.enabled.current()) {
            return Ok(());
        }
        let stats = self.stats(config);
        stats.enabled.inc();
        if config.bucket.as_ref().is_some_and(|bucket| bucket.take()) {
            stats.ok.inc();
            return Ok(());
        }
        stats.rate_limited.inc();
        let needs_facts = |added: &HeaderMutations| {
            added.add.iter().any(|add| matches!(add.value, HeaderTemplate::Format(_)))
        };
        if needs_facts(&config.request_headers) || needs_facts(&config.response_headers) {
            passage.exchange.collect(passage.request);
        }
        if !happens(config.enforced.current()) {
            let (exchange, headers) = (&*passage.exchange, &mut passage.request.headers);
            let record = &mut || exchange.record_for_additions();
            config.request_headers.apply(headers, Side::Request, record);
            return Ok(());
        }
        stats.enforced.inc();
        if !config.response_headers.is_empty() {
            passage.steps.0.push(Step::Add(Refused(Arc::clone(config))));
        }
        let mut reply = LocalReply::new(config.status, "local_rate_limited", "local_rate_limited")
            .because(Reason::RateLimited)
            .flagged(ResponseFlags::RATE_LIMITED);
        reply.grpc_status = config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        Err(reply.into())
    }
}
