//! Faults on purpose, `envoy.filters.http.fault`: some requests wait, some are answered with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use super::{Pass, Passage, Step, happens};
use crate::access_log::ResponseFlags;
use crate::config::http_filters::{Fault, FaultAbort, FaultDelay, FaultError, FaultRate, Fraction};
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;
use crate::stats::{FaultCells, Sharded};

const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");
const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const RATE: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const RATE_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_PERCENTAGE: HeaderName =
    HeaderName::from_static("x-envoy-fault-abort-request-percentage");

/// The filter of one connection manager.
pub(super) struct Filter {
    pub(super) config: Arc<Fault>,
    stats: Arc<Sharded<FaultCells>>,
    /// Requests under a fault, in all workers.
    active: Arc<AtomicU32>,
}

/// A request under a fault, until its exchange is over.
pub(crate) struct Active {
    active: Arc<AtomicU32>,
    stats: Arc<Sharded<FaultCells>>,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Relaxed);
        self.stats.local().active_faults.dec();
    }
}

impl Filter {
    pub(super) fn new(config: &Arc<Fault>, stats: Arc<Sharded<FaultCells>>) -> Self {
        Self { config: Arc::clone(config), stats, active: Arc::default() }
    }

    pub(super) fn run(&self, config: &Fault, passage: &mut Passage<'_>) -> Result<Pass, Refusal> {
        if !is_meant(config, passage) {
            return Ok(Pass::On);
        }
        let headers = &passage.request.headers;
        let delay = config.delay.and_then(|(delay, share)| delay_of(config, delay, share, headers));
        let error = config.abort.as_ref().and_then(|abort| error_of(config, abort, headers));
        let rate =
            config.response_rate.and_then(|(rate, share)| rate_of(config, rate, share, headers));
        if delay.is_none() && error.is_none() && rate.is_none() {
            return Ok(Pass::On);
        }
        let stats = self.stats.local();
        if u64::from(self.active.load(Relaxed)) >= config.max_active.whole() {
            stats.faults_overflow.inc();
            return Ok(Pass::On);
        }
        self.active.fetch_add(1, Relaxed);
        stats.active_faults.inc();
        passage.exchange.fault = Some(Box::new(Active {
            active: Arc::clone(&self.active),
            stats: Arc::clone(&self.stats),
        }));
        if let Some(rate) = rate {
            stats.response_rl_injected.inc();
            passage.steps.0.push(Step::Throttle(rate));
        }
        let refusal = error.map(|(status, grpc)| {
            stats.aborts_injected.inc();
            let body = config.abort.as_ref().and_then(|abort| abort.body.as_deref());
            let body = body.unwrap_or("fault filter abort").to_owned();
            let mut reply = LocalReply::new(status, body, "fault_filter_abort")
                .because(Reason::FaultInjected)
                .flagged(ResponseFlags::FAULT_INJECTED);
            reply.grpc_status = grpc;
            Box::new(reply)
        });
        match delay {
            Some(delay) => {
                stats.delays_injected.inc();
                passage.exchange.flags.insert(ResponseFlags::DELAY_INJECTED);
                Ok(Pass::Wait(delay, refusal))
            }
            None => refusal.map_or(Ok(Pass::On), Err),
        }
    }
}

/// Whether the configuration means this request.
fn is_meant(config: &Fault, passage: &Passage<'_>) -> bool {
    let cluster = config.upstream_cluster.as_deref();
    if cluster.is_some_and(|cluster| passage.cluster != Some(cluster)) {
        return false;
    }
    if !config.downstream_nodes.is_empty() {
        let node = passage.request.headers.get(NODE).and_then(|node| node.to_str().ok());
        if !node.is_some_and(|node| config.downstream_nodes.contains(node)) {
            return false;
        }
    }
    let view = passage.view();
    config.headers.iter().all(|header| header.matches(&view))
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// A header may ask for a smaller share than is configured.
fn share(share: Fraction, headers: &HeaderMap, name: &HeaderName) -> Fraction {
    (number(headers, name).map_or(share.0, |asked: u32| asked.min(share.0)), share.1)
}

fn delay_of(
    config: &Fault,
    delay: FaultDelay,
    configured: Fraction,
    headers: &HeaderMap,
) -> Option<Duration> {
    let (delay, configured) = match delay {
        FaultDelay::Fixed(delay) => (delay, configured),
        FaultDelay::Header => {
            let asked = Duration::from_millis(number(headers, &DELAY)?);
            (asked, share(configured, headers, &DELAY_PERCENTAGE))
        }
    };
    let milliseconds = delay.as_millis() as f64;
    let delay = Duration::from_millis(config.delay_duration.whole_or(milliseconds));
    happens(config.delay_percent.current_or(configured)).then_some(delay).filter(|it| !it.is_zero())
}

/// KiB per second of a response.
fn rate_of(
    config: &Fault,
    rate: FaultRate,
    configured: Fraction,
    headers: &HeaderMap,
) -> Option<u64> {
    let (rate, configured) = match rate {
        FaultRate::Fixed(rate) => (rate, configured),
        FaultRate::Header => {
            let asked = number(headers, &RATE).filter(|rate: &u64| *rate > 0)?;
            (asked, share(configured, headers, &RATE_PERCENTAGE))
        }
    };
    happens(config.response_rate_percent.current_or(configured)).then_some(rate)
}

/// Status and `grpc-status` of an abort.
fn error_of(
    config: &Fault,
    abort: &FaultAbort,
    headers: &HeaderMap,
) -> Option<(StatusCode, Option<u8>)> {
    let grpc = |status: u8| Some((StatusCode::OK, Some(status)));
    let (error, configured) = match abort.error {
        FaultError::Http(status) => (Some((status, None)), abort.percentage),
        FaultError::Grpc(status) => (grpc(status), abort.percentage),
        FaultError::Header => {
            let http = number(headers, &ABORT).filter(|status| (200..600).contains(status));
            let http = http.and_then(|status: u16| StatusCode::from_u16(status).ok());
            let error = match http {
                Some(status) => Some((status, None)),
                None => number(headers, &ABORT_GRPC).and_then(grpc),
            };
            (error, share(abort.percentage, headers, &ABORT_PERCENTAGE))
        }
    };
    error.filter(|_| happens(config.abort_percent.current_or(configured))).map(
        |error| match error {
            (status, None) => {
                let number = config.abort_http_status.whole_or(f64::from(status.as_u16()));
                let number =
                    u16::try_from(number).ok().filter(|number| (200..600).contains(number));
                let changed = number.and_then(|number| StatusCode::from_u16(number).ok());
                (changed.unwrap_or(status), None)
            }
            (status, Some(grpc)) => {
                let number = config.abort_grpc_status.whole_or(f64::from(grpc));
                (status, Some(u8::try_from(number).unwrap_or(grpc)))
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn fault() -> Fault {
        Fault {
            delay: None,
            delay_percent: (0, 100).into(),
            delay_duration: 0.0.into(),
            abort: None,
            response_rate: None,
            response_rate_percent: (0, 100).into(),
            abort_percent: (0, 100).into(),
            abort_http_status: 0.0.into(),
            abort_grpc_status: 0.0.into(),
            upstream_cluster: None,
            headers: Vec::new(),
            downstream_nodes: Default::default(),
            max_active: f64::MAX.into(),
        }
    }

    #[test]
    fn a_header_asks_for_a_delay_within_the_configured_share() {
        let all = (100, 100);
        let delay = |of: &[(HeaderName, &'static str)]| {
            delay_of(&fault(), FaultDelay::Header, all, &headers(of))
        };
        assert_eq!(delay(&[(DELAY, "25")]), Some(Duration::from_millis(25)));
        assert_eq!(delay(&[(DELAY, "25"), (DELAY_PERCENTAGE, "0")]), None);
        assert_eq!(delay(&[(DELAY, "x")]), None);
        assert_eq!(delay(&[]), None);
        let asks = headers(&[(DELAY, "25"), (DELAY_PERCENTAGE, "100")]);
        assert_eq!(delay_of(&fault(), FaultDelay::Header, (0, 100), &asks), None);
    }

    #[test]
    fn a_header_asks_for_a_rate_above_zero() {
        let rate = |of: &[(HeaderName, &'static str)]| {
            rate_of(&fault(), FaultRate::Header, (100, 100), &headers(of))
        };
        assert_eq!(rate(&[(RATE, "25")]), Some(25));
        assert_eq!(rate(&[(RATE, "25"), (RATE_PERCENTAGE, "0")]), None);
        assert_eq!(rate(&[(RATE, "0")]), None);
        assert_eq!(rate(&[]), None);
        assert_eq!(rate_of(&fault(), FaultRate::Fixed(3), (100, 100), &headers(&[])), Some(3));
    }

    #[test]
    fn a_header_asks_for_a_status_that_exists() {
        let abort = FaultAbort { error: FaultError::Header, percentage: (100, 100), body: None };
        let error = |of: &[(HeaderName, &'static str)]| error_of(&fault(), &abort, &headers(of));
        assert_eq!(error(&[(ABORT, "418")]), Some((StatusCode::IM_A_TEAPOT, None)));
        assert_eq!(error(&[(ABORT_GRPC, "5")]), Some((StatusCode::OK, Some(5))));
        assert_eq!(error(&[(ABORT, "100")]), None);
        assert_eq!(error(&[(ABORT, "418"), (ABORT_PERCENTAGE, "0")]), None);
    }
}
