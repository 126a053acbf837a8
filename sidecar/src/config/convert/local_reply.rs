//! `LocalReplyConfig`: how answers of our own are changed.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use outrigger_proto::envoy::config::accesslog::v3 as filters;
use outrigger_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use outrigger_proto::envoy::config::accesslog::v3::comparison_filter::Op;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;

use crate::config::Problems;
use crate::config::access_log::LineFormat;
use crate::config::local_reply::{Comparison, LocalReplies, ReplyFilter, ReplyFormat, ReplyMapper};
use crate::config::matcher::MatchedHeader;

use super::common::{enumeration, number, optional_header_value, required};
use super::{access_log, data_source, header, matcher};

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

fn filter_of(problems: &mut Problems, proto: filters::AccessLogFilter) -> Option<ReplyFilter> {
    let filters::AccessLogFilter { filter_specifier } = proto;
    let refused = match filter_specifier {
        None => {
            problems.reject("one of status_code_filter, header_filter, response_flag_filter, and_filter, or_filter is required");
            return None;
        }
        Some(FilterSpecifier::StatusCodeFilter(filters::StatusCodeFilter { comparison })) => {
            return problems.field("status_code_filter", |problems| {
                let comparison = required(problems, "comparison", comparison)?;
                problems.field("comparison", |problems| status_filter(problems, comparison))
            });
        }
        Some(FilterSpecifier::HeaderFilter(filters::HeaderFilter { header })) => {
            return problems.field("header_filter", |problems| {
                let proto = required(problems, "header", header)?;
                problems.field("header", |problems| {
                    let matcher = matcher::header(problems, proto)?;
                    if !matches!(matcher.name, MatchedHeader::Header(_)) {
                        problems.unsupported("name", true);
                    }
                    Some(ReplyFilter::Header(matcher))
                })
            });
        }
        Some(FilterSpecifier::ResponseFlagFilter(filters::ResponseFlagFilter { flags })) => {
            return Some(ReplyFilter::Flags(flags.into_iter().map(Into::into).collect()));
        }
        Some(FilterSpecifier::AndFilter(filters::AndFilter { filters })) => {
            return Some(ReplyFilter::And(list(problems, "and_filter", filters)));
        }
        Some(FilterSpecifier::OrFilter(filters::OrFilter { filters })) => {
            return Some(ReplyFilter::Or(list(problems, "or_filter", filters)));
        }
        Some(FilterSpecifier::DurationFilter(_)) => "duration_filter",
        Some(FilterSpecifier::NotHealthCheckFilter(_)) => "not_health_check_filter",
        Some(FilterSpecifier::TraceableFilter(_)) => "traceable_filter",
        Some(FilterSpecifier::RuntimeFilter(_)) => "runtime_filter",
        Some(FilterSpecifier::GrpcStatusFilter(_)) => "grpc_status_filter",
        Some(FilterSpecifier::ExtensionFilter(_)) => "extension_filter",
        Some(FilterSpecifier::MetadataFilter(_)) => "metadata_filter",
        Some(FilterSpecifier::LogTypeFilter(_)) => "log_type_filter",
    };
    problems.unsupported(refused, true);
    None
}

fn list(
    problems: &mut Problems,
    name: &str,
    protos: Vec<filters::AccessLogFilter>,
) -> Vec<ReplyFilter> {
    problems.field(name, |problems| {
        if protos.len() < 2 {
            problems.reject_field("filters", "must have at least two entries");
        }
        let filters = protos.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("filters", index, |problems| filter_of(problems, proto))
        });
        filters.collect()
    })
}

fn status_filter(problems: &mut Problems, proto: filters::ComparisonFilter) -> Option<ReplyFilter> {
    let filters::ComparisonFilter { op, value } = proto;
    let comparison = match enumeration(problems, "op", op)? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::AtLeast,
        Op::Le => Comparison::AtMost,
        Op::Ne => Comparison::NotEqual,
    };
    // runtime_key: there is no runtime that could override the value.
    let core::RuntimeUInt32 { default_value, runtime_key: _ } = required(problems, "value", value)?;
    Some(ReplyFilter::Status(comparison, default_value))
}
