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
use crate::http::stream_state::GrpcMessages;
use crate::stats::GrpcMethodCells;

/// A call under way.
pub(super) struct Call {
    cells: Option<Arc<GrpcMethodCells>>,
    upstream_time: bool,
    noted: Option<Rc<GrpcMessages>>,
}

pub(super) fn run(config: &GrpcStats, passage: &mut Passage<'_>) -> Pass {
    if !is_grpc(&passage.request.headers) {
        return Pass::On;
    }
    let cells = counted_by(config, passage);
    let noted = config
        .emit_filter_state
        .then(|| Rc::clone(passage.exchange.state().messages.get_or_insert_default()));
    if cells.is_none() && noted.is_none() {
        return Pass::On;
    }
    let upstream_time = config.upstream_time;
    if upstream_time && cells.is_some() {
        passage.exchange.collect(passage.request);
    }
    let call = Call { cells: cells.clone(), upstream_time, noted: noted.clone() };
    passage.steps.0.push(Step::Call(call));
    if passage.exchange.progress.is_none() {
        return Pass::On;
    }
    Pass::Through(Box::new(Stage::Count(Box::new(Counting::request(cells, noted)))))
}

/// Where a call is counted, if it goes to a cluster and its path names a method.
fn counted_by(config: &GrpcStats, passage: &Passage<'_>) -> Option<Arc<GrpcMethodCells>> {
    let cluster = passage.target.as_ref()?;
    let (service, method) = called(passage.request.uri.path())?;
    let calls = &cluster.stats.local().grpc;
    Some(match &config.methods {
        GrpcMethods::All if config.replace_dots && service.contains('.') => {
            calls.of(Some((&service.replace('.', "_"), method)))
        }
        GrpcMethods::All => calls.of(Some((service, method))),
        GrpcMethods::Listed(listed) => {
            let is_listed = listed.get(service).is_some_and(|methods| methods.contains(method));
            calls.of(is_listed.then_some((service, method)))
        }
    })
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
        if let (Some(status), Some(cells)) = (headers.get(GRPC_STATUS), &self.cells) {
            cells.ended(status.as_bytes());
        }
        let began = exchange.facts.as_ref().and_then(|facts| {
            facts.first_response_byte?;
            facts.attempt_since
        });
        let sent = began
            .filter(|_| self.upstream_time)
            .map(|began| Sent { began, progress: exchange.progress.as_ref().map(Rc::clone) });
        if ends {
            if let (Some(sent), Some(cells)) = (sent, &self.cells) {
                sent.record(cells);
            }
            return None;
        }
        let messages = status == StatusCode::OK && is_grpc(headers);
        Some(Stage::Count(Box::new(Counting::response(self.cells, messages, sent, self.noted))))
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
