//! Statistics of gRPC calls, `envoy.filters.http.grpc_stats`: by cluster and, where that is configured, by method.
//!
//! Calls of Connect are not counted: they are no gRPC.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::{Pass, Passage, Step};
use crate::config::grpc_stats::{GrpcMethods, GrpcStats};
use crate::http::exchange::Exchange;
use crate::http::headers::GRPC_STATUS;
use crate::http::matching::is_grpc;
use crate::http::pipe::{Counting, Sent, Stage};
use crate::stats::GrpcMethodCells;

/// A call under way.
pub(super) struct Call {
    cells: Arc<GrpcMethodCells>,
    upstream_time: bool,
}

pub(super) fn run(config: &GrpcStats, passage: &mut Passage<'_>) -> Pass {
    if !is_grpc(&passage.request.headers) {
        return Pass::On;
    }
    let Some(cluster) = &passage.target else { return Pass::On };
    let Some((service, method)) = called(passage.request.uri.path()) else { return Pass::On };
    let calls = &cluster.stats.local().grpc;
    let cells = match &config.methods {
        GrpcMethods::All if config.replace_dots && service.contains('.') => {
            calls.of(Some((&service.replace('.', "_"), method)))
        }
        GrpcMethods::All => calls.of(Some((service, method))),
        GrpcMethods::Listed(listed) => {
            let is_listed = listed.get(service).is_some_and(|methods| methods.contains(method));
            calls.of(is_listed.then_some((service, method)))
        }
    };
    if config.upstream_time {
        passage.exchange.collect(passage.request);
    }
    let upstream_time = config.upstream_time;
    passage.steps.0.push(Step::Call(Call { cells: Arc::clone(&cells), upstream_time }));
    if passage.exchange.progress.is_none() {
        return Pass::On;
    }
    Pass::Through(Box::new(Stage::Count(Box::new(Counting::request(cells)))))
}

/// Service and method of a path.
fn called(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let called = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some(called)
}

impl Call {
    /// Counts what the head of the response says, and gives back what is to count the rest.
    pub(super) fn apply(
        self,
        status: StatusCode,
        ends: bool,
        headers: &HeaderMap,
        exchange: &Exchange,
    ) -> Option<Stage> {
        if let Some(status) = headers.get(GRPC_STATUS) {
            self.cells.ended(status.as_bytes());
        }
        let began = exchange.facts.as_ref().and_then(|facts| {
            facts.first_response_byte?;
            facts.attempt_since
        });
        let sent = began
            .filter(|_| self.upstream_time)
            .map(|began| Sent { began, progress: exchange.progress.as_ref().map(Rc::clone) });
        if ends {
            if let Some(sent) = sent {
                sent.record(&self.cells);
            }
            return None;
        }
        let messages = status == StatusCode::OK && is_grpc(headers);
        Some(Stage::Count(Box::new(Counting::response(self.cells, messages, sent))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_two_parts_is_a_call() {
        assert_eq!(called("/a.B/C"), Some(("a.B", "C")));
        assert_eq!(called("//a//b/"), Some(("a", "b")));
        for path in ["/", "/a", "/a/", "/a/b/c"] {
            assert_eq!(called(path), None, "{path}");
        }
    }
}
