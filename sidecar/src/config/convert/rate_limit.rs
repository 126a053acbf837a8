//! `envoy.config.route.v3.RateLimit`: how requests are described.

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::route::v3 as proto;
use outrigger_proto::envoy::config::route::v3::rate_limit as inner;
use outrigger_proto::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use outrigger_proto::envoy::config::route::v3::rate_limit::action::meta_data::Source;
use outrigger_proto::envoy::config::route::v3::rate_limit::r#override::OverrideSpecifier;
use outrigger_proto::envoy::config::route::v3::rate_limit::{XRateLimitOption, action, r#override};
use outrigger_proto::envoy::r#type::matcher::v3::AddressMatcher;
use outrigger_proto::envoy::r#type::metadata::v3::MetadataKey;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use outrigger_proto::envoy::r#type::v3::RateLimitUnit;
use outrigger_proto::google::protobuf::UInt64Value;
use outrigger_proto::xds_core::core::v3 as xds_core;

use crate::config::Problems;
use crate::config::rate_limit::{
    Hits, LimitOverride, MetadataPath, MetadataSource, RateLimitAction, RateLimitRule,
};
use crate::config::runtime::RuntimeFraction;

use super::common::{
    boolean, cidr_range, enumeration, number_in, optional, required, text, unsupported,
};
use super::matcher;

/// The highest stage.
const MAX_STAGE: u32 = 10;
/// The most that a request may count as.
const MAX_HITS: u64 = 1_000_000_000;

/// Where rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a route or virtual host.
    Route,
    /// In a filter of this process alone.
    LocalFilter,
    /// In a filter that asks a service.
    GlobalFilter,
}

/// The repeated field `name`.
pub(super) fn rules(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::RateLimit>,
    place: Place,
) -> Vec<RateLimitRule> {
    let rules = protos.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element(name, index, |problems| rule(problems, proto, place))
    });
    rules.collect()
}

fn rule(problems: &mut Problems, proto: proto::RateLimit, place: Place) -> Option<RateLimitRule> {
    let proto::RateLimit {
        stage,
        disable_key,
        actions,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option,
    } = proto;
    unsupported!(problems; apply_on_stream_done);
    if place != Place::Route {
        for (name, is_set) in [("stage", stage.is_some()), ("disable_key", !disable_key.is_empty())]
        {
            if is_set {
                problems.reject_field(name, "counts only in a route or virtual host");
            }
        }
    }
    if place == Place::LocalFilter && limit.is_some() {
        problems.reject_field("limit", "counts only where a service is asked");
    }
    if place == Place::Route && hits_addend.is_some() {
        problems.reject_field("hits_addend", "counts only in a filter's own configuration");
    }
    let stage = number_in(problems, "stage", stage, 0..=MAX_STAGE).unwrap_or(0);
    if actions.is_empty() {
        problems.reject_field("actions", "must have at least one entry");
    }
    let actions = actions.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element("actions", index, |problems| of(problems, proto))
    });
    let actions = actions.collect();
    let limit = limit.and_then(|p| problems.field("limit", |problems| override_of(problems, p)));
    let hits = hits_addend
        .and_then(|p| problems.field("hits_addend", |problems| hits_of(problems, p, place)));
    let x_headers = match enumeration(problems, "x_ratelimit_option", x_ratelimit_option) {
        None | Some(XRateLimitOption::Unspecified) => None,
        Some(XRateLimitOption::Off) => Some(false),
        Some(XRateLimitOption::DraftVersion03) => Some(true),
    };
    let disable_key = (!disable_key.is_empty()).then(|| {
        let key = format!("ratelimit.{disable_key}.http_filter_enabled");
        (disable_key.into(), RuntimeFraction::new((100, 100), &key))
    });
    Some(RateLimitRule { stage, disable_key, actions, limit, hits, x_headers })
}

fn of(problems: &mut Problems, proto: inner::Action) -> Option<RateLimitAction> {
    let inner::Action { action_specifier } = proto;
    match action_specifier {
        None => {
            problems.reject("an action is required, such as request_headers");
            None
        }
        Some(ActionSpecifier::SourceCluster(action::SourceCluster {})) => {
            Some(RateLimitAction::SourceCluster)
        }
        Some(ActionSpecifier::DestinationCluster(action::DestinationCluster {})) => {
            Some(RateLimitAction::DestinationCluster)
        }
        Some(ActionSpecifier::RemoteAddress(action::RemoteAddress {})) => {
            Some(RateLimitAction::RemoteAddress)
        }
        Some(ActionSpecifier::RequestHeaders(proto)) => {
            problems.field("request_headers", |problems| header(problems, proto))
        }
        Some(ActionSpecifier::QueryParameters(proto)) => {
            let action::QueryParameters { query_parameter_name, descriptor_key, skip_if_absent } =
                proto;
            problems.field("query_parameters", |problems| {
                Some(RateLimitAction::QueryParameter {
                    name: text(problems, "query_parameter_name", query_parameter_name).into(),
                    key: text(problems, "descriptor_key", descriptor_key).into(),
                    skip_if_absent,
                })
            })
        }
        Some(ActionSpecifier::MaskedRemoteAddress(proto)) => {
            let action::MaskedRemoteAddress { v4_prefix_mask_len, v6_prefix_mask_len } = proto;
            problems.field("masked_remote_address", |problems| {
                let mut length = |name: &str, value, most: u8| {
                    let value = number_in(problems, name, value, 0..=u32::from(most));
                    value.and_then(|value| u8::try_from(value).ok()).unwrap_or(most)
                };
                Some(RateLimitAction::MaskedRemoteAddress {
                    v4: length("v4_prefix_mask_len", v4_prefix_mask_len, 32),
                    v6: length("v6_prefix_mask_len", v6_prefix_mask_len, 128),
                })
            })
        }
        Some(ActionSpecifier::GenericKey(proto)) => {
            let action::GenericKey {
                descriptor_value,
                default_value: _, // counts only where values are formats, which Envoy's runtime turns off
                descriptor_key,
            } = proto;
            problems.field("generic_key", |problems| {
                let (key, value) = entry(problems, descriptor_key, "generic_key", descriptor_value);
                Some(RateLimitAction::Fixed(key, value))
            })
        }
        Some(ActionSpecifier::HeaderValueMatch(proto)) => {
            let action::HeaderValueMatch {
                descriptor_value,
                default_value: _, // as above
                descriptor_key,
                expect_match,
                headers,
            } = proto;
            problems.field("header_value_match", |problems| {
                if headers.is_empty() {
                    problems.reject_field("headers", "must have at least one entry");
                }
                Some(RateLimitAction::HeadersMatch {
                    entry: entry(problems, descriptor_key, "header_match", descriptor_value),
                    expect: boolean(expect_match, true),
                    headers: matcher::headers(problems, "headers", headers),
                })
            })
        }
        Some(ActionSpecifier::QueryParameterValueMatch(proto)) => {
            let action::QueryParameterValueMatch {
                descriptor_value,
                default_value: _, // as above
                descriptor_key,
                expect_match,
                query_parameters,
            } = proto;
            problems.field("query_parameter_value_match", |problems| {
                if query_parameters.is_empty() {
                    problems.reject_field("query_parameters", "must have at least one entry");
                }
                let entry = entry(problems, descriptor_key, "query_match", descriptor_value);
                let parameters = query_parameters.into_iter().enumerate();
                let parameters = parameters.filter_map(|(index, proto)| {
                    problems.element("query_parameters", index, |problems| {
                        matcher::query_parameter(problems, proto)
                    })
                });
                let parameters = parameters.collect();
                let expect = boolean(expect_match, true);
                Some(RateLimitAction::QueryMatch { entry, expect, parameters })
            })
        }
        Some(ActionSpecifier::RemoteAddressMatch(proto)) => {
            problems.field("remote_address_match", |problems| address(problems, proto))
        }
        Some(ActionSpecifier::Metadata(proto)) => {
            problems.field("metadata", |problems| metadata(problems, proto))
        }
        // Envoy itself refuses it unless it is told to allow what is no longer to be used.
        Some(ActionSpecifier::DynamicMetadata(_)) => {
            problems.reject_field("dynamic_metadata", "not supported: use metadata");
            None
        }
        Some(ActionSpecifier::Extension(_)) => {
            problems.unsupported("extension", true);
            None
        }
    }
}

/// Key and value of a fixed entry.
fn entry(
    problems: &mut Problems,
    key: String,
    default: &str,
    value: String,
) -> (Box<str>, Box<str>) {
    let key = if key.is_empty() { default.to_owned() } else { key };
    (key.into(), text(problems, "descriptor_value", value).into())
}

fn header(problems: &mut Problems, proto: action::RequestHeaders) -> Option<RateLimitAction> {
    let action::RequestHeaders { header_name, descriptor_key, skip_if_absent } = proto;
    let key = text(problems, "descriptor_key", descriptor_key).into();
    let name = matcher::matched_header(problems, "header_name", &header_name)?;
    Some(RateLimitAction::Header { name, key, skip_if_absent })
}

fn address(problems: &mut Problems, proto: action::RemoteAddressMatch) -> Option<RateLimitAction> {
    let action::RemoteAddressMatch {
        descriptor_value,
        descriptor_key,
        default_value: _, // of a format that comes out empty, and formats are refused
        address_matcher,
    } = proto;
    if descriptor_value.contains('%') {
        problems.reject_field(
            "descriptor_value",
            "command operators are not supported here by this version of Outrigger",
        );
    }
    let entry = entry(problems, descriptor_key, "remote_address_match", descriptor_value);
    let matcher = required(problems, "address_matcher", address_matcher)?;
    let AddressMatcher { ranges, invert_match } = matcher;
    let ranges = problems.field("address_matcher", |problems| {
        let ranges = ranges.into_iter().enumerate().filter_map(|(index, proto)| {
            let xds_core::CidrRange { address_prefix, prefix_len } = proto;
            let proto = core::CidrRange { address_prefix, prefix_len };
            problems.element("ranges", index, |problems| cidr_range(problems, proto))
        });
        ranges.collect()
    });
    Some(RateLimitAction::AddressMatch { entry, ranges, invert: invert_match })
}

fn metadata(problems: &mut Problems, proto: action::MetaData) -> Option<RateLimitAction> {
    let action::MetaData { descriptor_key, metadata_key, default_value, source, skip_if_absent } =
        proto;
    let key = text(problems, "descriptor_key", descriptor_key).into();
    let source = match enumeration(problems, "source", source)? {
        Source::Dynamic => MetadataSource::Request,
        Source::RouteEntry => MetadataSource::Route,
        Source::ClusterEntry => MetadataSource::Cluster,
        Source::ClusterLocalityEntry => {
            problems.reject_field("source", "CLUSTER_LOCALITY_ENTRY is known only of an endpoint");
            return None;
        }
    };
    let place = required(problems, "metadata_key", metadata_key)?;
    let place = problems.field("metadata_key", |problems| place_of(problems, place));
    let default = optional(default_value);
    Some(RateLimitAction::Metadata { key, place, source, default, skip_if_absent })
}

fn place_of(problems: &mut Problems, proto: MetadataKey) -> MetadataPath {
    let MetadataKey { key, path } = proto;
    let filter = text(problems, "key", key).into();
    if path.is_empty() {
        problems.reject_field("path", "must have at least one entry");
    }
    let path = path.into_iter().enumerate().filter_map(|(index, PathSegment { segment })| {
        problems.element("path", index, |problems| match segment {
            Some(Segment::Key(key)) => Some(text(problems, "key", key).into()),
            Some(Segment::Index(_)) => {
                problems.unsupported("index", true);
                None
            }
            None => {
                problems.reject_field("key", "required");
                None
            }
        })
    });
    let path = path.collect();
    MetadataPath { filter, path }
}

fn override_of(problems: &mut Problems, proto: inner::Override) -> Option<LimitOverride> {
    let inner::Override { override_specifier } = proto;
    match override_specifier {
        None => {
            problems.reject("one of dynamic_metadata, rate_limit is required");
            None
        }
        Some(OverrideSpecifier::DynamicMetadata(r#override::DynamicMetadata { metadata_key })) => {
            problems.field("dynamic_metadata", |problems| {
                let place = required(problems, "metadata_key", metadata_key)?;
                let place = problems.field("metadata_key", |problems| place_of(problems, place));
                Some(LimitOverride::Metadata(place))
            })
        }
        Some(OverrideSpecifier::RateLimit(r#override::RateLimitOverride {
            requests_per_unit,
            unit,
        })) => problems.field("rate_limit", |problems| {
            let unit: RateLimitUnit = enumeration(problems, "unit", unit)?;
            Some(LimitOverride::Fixed(requests_per_unit, unit.into()))
        }),
    }
}

fn hits_of(problems: &mut Problems, proto: inner::HitsAddend, place: Place) -> Option<Hits> {
    let inner::HitsAddend { number, format, is_negative_hits } = proto;
    unsupported!(problems; format);
    if is_negative_hits && place != Place::GlobalFilter {
        problems.reject_field("is_negative_hits", "counts only where a service is asked");
    }
    let UInt64Value { value: number } = number.unwrap_or(UInt64Value { value: 1 });
    if number > MAX_HITS {
        problems.reject_field("number", format!("{number} is more than {MAX_HITS}"));
    }
    Some(Hits { number, negative: is_negative_hits })
}
