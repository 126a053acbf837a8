//! Metadata, matchers on metadata and filter state, and the two filters that write them.

use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::filters::common::set_filter_state::v3 as state;
use outrigger_proto::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_proto;
use outrigger_proto::envoy::extensions::filters::http::set_metadata::v3 as set_metadata_proto;
use outrigger_proto::envoy::r#type::matcher::v3 as proto;
use outrigger_proto::envoy::r#type::matcher::v3::double_matcher::MatchPattern as DoublePattern;
use outrigger_proto::envoy::r#type::matcher::v3::filter_state_matcher::Matcher as StatePattern;
use outrigger_proto::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use outrigger_proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use outrigger_proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use outrigger_proto::google::protobuf::{ListValue, Struct, Value, value};

use crate::config::Problems;
use crate::config::access_log::{Format, LineFormat};
use crate::config::metadata::{
    FilterStateMatcher, Metadata, MetadataMatcher, SetFilterState, SetFilterStateValue,
    SetMetadata, SetMetadataEntry, ValueMatcher,
};

use super::common::{enumeration, json_object, required, sorted, text, unsupported};
use super::{access_log, matcher};

/// Matchers may stand in each other only so deep: a stack is finite.
const MAX_DEPTH: usize = 16;

/// `Metadata` of a resource.
pub(super) fn of(proto: core::Metadata) -> Metadata {
    let core::Metadata {
        filter_metadata,
        typed_filter_metadata: _, // for extensions that we do not have
    } = proto;
    Metadata(
        sorted(filter_metadata)
            .into_iter()
            .map(|(filter, object)| (filter, json_object(object).into()))
            .collect(),
    )
}

/// Metadata as others are told of them.
pub(crate) fn to_proto(metadata: &Metadata) -> core::Metadata {
    let object = |value: &serde_json::Value| match proto_value(value).kind {
        Some(value::Kind::StructValue(object)) => object,
        _ => Struct::default(),
    };
    let filter_metadata =
        metadata.0.iter().map(|(filter, value)| (filter.clone(), object(value))).collect();
    core::Metadata { filter_metadata, ..Default::default() }
}

fn proto_value(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => value::Kind::NullValue(0),
        Json::Bool(value) => value::Kind::BoolValue(*value),
        Json::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => value::Kind::StringValue(text.clone()),
        Json::Array(values) => {
            value::Kind::ListValue(ListValue { values: values.iter().map(proto_value).collect() })
        }
        Json::Object(fields) => value::Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), proto_value(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// A `MetadataMatcher`.
pub(super) fn matcher(
    problems: &mut Problems,
    proto: proto::MetadataMatcher,
) -> Option<MetadataMatcher> {
    let proto::MetadataMatcher { filter, path, value, invert } = proto;
    let filter = text(problems, "filter", filter);
    if path.is_empty() {
        problems.reject_field("path", "must have at least one entry");
    }
    let path: Vec<Box<str>> = path
        .into_iter()
        .enumerate()
        .filter_map(|(index, segment)| {
            let PathSegment { segment } = segment;
            problems.element("path", index, |problems| match segment {
                Some(path_segment::Segment::Key(key)) => Some(text(problems, "key", key).into()),
                None => {
                    problems.reject_field("key", "required");
                    None
                }
            })
        })
        .collect();
    let value = required(problems, "value", value)?;
    let value = problems.field("value", |problems| value_matcher(problems, value, 0))?;
    Some(MetadataMatcher { filter: filter.into(), path: path.into(), value, invert })
}

/// A list of `MetadataMatcher`s in the field `name`.
pub(super) fn matchers(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::MetadataMatcher>,
) -> Vec<MetadataMatcher> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| matcher(problems, proto))
        })
        .collect()
}

fn value_matcher(
    problems: &mut Problems,
    proto: proto::ValueMatcher,
    depth: usize,
) -> Option<ValueMatcher> {
    if depth >= MAX_DEPTH {
        problems.reject(format!("matchers stand in each other more than {MAX_DEPTH} deep"));
        return None;
    }
    let proto::ValueMatcher { match_pattern } = proto;
    match match_pattern {
        None => {
            problems.reject(
                "one of null_match, double_match, string_match, bool_match, present_match, list_match, or_match is required",
            );
            None
        }
        Some(MatchPattern::NullMatch(proto::value_matcher::NullMatch {})) => {
            Some(ValueMatcher::Null)
        }
        Some(MatchPattern::DoubleMatch(proto::DoubleMatcher { match_pattern })) => {
            match match_pattern {
                Some(DoublePattern::Exact(number)) => Some(ValueMatcher::Number(number)),
                Some(DoublePattern::Range(range)) => {
                    Some(ValueMatcher::Range(range.start, range.end))
                }
                None => {
                    problems.reject_field("double_match", "one of range, exact is required");
                    None
                }
            }
        }
        Some(MatchPattern::StringMatch(proto)) => problems
            .field("string_match", |problems| matcher::string(problems, proto))
            .map(ValueMatcher::String),
        Some(MatchPattern::BoolMatch(value)) => Some(ValueMatcher::Bool(value)),
        Some(MatchPattern::PresentMatch(present)) => Some(ValueMatcher::Present(present)),
        Some(MatchPattern::ListMatch(list)) => problems.field("list_match", |problems| {
            let proto::ListMatcher { match_pattern } = *list;
            let Some(ListPattern::OneOf(one)) = match_pattern else {
                problems.reject_field("one_of", "required");
                return None;
            };
            let one =
                problems.field("one_of", |problems| value_matcher(problems, *one, depth + 1))?;
            Some(ValueMatcher::OneOf(Box::new(one)))
        }),
        Some(MatchPattern::OrMatch(proto::OrMatcher { value_matchers })) => {
            problems.field("or_match", |problems| {
                if value_matchers.len() < 2 {
                    problems.reject_field("value_matchers", "at least two are needed");
                }
                let matchers: Vec<ValueMatcher> = value_matchers
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, proto)| {
                        problems.element("value_matchers", index, |problems| {
                            value_matcher(problems, proto, depth + 1)
                        })
                    })
                    .collect();
                Some(ValueMatcher::Or(matchers.into()))
            })
        }
    }
}

/// A `FilterStateMatcher`.
pub(super) fn state_matcher(
    problems: &mut Problems,
    proto: proto::FilterStateMatcher,
) -> Option<FilterStateMatcher> {
    let proto::FilterStateMatcher { key, matcher } = proto;
    let key = text(problems, "key", key);
    let value = match matcher {
        None => {
            problems.reject("one of string_match, address_match is required");
            return None;
        }
        Some(StatePattern::StringMatch(proto)) => {
            problems.field("string_match", |problems| matcher::string(problems, proto))?
        }
        // It asks for objects that are addresses, which nothing here makes.
        Some(StatePattern::AddressMatch(_)) => {
            problems.unsupported("address_match", true);
            return None;
        }
    };
    Some(FilterStateMatcher { key: key.into(), value })
}

/// A list of `FilterStateMatcher`s in the field `name`.
pub(super) fn state_matchers(
    problems: &mut Problems,
    name: &str,
    protos: Vec<proto::FilterStateMatcher>,
) -> Vec<FilterStateMatcher> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| state_matcher(problems, proto))
        })
        .collect()
}

/// `envoy.filters.http.set_metadata`
pub(super) fn set_metadata(
    problems: &mut Problems,
    proto: set_metadata_proto::Config,
) -> SetMetadata {
    let set_metadata_proto::Config { metadata_namespace, value, metadata } = proto;
    let mut entries = Vec::with_capacity(metadata.len() + 1);
    if let Some(value) = value {
        let namespace = text(problems, "metadata_namespace", metadata_namespace).into();
        // Before there were entries, it always was merged.
        let value = json_object(value);
        entries.push(SetMetadataEntry { namespace, allow_overwrite: true, value });
    }
    for (index, proto) in metadata.into_iter().enumerate() {
        let set_metadata_proto::Metadata {
            metadata_namespace,
            allow_overwrite,
            value,
            typed_value,
        } = proto;
        problems.element("metadata", index, |problems| {
            unsupported!(problems; typed_value);
            let namespace = text(problems, "metadata_namespace", metadata_namespace).into();
            // As in Envoy an entry without a value writes nothing.
            if let Some(value) = value {
                let value = json_object(value);
                entries.push(SetMetadataEntry { namespace, allow_overwrite, value });
            }
        });
    }
    SetMetadata(entries.into())
}

/// `envoy.filters.http.set_filter_state`
pub(super) fn set_filter_state(
    problems: &mut Problems,
    proto: set_filter_state_proto::Config,
) -> SetFilterState {
    let set_filter_state_proto::Config { on_request_headers, clear_route_cache } = proto;
    let values: Vec<_> = on_request_headers
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("on_request_headers", index, |problems| state_value(problems, proto))
        })
        .collect();
    SetFilterState { values: values.into(), clear_route_cache }
}

fn state_value(
    problems: &mut Problems,
    proto: state::FilterStateValue,
) -> Option<SetFilterStateValue> {
    let state::FilterStateValue {
        factory_key,
        read_only,
        shared_with_upstream,
        skip_if_empty,
        key,
        value,
    } = proto;
    use state::filter_state_value::{Key, SharedWithUpstream, Value};
    unsupported!(problems; read_only);
    let shared: Option<SharedWithUpstream> =
        enumeration(problems, "shared_with_upstream", shared_with_upstream);
    if shared.is_some_and(|shared| shared != SharedWithUpstream::None) {
        problems.unsupported("shared_with_upstream", true);
    }
    let Some(Key::ObjectKey(key)) = key else {
        problems.reject_field("object_key", "required");
        return None;
    };
    let key = text(problems, "object_key", key);
    let factory = if factory_key.is_empty() { &key } else { &factory_key };
    // Other factories make objects that something in Envoy acts on: a cluster to go to, a name to ask for.
    let hashable = factory == "envoy.hashable_string";
    if !hashable && factory != "envoy.string" {
        let field = if factory_key.is_empty() { "object_key" } else { "factory_key" };
        problems.reject_field(
            field,
            format!("{factory:?} is not supported by this version of Outrigger, which has factory_key envoy.string, envoy.hashable_string"),
        );
    }
    let Some(Value::FormatString(proto)) = value else {
        problems.reject_field("format_string", "required");
        return None;
    };
    let (value, omit_empty_values) =
        problems.field("format_string", |problems| plain_format(problems, proto))?;
    Some(SetFilterStateValue { key: key.into(), value, hashable, omit_empty_values, skip_if_empty })
}

/// A format that is one text, and whether what is not known is left out of it.
fn plain_format(
    problems: &mut Problems,
    proto: core::SubstitutionFormatString,
) -> Option<(Format, bool)> {
    let omit_empty_values = proto.omit_empty_values;
    match access_log::substitution(problems, proto)? {
        LineFormat::Text(text) => Some((text, omit_empty_values)),
        LineFormat::Json(_) => {
            problems.unsupported("json_format", true);
            None
        }
    }
}
