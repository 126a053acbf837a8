//! How answers of our own are changed before they leave: `local_reply_config`, compiled.

use std::sync::Arc;

use http::HeaderMap;
use http::header;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use super::mutations::Side;
use crate::access_log::{Headers, Line};
use crate::config::local_reply::{Comparison, LocalReplies, ReplyFilter, ReplyFormat};

/// A connection manager's rules for its own answers.
pub(crate) struct ReplyRules {
    config: Arc<LocalReplies>,
    /// For each mapper that has one.
    lines: Box<[Option<Line>]>,
    default: Option<Line>,
}

impl ReplyRules {
    pub(crate) fn new(config: &Arc<LocalReplies>) -> Self {
        let line = |format: &Option<ReplyFormat>| {
            format.as_ref().map(|f| Line::new(&f.line, f.omit_empty_values))
        };
        Self {
            config: Arc::clone(config),
            lines: config.mappers.iter().map(|mapper| line(&mapper.format)).collect(),
            default: line(&config.format),
        }
    }

    /// Changes an answer, of which status, flags and details stand in the exchange as well.
    pub(crate) fn rewrite(&self, reply: &mut LocalReply, exchange: &mut Exchange) {
        let nothing = HeaderMap::new();
        let request = exchange.request_headers.take();
        let headers = request.as_deref().unwrap_or(&nothing);
        let taken = |mapper: &crate::config::local_reply::ReplyMapper| {
            takes(&mapper.filter, reply, headers)
        };
        let at = self.config.mappers.iter().position(taken);
        let mapper = at.and_then(|at| self.config.mappers.get(at));
        if let Some(mapper) = mapper {
            if let Some(body) = &mapper.body {
                reply.body = body.clone();
            }
            mapper.headers.apply(&mut reply.headers, Side::Response, &mut || {
                let mut record = exchange.record_for_additions();
                record.request_headers = Headers::Map(headers);
                record
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
        record.request_headers = Headers::Map(headers);
        record.response_headers = Headers::Map(&reply.headers);
        record.local_reply_body = &reply.body;
        line.render(&record, &mut text);
        if *text != *reply.body || !reply.headers.contains_key(header::CONTENT_TYPE) {
            reply.headers.insert(header::CONTENT_TYPE, format.content_type.clone());
        }
        reply.body = text.into();
    }
}

fn takes(filter: &ReplyFilter, reply: &LocalReply, request: &HeaderMap) -> bool {
    match filter {
        ReplyFilter::Status(comparison, value) => {
            let status = u32::from(reply.status.as_u16());
            match comparison {
                Comparison::Equal => status == *value,
                Comparison::AtLeast => status >= *value,
                Comparison::AtMost => status <= *value,
                Comparison::NotEqual => status != *value,
            }
        }
        ReplyFilter::Header(matcher) => matcher.matches_headers(request),
        ReplyFilter::Flags(flags) if flags.is_empty() => !reply.flags.is_empty(),
        ReplyFilter::Flags(flags) => {
            let set = reply.flags.to_string();
            set.split(',').any(|set| flags.iter().any(|flag| **flag == *set))
        }
        ReplyFilter::And(all) => all.iter().all(|one| takes(one, reply, request)),
        ReplyFilter::Or(any) => any.iter().any(|one| takes(one, reply, request)),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::access_log::ResponseFlags;

    #[test]
    fn filters_look_at_status_and_flags_and_can_be_combined() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", "x")
            .flagged(ResponseFlags::NO_HEALTHY_UPSTREAM);
        let status = ReplyFilter::Status;
        let flags =
            |flags: &[&str]| ReplyFilter::Flags(flags.iter().map(|flag| (*flag).into()).collect());
        for (filter, expected) in [
            (status(Comparison::Equal, 503), true),
            (status(Comparison::AtLeast, 504), false),
            (status(Comparison::AtMost, 503), true),
            (status(Comparison::NotEqual, 503), false),
            (flags(&[]), true),
            (flags(&["UF", "UH"]), true),
            (flags(&["UF"]), false),
            (ReplyFilter::And(vec![flags(&["UH"]), status(Comparison::Equal, 500)]), false),
            (ReplyFilter::Or(vec![flags(&["UH"]), status(Comparison::Equal, 500)]), true),
        ] {
            assert_eq!(takes(&filter, &reply, &HeaderMap::new()), expected, "{filter:?}");
        }
    }
}
