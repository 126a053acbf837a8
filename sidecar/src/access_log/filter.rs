//! Which requests and connections a log writes down, and which of our own answers a rule changes.
//!
//! Reference: `AccessLogFilter` in Envoy's API. Where a rule asks for what is not known (no status, no gRPC status), the
//! answer is Envoy's.

use crate::config::runtime::RuntimeFraction;
use http::StatusCode;

use super::flags::ResponseFlags;
use super::record::{Headers, LogRecord, LogType};
use crate::config::access_log::{Comparison, Filter as Config, Op};
use crate::config::matcher::{HeaderMatcher, MatchedHeader};
use crate::config::metadata::MetadataMatcher;

/// A filter, compiled.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    StatusCode(Comparison),
    Duration(Comparison),
    NotHealthCheck,
    Traceable,
    /// So many of so many, chosen by the request's id or, independently of it, by chance.
    Sampled {
        share: RuntimeFraction,
        independent: bool,
    },
    And(Box<[Filter]>),
    Or(Box<[Filter]>),
    Header(HeaderMatcher),
    /// One of these flags; any at all if there are none.
    Flags(ResponseFlags),
    GrpcStatus {
        statuses: Box<[u32]>,
        exclude: bool,
    },
    Metadata {
        matcher: Option<MetadataMatcher>,
        if_missing: bool,
    },
    LogType {
        types: Box<[LogType]>,
        exclude: bool,
    },
}

impl Filter {
    /// Compiles a filter.
    pub(crate) fn new(config: &Config) -> Self {
        let all = |filters: &[Config]| filters.iter().map(Self::new).collect();
        match config {
            Config::StatusCode(comparison) => Self::StatusCode(comparison.clone()),
            Config::Duration(comparison) => Self::Duration(comparison.clone()),
            Config::NotHealthCheck => Self::NotHealthCheck,
            Config::Traceable => Self::Traceable,
            Config::Runtime { fraction, independent } => {
                Self::Sampled { share: fraction.clone(), independent: *independent }
            }
            Config::And(filters) => Self::And(all(filters)),
            Config::Or(filters) => Self::Or(all(filters)),
            Config::Header(matcher) => Self::Header(matcher.clone()),
            Config::ResponseFlags(names) => {
                let mut flags = ResponseFlags::NONE;
                names
                    .iter()
                    .filter_map(|name| ResponseFlags::named(name))
                    .for_each(|flag| flags |= flag);
                Self::Flags(flags)
            }
            Config::GrpcStatus { statuses, exclude } => {
                Self::GrpcStatus { statuses: statuses.clone(), exclude: *exclude }
            }
            Config::Metadata { matcher, if_missing } => {
                Self::Metadata { matcher: matcher.clone(), if_missing: *if_missing }
            }
            Config::LogType { types, exclude } => Self::LogType {
                types: types.iter().filter_map(|name| LogType::named(name)).collect(),
                exclude: *exclude,
            },
        }
    }

    /// Whether the log writes this record.
    pub(crate) fn takes(&self, record: &LogRecord<'_>) -> bool {
        match self {
            Self::StatusCode(comparison) => {
                comparison.holds(record.response_code.unwrap_or(0).into())
            }
            Self::Duration(comparison) => record.duration.is_some_and(|duration| {
                comparison.holds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            }),
            Self::NotHealthCheck => !record.health_check,
            Self::Traceable => record.traced && !record.health_check,
            Self::Sampled { share, independent } => {
                let (numerator, denominator) = share.current();
                let number = match record.stream_id.and_then(number_of_id) {
                    Some(number) if !independent => number,
                    _ => fastrand::u64(..),
                };
                number % u64::from(denominator.max(1)) < u64::from(numerator)
            }
            Self::And(filters) => filters.iter().all(|filter| filter.takes(record)),
            Self::Or(filters) => filters.iter().any(|filter| filter.takes(record)),
            Self::Header(matcher) => header_matches(matcher, record),
            Self::Flags(flags) if flags.is_empty() => !record.flags.is_empty(),
            Self::Flags(flags) => record.flags.intersects(*flags),
            Self::GrpcStatus { statuses, exclude } => {
                let status = record.grpc_status.unwrap_or_else(|| status_of(record));
                statuses.contains(&status) != *exclude
            }
            Self::Metadata { matcher, if_missing } => {
                let Some(matcher) = matcher else { return *if_missing };
                let metadata = record.dynamic_metadata;
                let value = metadata.and_then(|it| it.value(&matcher.filter, &matcher.path));
                value.map_or(*if_missing, |value| matcher.value.matches(value) != matcher.invert)
            }
            Self::LogType { types, exclude } => types.contains(&record.log_type) != *exclude,
        }
    }
}

impl Comparison {
    fn holds(&self, number: u64) -> bool {
        let value = self.value.whole();
        match self.op {
            Op::Eq => number == value,
            Op::Ge => number >= value,
            Op::Le => number <= value,
            Op::Ne => number != value,
        }
    }
}

/// A request keeps its place in every sample: its id gives the number, as Envoy reads it from the first eight digits.
fn number_of_id(id: &str) -> Option<u64> {
    u64::from_str_radix(id.get(..8)?, 16).ok()
}

fn header_matches(matcher: &HeaderMatcher, record: &LogRecord<'_>) -> bool {
    let part = |part: Option<&str>| match part {
        Some(part) => matcher.matches_values([part.as_bytes()]),
        None => matcher.matches_values([]),
    };
    match &matcher.name {
        MatchedHeader::Method => part(record.method),
        MatchedHeader::Path => part(record.path),
        MatchedHeader::Authority => part(record.authority),
        MatchedHeader::Scheme => part(record.scheme),
        MatchedHeader::Header(name) => match record.request_headers {
            Headers::None => matcher.matches_values([]),
            Headers::Map(headers) => matcher.matches_headers(headers),
            Headers::Captured(captured) => {
                matcher.matches_values(captured.all(name).map(http::HeaderValue::as_bytes))
            }
        },
    }
}

/// The gRPC status that an HTTP status stands for (gRPC's "HTTP to gRPC Status Code Mapping"); UNKNOWN for any other.
fn status_of(record: &LogRecord<'_>) -> u32 {
    match record.response_code.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(StatusCode::BAD_REQUEST) => 13,
        Some(StatusCode::UNAUTHORIZED) => 16,
        Some(StatusCode::FORBIDDEN) => 7,
        Some(StatusCode::NOT_FOUND) => 12,
        Some(
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT,
        ) => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::runtime::RuntimeNumber;

    fn record() -> LogRecord<'static> {
        LogRecord {
            response_code: Some(503),
            duration: Some(Duration::from_micros(20_900)),
            flags: ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            stream_id: Some("0000000a-03da-4021-b93d-0207c2cda02c"),
            ..LogRecord::new(UNIX_EPOCH)
        }
    }

    fn takes(config: &Config) -> bool {
        Filter::new(config).takes(&record())
    }

    fn status(op: Op, value: u32) -> Config {
        Config::StatusCode(Comparison { op, value: RuntimeNumber::constant(f64::from(value)) })
    }

    #[test]
    fn statuses_and_durations_are_compared_as_whole_numbers() {
        assert!(takes(&status(Op::Ge, 500)) && !takes(&status(Op::Le, 500)));
        assert!(takes(&status(Op::Eq, 503)) && !takes(&status(Op::Ne, 503)));
        assert!(takes(&Config::Duration(Comparison { op: Op::Eq, value: 20.0.into() })));
        let without = LogRecord::new(UNIX_EPOCH);
        assert!(Filter::new(&status(Op::Eq, 0)).takes(&without), "no status compares as 0");
        let any_duration = Config::Duration(Comparison { op: Op::Ge, value: 0.0.into() });
        assert!(!Filter::new(&any_duration).takes(&without));
    }

    #[test]
    fn filters_are_joined_by_and_and_or() {
        let (yes, no) = (status(Op::Eq, 503), status(Op::Eq, 1));
        assert!(takes(&Config::Or([yes.clone(), no.clone()].into())));
        assert!(!takes(&Config::And([yes.clone(), no].into())));
        assert!(takes(&Config::And([yes.clone(), yes].into())));
    }

    #[test]
    fn a_flag_filter_without_flags_takes_any_flag() {
        let flags = |names: &[&str]| {
            Config::ResponseFlags(names.iter().map(|name| (*name).into()).collect())
        };
        assert!(takes(&flags(&[])) && takes(&flags(&["NR", "UF"])) && !takes(&flags(&["NR"])));
        let calm = LogRecord::new(UNIX_EPOCH);
        assert!(!Filter::new(&flags(&[])).takes(&calm));
    }

    #[test]
    fn a_request_keeps_its_place_in_every_sample() {
        let sample =
            |numerator| Config::Runtime { fraction: (numerator, 100).into(), independent: false };
        assert!(!takes(&sample(10)), "its number is 10");
        assert!(takes(&sample(11)));
        let never = Config::Runtime { fraction: (0, 100).into(), independent: true };
        assert!(!takes(&never));
    }

    #[test]
    fn a_response_without_a_grpc_status_has_that_of_its_http_status() {
        let filter = |exclude| Config::GrpcStatus { statuses: [14].into(), exclude };
        assert!(takes(&filter(false)) && !takes(&filter(true)));
    }

    #[test]
    fn health_checks_and_what_is_not_traced_can_be_left_out() {
        assert!(takes(&Config::NotHealthCheck) && !takes(&Config::Traceable));
        let traced = LogRecord { traced: true, ..record() };
        assert!(Filter::new(&Config::Traceable).takes(&traced));
        let check = LogRecord { traced: true, health_check: true, ..record() };
        assert!(!Filter::new(&Config::Traceable).takes(&check));
        assert!(!Filter::new(&Config::NotHealthCheck).takes(&check));
    }

    #[test]
    fn the_end_of_a_connection_is_another_type_than_that_of_a_request() {
        let filter = |exclude| Config::LogType { types: ["DownstreamEnd".into()].into(), exclude };
        assert!(takes(&filter(false)) && !takes(&filter(true)));
        let tcp = LogRecord { log_type: LogType::TcpConnectionEnd, ..record() };
        assert!(!Filter::new(&filter(false)).takes(&tcp));
    }
}
