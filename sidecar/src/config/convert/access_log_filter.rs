//! Filters of access logs.

use crate::config::runtime::{RuntimeFraction, RuntimeNumber};
use outrigger_proto::envoy::config::accesslog::v3 as proto;
use outrigger_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use outrigger_proto::envoy::config::core::v3::RuntimeUInt32;
use outrigger_proto::envoy::data::accesslog::v3::AccessLogType;

use crate::config::Problems;
use crate::config::access_log::{Comparison, Filter, Op};

use super::common::{boolean, enumeration, required, text};
use super::{matcher, metadata, percent};

/// Short names of response flags that a filter may name: the rule of the proto.
const FLAGS: &[&str] = &[
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    "UDO",
];

/// Filters may stand in each other only so deep: a stack is finite.
const MAX_DEPTH: usize = 16;

/// An `AccessLogFilter`.
pub(super) fn convert(problems: &mut Problems, proto: proto::AccessLogFilter) -> Option<Filter> {
    nested(problems, proto, 0)
}

fn nested(problems: &mut Problems, proto: proto::AccessLogFilter, depth: usize) -> Option<Filter> {
    let proto::AccessLogFilter { filter_specifier } = proto;
    match filter_specifier {
        None => {
            problems.reject("a filter is required, of status codes, durations or the like");
            None
        }
        Some(FilterSpecifier::StatusCodeFilter(proto::StatusCodeFilter { comparison })) => problems
            .field("status_code_filter", |problems| compared(problems, comparison))
            .map(Filter::StatusCode),
        Some(FilterSpecifier::DurationFilter(proto::DurationFilter { comparison })) => problems
            .field("duration_filter", |problems| compared(problems, comparison))
            .map(Filter::Duration),
        Some(FilterSpecifier::NotHealthCheckFilter(proto::NotHealthCheckFilter {})) => {
            Some(Filter::NotHealthCheck)
        }
        Some(FilterSpecifier::TraceableFilter(proto::TraceableFilter {})) => {
            Some(Filter::Traceable)
        }
        Some(FilterSpecifier::RuntimeFilter(filter)) => {
            problems.field("runtime_filter", |problems| runtime(problems, filter))
        }
        Some(FilterSpecifier::AndFilter(proto::AndFilter { filters })) => problems
            .field("and_filter", |problems| several(problems, filters, depth))
            .map(Filter::And),
        Some(FilterSpecifier::OrFilter(proto::OrFilter { filters })) => problems
            .field("or_filter", |problems| several(problems, filters, depth))
            .map(Filter::Or),
        Some(FilterSpecifier::HeaderFilter(proto::HeaderFilter { header })) => {
            problems.field("header_filter", |problems| {
                let header = required(problems, "header", header)?;
                let matcher =
                    problems.field("header", |problems| matcher::header(problems, header))?;
                Some(Filter::Header(matcher))
            })
        }
        Some(FilterSpecifier::ResponseFlagFilter(proto::ResponseFlagFilter { flags })) => problems
            .field("response_flag_filter", |problems| {
                for (index, flag) in flags.iter().enumerate() {
                    if !FLAGS.contains(&flag.as_str()) {
                        problems.element("flags", index, |problems| {
                            problems.reject(format!("{flag:?} is not a response flag"));
                        });
                    }
                }
                Some(Filter::ResponseFlags(flags.into_iter().map(Into::into).collect()))
            }),
        Some(FilterSpecifier::GrpcStatusFilter(filter)) => {
            problems.field("grpc_status_filter", |problems| grpc_status(problems, filter))
        }
        Some(FilterSpecifier::LogTypeFilter(filter)) => {
            problems.field("log_type_filter", |problems| log_type(problems, filter))
        }
        Some(FilterSpecifier::ExtensionFilter(_)) => {
            problems.unsupported("extension_filter", true);
            None
        }
        Some(FilterSpecifier::MetadataFilter(filter)) => {
            let proto::MetadataFilter { matcher, match_if_key_not_found } = filter;
            problems.field("metadata_filter", |problems| {
                let matcher = match matcher {
                    None => None,
                    Some(matcher) => Some(
                        problems
                            .field("matcher", |problems| metadata::matcher(problems, matcher))?,
                    ),
                };
                let if_missing = boolean(match_if_key_not_found, true);
                Some(Filter::Metadata { matcher, if_missing })
            })
        }
    }
}

fn compared(problems: &mut Problems, proto: Option<proto::ComparisonFilter>) -> Option<Comparison> {
    let comparison = required(problems, "comparison", proto)?;
    problems.field("comparison", |problems| {
        let proto::ComparisonFilter { op, value } = comparison;
        let op = match enumeration(problems, "op", op)? {
            proto::comparison_filter::Op::Eq => Op::Eq,
            proto::comparison_filter::Op::Ge => Op::Ge,
            proto::comparison_filter::Op::Le => Op::Le,
            proto::comparison_filter::Op::Ne => Op::Ne,
        };
        let RuntimeUInt32 { default_value, runtime_key } = required(problems, "value", value)?;
        Some(Comparison { op, value: RuntimeNumber::new(f64::from(default_value), &runtime_key) })
    })
}

fn runtime(problems: &mut Problems, proto: proto::RuntimeFilter) -> Option<Filter> {
    let proto::RuntimeFilter { runtime_key, percent_sampled, use_independent_randomness } = proto;
    let key = text(problems, "runtime_key", runtime_key);
    let fraction = match percent_sampled {
        None => Some((0, 100)),
        Some(percent) => percent::plain(problems, "percent_sampled", percent),
    };
    let fraction = RuntimeFraction::new(fraction?, &key);
    Some(Filter::Runtime { fraction, independent: use_independent_randomness })
}

fn several(
    problems: &mut Problems,
    protos: Vec<proto::AccessLogFilter>,
    depth: usize,
) -> Option<Box<[Filter]>> {
    if depth >= MAX_DEPTH {
        problems.reject(format!("filters stand in each other more than {MAX_DEPTH} deep"));
        return None;
    }
    if protos.len() < 2 {
        problems.reject_field("filters", "at least two filters are needed");
        return None;
    }
    let mut filters = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        filters.extend(
            problems.element("filters", index, |problems| nested(problems, proto, depth + 1)),
        );
    }
    Some(filters.into())
}

fn grpc_status(problems: &mut Problems, proto: proto::GrpcStatusFilter) -> Option<Filter> {
    let proto::GrpcStatusFilter { statuses, exclude } = proto;
    let mut numbers = Vec::with_capacity(statuses.len());
    for (index, status) in statuses.into_iter().enumerate() {
        let known = enumeration::<proto::grpc_status_filter::Status>(
            problems,
            &format!("statuses[{index}]"),
            status,
        );
        numbers.extend(known.map(|status| status as u32));
    }
    Some(Filter::GrpcStatus { statuses: numbers.into(), exclude })
}

fn log_type(problems: &mut Problems, proto: proto::LogTypeFilter) -> Option<Filter> {
    let proto::LogTypeFilter { types, exclude } = proto;
    let mut names = Vec::with_capacity(types.len());
    for (index, kind) in types.into_iter().enumerate() {
        let known = enumeration::<AccessLogType>(problems, &format!("types[{index}]"), kind);
        names.extend(known.map(|kind| kind.as_str_name().into()));
    }
    Some(Filter::LogType { types: names.into(), exclude })
}
