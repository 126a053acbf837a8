//! `LocalReplyConfig`: how answers of our own are changed.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use outrigger_proto::envoy::config::accesslog::v3 as filters;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;

use crate::config::Problems;
use crate::config::access_log::{Filter, LineFormat};
use crate::config::local_reply::{LocalReplies, ReplyFormat, ReplyMapper};

use super::common::{number, optional_header_value, required};
use super::{access_log, access_log_filter, data_source, header};

/// The field `local_reply_config`.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<proto::LocalReplyConfig>,
) -> Option<LocalReplies> {
    let proto::LocalReplyConfig { mappers, body_format } = proto?;
    problems.field("local_reply_config", |problems| {
        let mappers = mappers.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("mappers", index, |problems| mapper(problems, proto))
        });
        let mappers = mappers.collect();
        let format = body_format.and_then(|proto| body_of(problems, "body_format", proto));
        Some(LocalReplies { mappers, format })
    })
}

fn mapper(problems: &mut Problems, proto: proto::ResponseMapper) -> Option<ReplyMapper> {
    let proto::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } =
        proto;
    let filter = required(problems, "filter", filter)
        .and_then(|proto| problems.field("filter", |problems| filter_of(problems, proto)));
    let status = number(status_code).and_then(|code| {
        let known = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
        let status = known.and_then(|code| StatusCode::from_u16(code).ok());
        if status.is_none() {
            problems.reject_field("status_code", format!("{code} is out of range: 200 to 599"));
        }
        status
    });
    let body = body
        .and_then(|source| problems.field("body", |problems| data_source::read(problems, source)));
    let format =
        body_format_override.and_then(|proto| body_of(problems, "body_format_override", proto));
    let headers = header::additions(problems, "headers_to_add", headers_to_add);
    Some(ReplyMapper { filter: filter?, status, body: body.map(Bytes::from), format, headers })
}

fn body_of(
    problems: &mut Problems,
    name: &str,
    proto: core::SubstitutionFormatString,
) -> Option<ReplyFormat> {
    problems.field(name, |problems| {
        let content_type = optional_header_value(problems, "content_type", &proto.content_type);
        let omit_empty_values = proto.omit_empty_values;
        let line = access_log::substitution(problems, proto)?;
        let default = match line {
            LineFormat::Text(_) => HeaderValue::from_static("text/plain"),
            LineFormat::Json(_) => HeaderValue::from_static("application/json"),
        };
        let content_type = content_type.unwrap_or(default);
        Some(ReplyFormat { line, omit_empty_values, content_type })
    })
}

/// The filters of access logs, but the one for the kind of line: no line is written yet.
fn filter_of(problems: &mut Problems, proto: filters::AccessLogFilter) -> Option<Filter> {
    let filter = access_log_filter::convert(problems, proto)?;
    if asks_log_type(&filter) {
        problems.unsupported("log_type_filter", true);
    }
    Some(filter)
}

fn asks_log_type(filter: &Filter) -> bool {
    match filter {
        Filter::LogType { .. } => true,
        Filter::And(filters) | Filter::Or(filters) => filters.iter().any(asks_log_type),
        _ => false,
    }
}
