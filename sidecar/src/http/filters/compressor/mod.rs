//! Compression of bodies, `envoy.filters.http.compressor`: of responses as the client accepts it, of requests as the
//! endpoint is known to.

mod accept;

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use self::accept::{Offer, choose};
use super::{Pass, Passage, Step};
use crate::config::compressor::{
    Codec, Compressor, CompressorPerRoute, ContentTypes, Direction, ResponseDirection,
};
use crate::http::pipe::{Compression, Stage};
use crate::stats::{AcceptEncodingCells, CompressionCells, Registry, Scope, Sharded};

pub(super) use self::accept::Choice;

const STATUS: HeaderName = HeaderName::from_static("x-envoy-compression-status");

/// The filter of one connection manager.
pub(super) struct Filter(Arc<Shared>);

struct Shared {
    config: Arc<Compressor>,
    accept: Arc<Sharded<AcceptEncodingCells>>,
    request: Arc<Sharded<CompressionCells>>,
    response: Arc<Sharded<CompressionCells>>,
}

/// What is done to a response once there is one.
pub(super) struct Pending {
    shared: Arc<Shared>,
    per_route: Option<CompressorPerRoute>,
    /// What the client accepts; `None`: it does not say, or was answered before it was asked.
    accept: Option<String>,
}

/// Why a response is not compressed, as `x-envoy-compression-status` says it.
enum Why {
    Length,
    Type,
    Etag,
    Code,
    /// The header does not say.
    Other,
}

impl Filter {
    pub(super) fn new(
        config: &Arc<Compressor>,
        registry: &Arc<Registry>,
        prefix: &Arc<str>,
    ) -> Self {
        let scope = |direction| Scope::Coding {
            filter: "compressor",
            prefix: Arc::clone(prefix),
            library: Arc::clone(&config.library),
            direction,
        };
        let of_response = if config.response.legacy_statistics { "" } else { "response" };
        Self(Arc::new(Shared {
            config: Arc::clone(config),
            accept: registry.scope(scope("")),
            request: registry.scope(scope("request")),
            response: registry.scope(scope(of_response)),
        }))
    }

    pub(super) fn run(
        &self,
        per_route: Option<&CompressorPerRoute>,
        passage: &mut Passage<'_>,
    ) -> Pass {
        let Shared { config, request: stats, .. } = &*self.0;
        let accept = joined(&passage.request.headers, &header::ACCEPT_ENCODING);
        let pending = self.pending(per_route, accept);
        if pending.is_enabled() && pending.removes_accept_encoding() {
            passage.request.headers.remove(header::ACCEPT_ENCODING);
        }
        passage.steps.0.push(Step::Compress(Box::new(pending)));
        let has_body = passage.exchange.progress.is_some();
        let upgrades = passage.accepted.upgrade.is_some();
        let headers = &mut passage.request.headers;
        let stats_of = stats.local();
        let compresses = config.request.as_ref().is_some_and(|direction| {
            has_body
                && direction.enabled.current()
                && !upgrades
                && is_long_enough(direction, headers, stats_of)
                && takes(&direction.types, headers)
                && !headers.contains_key(header::CONTENT_ENCODING)
        });
        let compression = compresses.then(|| Compression::new(&config.codec, stats).ok());
        let Some(compression) = compression.flatten() else {
            stats_of.not_compressed.inc();
            return Pass::On;
        };
        stats_of.compressed.inc();
        headers.remove(header::CONTENT_LENGTH);
        let encoding = HeaderValue::from_static(config.codec.encoding());
        headers.insert(header::CONTENT_ENCODING, encoding);
        Pass::Through(Box::new(Stage::Compress(Box::new(compression))))
    }

    /// A request was answered before it came here.
    pub(super) fn after_refusal(
        &self,
        per_route: Option<&CompressorPerRoute>,
        passage: &mut Passage<'_>,
    ) {
        let pending = self.pending(per_route, None);
        passage.steps.0.push(Step::Compress(Box::new(pending)));
    }

    fn pending(&self, per_route: Option<&CompressorPerRoute>, accept: Option<String>) -> Pending {
        Pending { shared: Arc::clone(&self.0), per_route: per_route.cloned(), accept }
    }
}

impl Pending {
    fn config(&self) -> &ResponseDirection {
        &self.shared.config.response
    }

    fn codec(&self) -> &Codec {
        let per_route = self.per_route.as_ref().and_then(|route| route.codec.as_ref());
        per_route.unwrap_or(&self.shared.config.codec)
    }

    fn is_enabled(&self) -> bool {
        let per_route = self.per_route.as_ref().and_then(|route| route.enabled);
        per_route.unwrap_or_else(|| self.config().common.enabled.current())
    }

    fn removes_accept_encoding(&self) -> bool {
        let per_route = self.per_route.as_ref().and_then(|route| route.remove_accept_encoding);
        per_route.unwrap_or(self.config().remove_accept_encoding)
    }

    /// What it is in the choice among all compressors, for a response of this type.
    pub(super) fn offer(&self, headers: &HeaderMap) -> Option<Offered> {
        takes(&self.config().common.types, headers).then(|| {
            Offered(Offer {
                encoding: self.codec().encoding(),
                first: self.shared.config.choose_first,
            })
        })
    }

    /// Compresses the response, or says why not. `chosen`: which compressor takes it, found out once for all of them.
    pub(super) fn apply(
        self,
        status: StatusCode,
        ends: bool,
        headers: &mut HeaderMap,
        offers: &[Offered],
        chosen: &mut Option<Choice>,
    ) -> Option<Stage> {
        let config = self.config();
        let Shared { accept: accept_stats, response: stats, .. } = &*self.shared;
        let (accept_stats, stats_of) = (accept_stats.local(), stats.local());
        let may = self.is_enabled() && is_long_enough(&config.common, headers, stats_of);
        let why =
            if self.is_enabled() { self.objection(status, headers, may) } else { Some(Why::Other) };
        // With a header to fill the client's wish is looked at last, as in Envoy.
        let asks = !ends && may && (why.is_none() || !config.status_header);
        let wanted = asks && self.is_wanted(offers, chosen, accept_stats);
        let compression =
            (wanted && why.is_none()).then(|| Compression::new(self.codec(), stats).ok()).flatten();
        let encoding = self.codec().encoding();
        if why.is_none() {
            vary(headers);
        }
        let Some(compression) = compression else {
            stats_of.not_compressed.inc();
            if config.status_header && !ends {
                let said = match why {
                    Some(Why::Length) => "ContentLengthTooSmall",
                    Some(Why::Type) => "ContentTypeNotAllowed",
                    Some(Why::Etag) => "EtagNotAllowed",
                    Some(Why::Code) => "StatusCodeNotAllowed",
                    Some(Why::Other) | None => return None,
                };
                say(headers, &format!("{encoding};{said}"));
            }
            return None;
        };
        stats_of.compressed.inc();
        sanitize_etag(headers, config.weaken_etag);
        let length = headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        if config.status_header {
            let length = length.as_ref().and_then(|length| length.to_str().ok());
            let length = length.unwrap_or_default();
            say(headers, &format!("{encoding};Compressed;OriginalLength={length}"));
        }
        Some(Stage::Compress(Box::new(compression)))
    }

    /// What stands against compressing the response, whatever the client accepts.
    fn objection(&self, status: StatusCode, headers: &HeaderMap, long_enough: bool) -> Option<Why> {
        let config = self.config();
        // What a body is told about it from both ends comes before what is configured.
        if status == StatusCode::SWITCHING_PROTOCOLS || forbids_changes(headers) {
            return Some(Why::Other);
        }
        if !long_enough {
            return Some(Why::Length);
        }
        if !takes(&config.common.types, headers) {
            return Some(Why::Type);
        }
        let etag_counts = config.disable_on_etag && !config.weaken_etag;
        if etag_counts && headers.contains_key(header::ETAG) {
            if !(config.status_header && headers.contains_key(header::CONTENT_ENCODING)) {
                self.shared.accept.local().not_compressed_etag.inc();
            }
            return Some(Why::Etag);
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Some(Why::Other);
        }
        config.uncompressible.contains(&status.as_u16()).then_some(Why::Code)
    }

    /// Whether the client wants this compressor's encoding.
    fn is_wanted(
        &self,
        offers: &[Offered],
        chosen: &mut Option<Choice>,
        stats: &AcceptEncodingCells,
    ) -> bool {
        let Some(accept) = &self.accept else {
            stats.no_accept_header.inc();
            return false;
        };
        let choice = *chosen.get_or_insert_with(|| {
            let offers: Vec<Offer> = offers.iter().map(|offered| offered.0).collect();
            choose(accept, &offers)
        });
        let wanted = choice.encoding() == Some(self.codec().encoding());
        match choice {
            Choice::Encoding(_) if wanted => stats.header_compressor_used.inc(),
            Choice::Encoding(_) => stats.header_compressor_overshadowed.inc(),
            Choice::Wildcard(_) => stats.header_wildcard.inc(),
            Choice::Identity => stats.header_identity.inc(),
            Choice::NotValid => stats.header_not_valid.inc(),
        }
        wanted
    }
}

/// A compressor of the connection manager, as it stands for the choice.
pub(super) struct Offered(Offer);

fn is_long_enough(direction: &Direction, headers: &HeaderMap, stats: &CompressionCells) -> bool {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return true };
    let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
    let is = length.is_some_and(|length| length >= direction.min_length.into());
    if !is {
        stats.content_length_too_small.inc();
    }
    is
}

/// Whether bodies of this type are compressed.
fn takes(types: &ContentTypes, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let value = value.as_bytes();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let value = value.get(..end).unwrap_or_default().trim_ascii();
    match types {
        ContentTypes::Named(names) => {
            names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(value))
        }
        ContentTypes::Matching(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
    }
}

/// Whether nobody on the way may change the body (RFC 9111 section 5.2.2.6).
pub(super) fn forbids_changes(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut tokens = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    tokens.any(|token| token.trim().eq_ignore_ascii_case("no-transform"))
}

/// Tells caches that the response depends on what the client accepts.
fn vary(headers: &mut HeaderMap) {
    const ACCEPT_ENCODING: &str = "Accept-Encoding";
    let value = match joined(headers, &header::VARY) {
        None => ACCEPT_ENCODING.to_owned(),
        Some(known) if known.split(',').any(|name| name.trim() == ACCEPT_ENCODING) => return,
        Some(known) => format!("{known}, {ACCEPT_ENCODING}"),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(header::VARY, value);
    }
}

/// What was strongly the same is no longer, byte by byte: the tag is made a weak one, or removed.
fn sanitize_etag(headers: &mut HeaderMap, weaken: bool) {
    let Some(etag) = headers.get(header::ETAG) else { return };
    let is_weak = etag.as_bytes().get(..2).is_some_and(|it| it.eq_ignore_ascii_case(b"w/"));
    if is_weak {
        return;
    }
    let weak = [b"W/", etag.as_bytes()].concat();
    match HeaderValue::from_bytes(&weak).ok().filter(|_| weaken) {
        Some(weak) => drop(headers.insert(header::ETAG, weak)),
        None => drop(headers.remove(header::ETAG)),
    }
}

fn say(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(STATUS, value);
    }
}

/// All lines of a header as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    let first = values.next()?.to_owned();
    Some(values.fold(first, |list, value| list + "," + value))
}
