//! Walks a value beside the descriptor of its message and reports every place that does not fit, `Any`s included.
//!
//! The deserializer that reads the message stops at the first such place and knows little of where it is. This one only
//! looks at the structure; whether a single value fits its field it leaves to the deserializer.

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value, json};

use super::Problem;

/// The full name of the message that holds any other.
pub(super) const ANY: &str = "google.protobuf.Any";

/// Every place of `value` that does not fit `message`.
pub(super) fn check(
    pool: &DescriptorPool,
    message: &MessageDescriptor,
    value: &Value,
    deny_unknown_fields: bool,
) -> Vec<Problem> {
    let mut checker = Checker { pool, deny_unknown_fields, problems: Vec::new() };
    checker.message("", message, value);
    checker.problems
}

struct Checker<'a> {
    pool: &'a DescriptorPool,
    deny_unknown_fields: bool,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn report(&mut self, path: &str, reason: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), reason: reason.into() });
    }

    fn message(&mut self, path: &str, message: &MessageDescriptor, value: &Value) {
        let Value::Object(object) = value else {
            self.report(path, format!("expected an object, got {}", kind_of(value)));
            return;
        };
        self.fields(path, message, object);
    }

    fn fields(&mut self, path: &str, message: &MessageDescriptor, object: &Map<String, Value>) {
        let mut set: Vec<(FieldDescriptor, &str)> = Vec::new();
        for (key, value) in object {
            if key == "@type" {
                continue;
            }
            let below = join(path, key);
            let Some(field) = field_of(message, key) else {
                if self.deny_unknown_fields {
                    self.report(&below, unknown(message, key));
                }
                continue;
            };
            if let Some((_, other)) = set.iter().find(|(known, _)| known.number() == field.number())
            {
                self.report(&below, format!("is the same field as {other}"));
            }
            if value.is_null() {
                continue;
            }
            let oneof = field.containing_oneof();
            let rival = set.iter().find(|(known, _)| {
                known.number() != field.number()
                    && oneof.is_some()
                    && known.containing_oneof() == oneof
            });
            if let Some((_, other)) = rival {
                self.report(&below, format!("cannot be set together with {other}"));
            }
            self.field(&below, message, &field, value);
            set.push((field, key));
        }
    }

    fn field(
        &mut self,
        path: &str,
        parent: &MessageDescriptor,
        field: &FieldDescriptor,
        value: &Value,
    ) {
        if field.is_map() {
            let Value::Object(object) = value else {
                self.report(path, format!("expected an object, got {}", kind_of(value)));
                return;
            };
            let Kind::Message(entry) = field.kind() else { return };
            let kind = entry.map_entry_value_field().kind();
            for (key, value) in object {
                let below = join(path, key);
                self.single(&below, &kind, value, |value| {
                    (parent, json!({field.name(): {key: value}}))
                });
            }
        } else if field.is_list() {
            let Value::Array(list) = value else {
                self.report(path, format!("expected a list, got {}", kind_of(value)));
                return;
            };
            for (index, value) in list.iter().enumerate() {
                let below = format!("{path}[{index}]");
                self.single(&below, &field.kind(), value, |value| {
                    (parent, json!({field.name(): [value]}))
                });
            }
        } else {
            self.single(path, &field.kind(), value, |value| (parent, json!({field.name(): value})));
        }
    }

    /// One value; `wrap` makes a message with nothing but this value in it.
    fn single<'m>(
        &mut self,
        path: &str,
        kind: &Kind,
        value: &Value,
        wrap: impl Fn(&Value) -> (&'m MessageDescriptor, Value),
    ) {
        match kind {
            Kind::Message(message) if message.full_name() == ANY => self.any(path, message, value),
            Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => {
                self.message(path, message, value);
            }
            // What most leaves are, and what cannot be wrong.
            Kind::String if value.is_string() => {}
            Kind::Bool if value.is_boolean() => {}
            _ => {
                let (message, wrapped) = wrap(value);
                self.leaf(path, message, &wrapped);
            }
        }
    }

    fn any(&mut self, path: &str, any: &MessageDescriptor, value: &Value) {
        let Value::Object(object) = value else {
            self.report(path, format!("expected an object, got {}", kind_of(value)));
            return;
        };
        let Some(Value::String(url)) = object.get("@type") else {
            self.report(&join(path, "@type"), "required: the type of this message");
            return;
        };
        let name = crate::any::message_name(url);
        let Some(message) = self.pool.get_message_by_name(name) else {
            self.report(&join(path, "@type"), format!("{name:?} is not known here"));
            return;
        };
        if name.starts_with("google.protobuf.") {
            self.leaf(path, any, value);
        } else {
            self.fields(path, &message, object);
        }
    }

    fn leaf(&mut self, path: &str, message: &MessageDescriptor, value: &Value) {
        let options = DeserializeOptions::new().deny_unknown_fields(self.deny_unknown_fields);
        let read = DynamicMessage::deserialize_with_options(message.clone(), value, &options);
        if let Err(error) = read {
            self.report(path, error.to_string());
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A field by its name in the proto or in JSON.
pub(super) fn field_of(message: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key))
}

fn unknown(message: &MessageDescriptor, key: &str) -> String {
    let name = message.full_name();
    let nearest =
        message.fields().map(|field| (distance(field.name(), key), field.name().to_owned())).min();
    match nearest {
        // More than a third of it wrong is another word.
        Some((distance, field)) if distance * 3 <= key.len() => {
            format!("no such field in {name}: did you mean {field}?")
        }
        _ => format!("no such field in {name}"),
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
