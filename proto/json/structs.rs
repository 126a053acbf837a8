//! `google.protobuf.Struct` as JSON.

use serde_json::{Map, Value as Json};

use crate::google::protobuf::{Struct, Value, value};

/// A `google.protobuf.Struct` as JSON.
pub fn json_object(proto: Struct) -> Map<String, Json> {
    let Struct { fields } = proto;
    fields.into_iter().map(|(key, value)| (key, json_value(value))).collect()
}

/// A `google.protobuf.Value` as JSON. A whole number becomes an integer, so that it prints as one.
pub fn json_value(proto: Value) -> Json {
    let Value { kind } = proto;
    match kind {
        None | Some(value::Kind::NullValue(_)) => Json::Null,
        Some(value::Kind::BoolValue(value)) => value.into(),
        Some(value::Kind::StringValue(value)) => value.into(),
        Some(value::Kind::NumberValue(value)) => json_number(value),
        Some(value::Kind::ListValue(list)) => list.values.into_iter().map(json_value).collect(),
        Some(value::Kind::StructValue(value)) => json_object(value).into(),
    }
}

fn json_number(value: f64) -> Json {
    /// Up to here every whole number has an exact `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)] // whole, and within 53 bits
        return (value as i64).into();
    }
    value.into()
}
