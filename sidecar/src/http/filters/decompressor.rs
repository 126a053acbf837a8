//! Decompression of bodies, `envoy.filters.http.decompressor`: for those behind this proxy who cannot.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};

use super::{Pass, Passage, Step};
use crate::config::decompressor::{Coding, Decompressor, Unpacked};
use crate::http::matching::joined;
use crate::http::pipe::{Decompression, Stage};
use crate::stats::{DecompressionCells, Registry, Scope, Sharded};

/// The filter of one connection manager.
pub(super) struct Filter(Arc<Shared>);

struct Shared {
    config: Arc<Decompressor>,
    request: Arc<Sharded<DecompressionCells>>,
    response: Arc<Sharded<DecompressionCells>>,
}

/// What is done to a response once there is one.
pub(super) struct Pending(Arc<Shared>);

impl Filter {
    pub(super) fn new(
        config: &Arc<Decompressor>,
        registry: &Arc<Registry>,
        prefix: &Arc<str>,
    ) -> Self {
        let scope = |direction| Scope::Coding {
            filter: "decompressor",
            prefix: Arc::clone(prefix),
            library: Arc::clone(&config.library),
            direction,
        };
        Self(Arc::new(Shared {
            config: Arc::clone(config),
            request: registry.scope(scope("request")),
            response: registry.scope(scope("response")),
        }))
    }

    pub(super) fn run(&self, passage: &mut Passage<'_>) -> Pass {
        self.after_refusal(passage);
        let Shared { config, request: stats, .. } = &*self.0;
        let headers = &mut passage.request.headers;
        if config.advertise && config.response.enabled.current() {
            advertise(headers, &config.coding);
        }
        if passage.exchange.progress.is_none() {
            return Pass::On;
        }
        match begin(config, &config.request, headers, stats) {
            Some(stage) => Pass::Through(Box::new(stage)),
            None => Pass::On,
        }
    }

    /// Also of a request that was answered before it came here.
    pub(super) fn after_refusal(&self, passage: &mut Passage<'_>) {
        passage.steps.0.push(Step::Decompress(Pending(Arc::clone(&self.0))));
    }
}

impl Pending {
    pub(super) fn apply(self, ends: bool, headers: &mut HeaderMap) -> Option<Stage> {
        let Shared { config, response, .. } = &*self.0;
        if ends { None } else { begin(config, &config.response, headers, response) }
    }
}

/// What decompresses a body, if it is to be decompressed; its headers say so no more.
fn begin(
    config: &Arc<Decompressor>,
    direction: &Unpacked,
    headers: &mut HeaderMap,
    stats: &Arc<Sharded<DecompressionCells>>,
) -> Option<Stage> {
    let may = direction.enabled.current()
        && (direction.ignore_no_transform || !super::compressor::forbids_changes(headers));
    let rest = if may { without_first(headers, config.coding.encoding()) } else { None };
    let decompression = rest.and_then(|rest| Some((rest, Decompression::new(config, stats).ok()?)));
    let Some((rest, decompression)) = decompression else {
        stats.local().not_decompressed.inc();
        return None;
    };
    stats.local().decompressed.inc();
    headers.remove(header::CONTENT_LENGTH);
    match rest {
        Some(rest) => drop(headers.insert(header::CONTENT_ENCODING, rest)),
        None => drop(headers.remove(header::CONTENT_ENCODING)),
    }
    Some(Stage::Decompress(Box::new(decompression)))
}

/// The codings behind the first, if that is this one.
fn without_first(headers: &HeaderMap, encoding: &str) -> Option<Option<HeaderValue>> {
    let codings = joined(headers, &header::CONTENT_ENCODING)?;
    let mut codings = codings.splitn(2, |byte| *byte == b',');
    let first = codings.next()?.trim_ascii();
    first.eq_ignore_ascii_case(encoding.as_bytes()).then(|| {
        let rest = codings.next().map(<[u8]>::trim_ascii);
        rest.and_then(|rest| HeaderValue::from_bytes(rest).ok())
    })
}

/// Says that responses may be compressed so, with the highest weight.
fn advertise(headers: &mut HeaderMap, coding: &Coding) {
    let encoding = coding.encoding().as_bytes();
    let before = joined(headers, &header::ACCEPT_ENCODING).unwrap_or_default();
    let name = |listed: &[u8]| {
        listed.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii).map(<[u8]>::to_vec)
    };
    let others = before.split(|byte| *byte == b',').filter(|listed| {
        !listed.trim_ascii().is_empty() && name(listed).is_none_or(|name| name != encoding)
    });
    let all: Vec<&[u8]> = others.chain([encoding]).collect();
    if let Ok(value) = HeaderValue::from_bytes(&all.join(&b","[..])) {
        headers.insert(header::ACCEPT_ENCODING, value);
    }
}
