//! A limit of this process alone, `envoy.filters.http.local_ratelimit`: a request takes a token or is refused. Requests
//! that are described may have limits of their own.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::descriptors::{describe, rules_of_route};
use super::ratelimit::has_commands;
use super::{Passage, Step, happens};
use crate::access_log::ResponseFlags;
use crate::config::http_filters::LocalRateLimit;
use crate::config::rate_limit::Descriptor;
use crate::config::token_bucket::TokenBucket;
use crate::http::exchange::Exchange;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::mutations::Side;
use crate::http::router::Refusal;
use crate::stats::{RateLimitCells, Registry, Scope};

/// gRPC's RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: u8 = 8;

pub(super) const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The filter of one connection manager.
pub(super) struct Filter {
    pub(super) config: Arc<LocalRateLimit>,
    registry: Arc<Registry>,
}

/// What is added to a response.
pub(super) struct Limited {
    config: Arc<LocalRateLimit>,
    /// The bucket that `x-ratelimit-*` tell of.
    says: Option<Arc<TokenBucket>>,
    /// The response is our own, and refuses the request, for want of a token in this bucket.
    refused: Option<Option<Arc<TokenBucket>>>,
}

impl Limited {
    pub(super) fn apply(self, headers: &mut HeaderMap, exchange: &Exchange) {
        if let Some(bucket) = self.refused {
            let record = &mut || exchange.record_for_additions();
            self.config.response_headers.apply(headers, Side::Response, record);
            let says_when =
                self.config.retry_after && self.config.status == StatusCode::TOO_MANY_REQUESTS;
            if says_when
                && !headers.contains_key(header::RETRY_AFTER)
                && let Some(bucket) = bucket
            {
                let seconds = whole_seconds(bucket.until_next_token()).max(1);
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        if let Some(bucket) = self.says {
            headers.append(LIMIT, HeaderValue::from(bucket.max()));
            headers.append(REMAINING, HeaderValue::from(bucket.tokens()));
            headers.append(RESET, HeaderValue::from(whole_seconds(bucket.until_next_token())));
        }
    }
}

/// A second that has begun counts.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
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
        let descriptors = descriptors(config, passage);
        let outcome = config.limiter.take(&descriptors);
        let says = outcome.bucket.clone().filter(|_| outcome.x_headers.unwrap_or(config.x_headers));
        if outcome.allowed {
            stats.ok.inc();
            respond(config, says, None, passage);
            return Ok(());
        }
        stats.rate_limited.inc();
        if outcome.shadow {
            stats.shadow_mode.inc();
            respond(config, says, None, passage);
            return Ok(());
        }
        if has_commands(&config.request_headers) || has_commands(&config.response_headers) {
            passage.exchange.collect(passage.request);
        }
        if !happens(config.enforced.current()) {
            let (exchange, headers) = (&*passage.exchange, &mut passage.request.headers);
            let record = &mut || exchange.record_for_additions();
            config.request_headers.apply(headers, Side::Request, record);
            respond(config, says, None, passage);
            return Ok(());
        }
        stats.enforced.inc();
        respond(config, says, Some(outcome.bucket), passage);
        let mut reply = LocalReply::new(config.status, "local_rate_limited", "local_rate_limited")
            .because(Reason::RateLimited)
            .flagged(ResponseFlags::RATE_LIMITED);
        reply.grpc_status = config.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        Err(reply.into())
    }
}

/// The request as limits are configured for it.
fn descriptors(config: &LocalRateLimit, passage: &Passage<'_>) -> Vec<Descriptor> {
    if !config.limiter.has_descriptors() {
        return Vec::new();
    }
    if config.rules.is_empty() {
        describe(rules_of_route(passage, config.host_rules), config.stage, false, passage)
    } else {
        describe(config.rules.iter(), 0, false, passage)
    }
}

/// Notes what is to be added to the response, if there is something.
fn respond(
    config: &Arc<LocalRateLimit>,
    says: Option<Arc<TokenBucket>>,
    refused: Option<Option<Arc<TokenBucket>>>,
    passage: &mut Passage<'_>,
) {
    let adds = refused.is_some() && (config.retry_after || !config.response_headers.is_empty());
    if says.is_some() || adds {
        let limited = Limited { config: Arc::clone(config), says, refused };
        passage.steps.0.push(Step::Add(limited));
    }
}
