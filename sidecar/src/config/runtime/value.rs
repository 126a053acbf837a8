//! What may stand behind a key, and how it is read: as in Envoy, one value can be read as several types.

use std::collections::BTreeMap;

use outrigger_proto::google::protobuf::{Struct, Value as Proto, value::Kind};
use outrigger_proto::json;
use serde_json::Value as Json;

use super::Fraction;
use crate::config::Rejected;

/// The values of a layer, by key.
pub type Values = BTreeMap<Box<str>, Value>;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// As text, for people.
    pub raw: Box<str>,
    /// As a truth value: `true` or `false`, quoted or not.
    pub boolean: Option<bool>,
    /// As a number.
    pub number: Option<f64>,
    /// As a share: one that is written so, or a whole number of percent.
    pub fraction: Option<Fraction>,
}

/// Structures within structures, at most.
const MAX_DEPTH: usize = 32;

/// The values of a structure: `{a: {b: 1}}` is the key `a.b`.
///
/// # Errors
/// With every key whose value can be none: a list, or nothing at all.
pub fn of_struct(proto: Struct) -> Result<Values, Vec<Rejected>> {
    let mut values = Values::new();
    let mut rejected = Vec::new();
    walk("", proto, 0, &mut values, &mut rejected);
    if rejected.is_empty() { Ok(values) } else { Err(rejected) }
}

fn walk(
    prefix: &str,
    proto: Struct,
    depth: usize,
    values: &mut Values,
    rejected: &mut Vec<Rejected>,
) {
    let mut fields: Vec<(String, Proto)> = proto.fields.into_iter().collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, proto) in fields {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let value = match proto.kind {
            None | Some(Kind::NullValue(_) | Kind::ListValue(_)) => {
                let reason = "neither a list nor nothing is a value of the runtime".to_owned();
                rejected.push(Rejected { path: key, reason });
                continue;
            }
            Some(Kind::StructValue(inner)) if !is_fraction(&inner) => {
                if depth == MAX_DEPTH {
                    let reason =
                        format!("structures stand in each other more than {MAX_DEPTH} deep");
                    rejected.push(Rejected { path: key, reason });
                } else {
                    walk(&key, inner, depth + 1, values, rejected);
                }
                continue;
            }
            Some(kind) => of_json(json::json_value(Proto { kind: Some(kind) })),
        };
        values.insert(key.into(), value);
    }
}

fn is_fraction(proto: &Struct) -> bool {
    proto.fields.contains_key("numerator") || proto.fields.contains_key("denominator")
}

/// The value in a file, or in a request of the admin interface: YAML, and a text where it is none.
pub fn of_text(text: &str) -> Value {
    let value = json::parse(text).unwrap_or_else(|_| text.into());
    Value { raw: text.into(), ..of_json(value) }
}

fn of_json(value: Json) -> Value {
    let raw = match &value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (number, fraction) = match &value {
        Json::Number(number) => (number.as_f64(), None),
        // A number that was quoted counts, as in Envoy.
        Json::String(text) => (text.trim().parse().ok().filter(|it: &f64| it.is_finite()), None),
        Json::Object(_) => (None, of_object(&value)),
        _ => (None, None),
    };
    let boolean = match &value {
        Json::Bool(boolean) => Some(*boolean),
        Json::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        _ => None,
    };
    let percent = number.filter(|it| *it >= 0.0 && it.fract() == 0.0).map(|it| (it as u32, 100));
    Value { raw: raw.into(), boolean, number, fraction: fraction.or(percent) }
}

fn of_object(value: &Json) -> Option<Fraction> {
    let numerator = match value.get("numerator") {
        None => 0,
        Some(numerator) => u32::try_from(numerator.as_u64()?).ok()?,
    };
    let denominator = match value.get("denominator") {
        None => 100,
        Some(Json::String(name)) => match name.as_str() {
            "HUNDRED" => 100,
            "TEN_THOUSAND" => 10_000,
            "MILLION" => 1_000_000,
            _ => return None,
        },
        Some(number) => match number.as_u64()? {
            0 => 100,
            1 => 10_000,
            2 => 1_000_000,
            _ => return None,
        },
    };
    Some((numerator, denominator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_proto::envoy::service::runtime::v3::Runtime;
    use outrigger_proto::json::Schema;

    fn values(yaml: &str) -> Result<Values, Vec<Rejected>> {
        let text = format!("{{name: a, layer: {yaml}}}");
        let runtime: Runtime = Schema::load().unwrap().read(&text, true).unwrap();
        of_struct(runtime.layer.unwrap())
    }

    #[test]
    fn structures_are_keys_with_dots_and_shares_are_values() {
        let values = values(
            "{a.b: 1, c: {d: {e: 2.5}, f: x}, g: {numerator: 3, denominator: TEN_THOUSAND}, h: {numerator: 4}, i: '7', j: -1}",
        )
        .unwrap();
        let keys: Vec<&str> = values.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["a.b", "c.d.e", "c.f", "g", "h", "i", "j"]);
        let fraction = |key: &str| values[key].fraction;
        assert_eq!(fraction("a.b"), Some((1, 100)));
        assert_eq!(fraction("c.d.e"), None);
        assert_eq!(values["c.d.e"].number, Some(2.5));
        assert_eq!(fraction("g"), Some((3, 10_000)));
        assert_eq!(fraction("h"), Some((4, 100)));
        assert_eq!(values["i"].number, Some(7.0));
        assert_eq!((values["j"].number, fraction("j")), (Some(-1.0), None));
        assert_eq!(&*values["c.f"].raw, "x");
    }

    #[test]
    fn lists_and_nothing_are_refused_with_their_keys() {
        let rejected = values("{a: {b: [1]}, c: null}").unwrap_err();
        let paths: Vec<&str> = rejected.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, ["a.b", "c"]);
    }

    #[test]
    fn a_file_holds_yaml_or_text() {
        assert_eq!(of_text("55").number, Some(55.0));
        assert_eq!(of_text("{numerator: 5}").fraction, Some((5, 100)));
        let text = of_text("5 apples");
        assert_eq!((&*text.raw, text.number, text.fraction), ("5 apples", None, None));
    }
}
