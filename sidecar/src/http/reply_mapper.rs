//! How answers of our own are changed before they leave: `local_reply_config`, compiled.

use std::sync::Arc;

use http::HeaderMap;
use http::header;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::mutations::Side;
use crate::access_log::{Captured, Filter, Headers, Line, LogRecord, Needs};
use crate::config::local_reply::{LocalReplies, ReplyFormat};

/// A connection manager's rules for its own answers.
pub(crate) struct ReplyRules {
    config: Arc<LocalReplies>,
    /// One for each mapper.
    filters: Box<[Filter]>,
    /// For each mapper that has one.
    lines: Box<[Option<Line>]>,
    default: Option<Line>,
    /// What all of that reads of a request.
    needs: Needs,
}

impl ReplyRules {
    pub(crate) fn new(config: &Arc<LocalReplies>) -> Self {
        let line = |format: &Option<ReplyFormat>| {
            format.as_ref().map(|f| Line::new(&f.line, f.omit_empty_values))
        };
        Self {
            config: Arc::clone(config),
            filters: config.mappers.iter().map(|mapper| Filter::new(&mapper.filter)).collect(),
            lines: config.mappers.iter().map(|mapper| line(&mapper.format)).collect(),
            default: line(&config.format),
            needs: Needs::of_replies(config),
        }
    }

    /// Keeps what an answer may need of a request's headers, which are changed before they are sent on.
    pub(crate) fn capture(&self, headers: &HeaderMap) -> Option<Box<Captured>> {
        let names = &self.needs.request_headers;
        (!names.is_empty()).then(|| Box::new(Needs::capture(names, headers)))
    }

    /// Changes an answer, of which status, flags and details stand in the exchange as well.
    pub(crate) fn rewrite(&self, reply: &mut LocalReply, exchange: &mut Exchange) {
        let kept = exchange.for_replies.take().unwrap_or_default();
        let of_request = Headers::Captured(&kept);
        let record = LogRecord { request_headers: of_request, ..exchange.record_for_additions() };
        let at = self.filters.iter().position(|filter| filter.takes(&record));
        let mapper = at.and_then(|at| self.config.mappers.get(at));
        if let Some(mapper) = mapper {
            if let Some(body) = &mapper.body {
                reply.body = body.clone();
            }
            mapper.headers.apply(&mut reply.headers, Side::Response, &mut || LogRecord {
                request_headers: of_request,
                ..exchange.record_for_additions()
            });
            if let Some(status) = mapper.status {
                reply.status = status;
                exchange.status = status.as_u16();
            }
        }
        let own = at.and_then(|at| self.lines.get(at)?.as_ref());
        let line = own.or(self.default.as_ref());
        let format = mapper.and_then(|mapper| mapper.format.as_ref());
        let Some((line, format)) = line.zip(format.or(self.config.format.as_ref())) else { return };
        let mut text = Vec::new();
        let mut record = exchange.record_for_additions();
        record.request_headers = of_request;
        record.response_headers = Headers::Map(&reply.headers);
        record.local_reply_body = &reply.body;
        line.render(&record, &mut text);
        if *text != *reply.body || !reply.headers.contains_key(header::CONTENT_TYPE) {
            reply.headers.insert(header::CONTENT_TYPE, format.content_type.clone());
        }
        reply.body = text.into();
    }
}
