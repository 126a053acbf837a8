//! Header changes, `envoy.filters.http.header_mutation`: the filter's own first, then those of the routes' levels, all in
//! the order in which they are written.

use std::sync::Arc;

use http::HeaderMap;

use super::{Passage, Step};
use crate::access_log::Headers;
use crate::config::header::HeaderTemplate;
use crate::config::http_filters::{FilterOverride, HeaderMutation, HeaderOperation, RouteFilter};
use crate::http::exchange::Exchange;
use crate::http::mutations::Side;

/// The filter of one connection manager.
pub(super) struct Filter(pub(super) Arc<HeaderMutation>);

/// What is done to a response once there is one.
pub(super) struct Pending {
    mutations: Vec<Arc<HeaderMutation>>,
    /// For command operators; empty where there are none.
    request: HeaderMap,
}

impl Filter {
    /// All that applies, in the order in which it is done.
    fn levels<'a>(
        &'a self,
        name: &str,
        passage: &Passage<'a>,
    ) -> impl Iterator<Item = &'a Arc<HeaderMutation>> {
        let mut levels = passage.overrides.map(|level| match level?.of(name)? {
            FilterOverride::Configured(RouteFilter::HeaderMutation(mutation)) => Some(mutation),
            _ => None,
        });
        if self.0.most_specific_wins {
            levels.reverse();
        }
        std::iter::once(&self.0).chain(levels.into_iter().flatten())
    }

    pub(super) fn of_request(&self, name: &str, passage: &mut Passage<'_>) {
        let levels: Vec<_> =
            self.levels(name, passage).filter(|level| !level.request.is_empty()).cloned().collect();
        if levels.iter().any(|level| has_commands(&level.request)) {
            passage.exchange.collect(passage.request);
        }
        let exchange = &*passage.exchange;
        for operation in levels.iter().flat_map(|level| &level.request) {
            let headers = &mut passage.request.headers;
            apply(operation, headers, Side::Request, &HeaderMap::new(), exchange);
        }
    }

    pub(super) fn of_response(&self, name: &str, passage: &mut Passage<'_>) {
        let mutations: Vec<_> = self
            .levels(name, passage)
            .filter(|level| !level.response.is_empty())
            .cloned()
            .collect();
        if mutations.is_empty() {
            return;
        }
        let mut request = HeaderMap::new();
        if mutations.iter().any(|level| has_commands(&level.response)) {
            passage.exchange.collect(passage.request);
            request = passage.request.headers.clone();
        }
        passage.steps.0.push(Step::Mutate(Pending { mutations, request }));
    }
}

impl Pending {
    pub(super) fn apply(self, headers: &mut HeaderMap, exchange: &Exchange) {
        for operation in self.mutations.iter().flat_map(|level| &level.response) {
            apply(operation, headers, Side::Response, &self.request, exchange);
        }
    }
}

/// Does `early_header_mutation_extensions`, before there is a route.
pub(crate) fn early(operations: &[HeaderOperation], headers: &mut HeaderMap, exchange: &Exchange) {
    for operation in operations {
        apply(operation, headers, Side::Request, &HeaderMap::new(), exchange);
    }
}

/// Whether some value has command operators.
pub(crate) fn has_commands(operations: &[HeaderOperation]) -> bool {
    operations.iter().any(|operation| match operation {
        HeaderOperation::Mutate(mutations) => {
            mutations.add.iter().any(|add| matches!(add.value, HeaderTemplate::Format(_)))
        }
        HeaderOperation::RemoveOnMatch(_) => false,
    })
}

fn apply(
    operation: &HeaderOperation,
    headers: &mut HeaderMap,
    side: Side,
    request: &HeaderMap,
    exchange: &Exchange,
) {
    match operation {
        HeaderOperation::Mutate(mutations) => mutations.apply(headers, side, &mut || {
            let mut record = exchange.record_for_additions();
            record.request_headers = Headers::Map(request);
            record
        }),
        HeaderOperation::RemoveOnMatch(matcher) => {
            let names: Vec<_> = headers
                .keys()
                .filter(|name| *name != http::header::HOST)
                .filter(|name| matcher.matches(name.as_str().as_bytes()))
                .cloned()
                .collect();
            names.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
}
