//! The service that knows the limits, `envoy.service.ratelimit.v3`. The one place of the filters that names its messages.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::common::ratelimit::v3 as common;
use outrigger_proto::envoy::service::ratelimit::v3 as proto;
use outrigger_proto::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use outrigger_proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit as Limit,
};
use outrigger_proto::google::protobuf::UInt64Value;
use outrigger_proto::json::json_object;
use prost::Message;
use serde_json::{Map, Value};

use crate::config::rate_limit::Descriptor;

/// What is called.
pub(super) const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What the service says.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) over_limit: bool,
    pub(super) response_headers: HeaderMap,
    pub(super) request_headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) metadata: Map<String, Value>,
    /// Of the limit that is nearest.
    pub(super) nearest: Option<Nearest>,
    /// Seconds until the last of the limits that were hit begins anew.
    pub(super) retry_after: Option<u64>,
}

/// What `x-ratelimit-*` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nearest {
    pub(super) limit: String,
    pub(super) remaining: u32,
    pub(super) reset: u64,
}

/// The call's message.
pub(super) fn request(domain: &str, descriptors: &[Descriptor]) -> Vec<u8> {
    let descriptors = descriptors.iter().map(|descriptor| common::RateLimitDescriptor {
        entries: descriptor
            .entries
            .iter()
            .map(|(key, value)| common::rate_limit_descriptor::Entry {
                key: key.to_string(),
                value: value.to_string(),
            })
            .collect(),
        limit: descriptor.limit.map(|(requests_per_unit, unit)| {
            common::rate_limit_descriptor::RateLimitOverride { requests_per_unit, unit }
        }),
        hits_addend: descriptor.hits.map(|hits| UInt64Value { value: hits.number }),
        is_negative_hits: descriptor.hits.is_some_and(|hits| hits.negative),
    });
    let message = proto::RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.collect(),
        hits_addend: 0,
    };
    message.encode_to_vec()
}

/// What an answer says; `None`: nothing that could be understood.
pub(super) fn decision(
    message: &[u8],
    asked: &[Descriptor],
    says_limits: bool,
) -> Option<Decision> {
    let proto::RateLimitResponse {
        overall_code,
        statuses,
        response_headers_to_add,
        request_headers_to_add,
        raw_body,
        dynamic_metadata,
        quota: _, // answers are not remembered
    } = proto::RateLimitResponse::decode(message).ok()?;
    Some(Decision {
        // As in Envoy all else is under it.
        over_limit: Code::try_from(overall_code) == Ok(Code::OverLimit),
        response_headers: headers(response_headers_to_add),
        request_headers: headers(request_headers_to_add),
        body: raw_body,
        metadata: dynamic_metadata.map(json_object).unwrap_or_default(),
        nearest: nearest(&statuses, asked, says_limits),
        retry_after: statuses
            .iter()
            .filter(|status| Code::try_from(status.code) == Ok(Code::OverLimit))
            .map(seconds)
            .max(),
    })
}

fn headers(protos: Vec<core::HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for core::HeaderValue { key, value, raw_value } in protos {
        let value = if value.is_empty() { raw_value } else { value.into_bytes() };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_bytes(&value))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn seconds(status: &DescriptorStatus) -> u64 {
    let duration = status.duration_until_reset.as_ref();
    duration.and_then(|duration| u64::try_from(duration.seconds).ok()).unwrap_or(0)
}

/// Of the limits that are to be said, the one of which least is left, with all of them behind it.
fn nearest(
    statuses: &[DescriptorStatus],
    asked: &[Descriptor],
    says_limits: bool,
) -> Option<Nearest> {
    let said = statuses.iter().enumerate().filter(|(index, _)| {
        asked.get(*index).and_then(|descriptor| descriptor.x_headers).unwrap_or(says_limits)
    });
    let mut least: Option<(&DescriptorStatus, &Limit)> = None;
    let mut policy = String::new();
    for (_, status) in said {
        let Some(limit) = &status.current_limit else { continue };
        if least.is_none_or(|(other, _)| status.limit_remaining < other.limit_remaining) {
            least = Some((status, limit));
        }
        let window = window(limit.unit);
        if window > 0 {
            policy.push_str(&format!(", {};w={window}", limit.requests_per_unit));
            if !limit.name.is_empty() {
                policy.push_str(&format!(";name=\"{}\"", limit.name));
            }
        }
    }
    let (status, limit) = least?;
    Some(Nearest {
        limit: format!("{}{policy}", limit.requests_per_unit),
        remaining: status.limit_remaining,
        reset: seconds(status),
    })
}

/// Seconds of a unit; 0 of one that is not known.
fn window(unit: i32) -> u32 {
    const DAY: u32 = 24 * 60 * 60;
    match Unit::try_from(unit) {
        Ok(Unit::Second) => 1,
        Ok(Unit::Minute) => 60,
        Ok(Unit::Hour) => 60 * 60,
        Ok(Unit::Day) => DAY,
        Ok(Unit::Week) => 7 * DAY,
        Ok(Unit::Month) => 30 * DAY,
        Ok(Unit::Year) => 365 * DAY,
        Ok(Unit::Unknown) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::google::protobuf::Duration;

    use super::*;

    fn status(code: Code, limit: u32, unit: Unit, remaining: u32, reset: i64) -> DescriptorStatus {
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(Limit {
                name: if unit == Unit::Hour { "hourly" } else { "" }.to_owned(),
                requests_per_unit: limit,
                unit: unit.into(),
            }),
            limit_remaining: remaining,
            duration_until_reset: Some(Duration { seconds: reset, nanos: 999 }),
            ..Default::default()
        }
    }

    fn answer(code: Code, statuses: Vec<DescriptorStatus>) -> Vec<u8> {
        proto::RateLimitResponse { overall_code: code.into(), statuses, ..Default::default() }
            .encode_to_vec()
    }

    #[test]
    fn the_nearest_limit_is_said_with_all_of_them_behind_it() {
        let statuses = vec![
            status(Code::Ok, 10, Unit::Second, 5, 1),
            status(Code::OverLimit, 1000, Unit::Hour, 0, 1800),
        ];
        let message = answer(Code::OverLimit, statuses);
        let asked = [Descriptor::default(), Descriptor::default()];
        let decision = decision(&message, &asked, true).expect("an answer");
        assert!(decision.over_limit);
        assert_eq!(decision.retry_after, Some(1800));
        let limit = "1000, 10;w=1, 1000;w=3600;name=\"hourly\"".to_owned();
        assert_eq!(decision.nearest, Some(Nearest { limit, remaining: 0, reset: 1800 }));
    }

    #[test]
    fn a_rule_says_whether_its_limit_is_said() {
        let statuses = vec![
            status(Code::Ok, 10, Unit::Second, 5, 1),
            status(Code::Ok, 20, Unit::Second, 1, 1),
        ];
        let message = answer(Code::Ok, statuses);
        let of = |x_headers| Descriptor { x_headers, ..Descriptor::default() };
        let nearest = |asked: [Descriptor; 2], says| {
            decision(&message, &asked, says).expect("an answer").nearest.map(|it| it.limit)
        };
        assert_eq!(nearest([of(None), of(None)], false), None);
        assert_eq!(nearest([of(None), of(Some(true))], false).as_deref(), Some("20, 20;w=1"));
        assert_eq!(nearest([of(None), of(Some(false))], true).as_deref(), Some("10, 10;w=1"));
    }

    #[test]
    fn what_is_no_answer_decides_nothing() {
        let unknown = decision(&answer(Code::Unknown, Vec::new()), &[], false);
        assert!(unknown.is_some_and(|decision| !decision.over_limit));
        assert!(decision(b"\xff", &[], false).is_none());
    }
}
