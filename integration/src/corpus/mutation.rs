//! Every field of a configuration spoiled in turn, in each way that its kind of value allows.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Value, json};

use super::Example;

/// How a field is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Taken out.
    Removed,
    /// A list without items.
    NoItems,
    /// 0.
    Zero,
    /// -1.
    Negative,
    /// 2^32, one more than a `uint32` holds.
    Huge,
    /// `0s`.
    NoTime,
    /// `-1s`.
    NegativeTime,
    /// A name that the enumeration does not have.
    NoSuchChoice,
    /// The empty text.
    Empty,
    /// A text of two lines.
    TwoLines,
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Change::Removed => "removed",
            Change::NoItems => "no items",
            Change::Zero => "0",
            Change::Negative => "-1",
            Change::Huge => "2^32",
            Change::NoTime => "0s",
            Change::NegativeTime => "-1s",
            Change::NoSuchChoice => "no such choice",
            Change::Empty => "empty",
            Change::TwoLines => "two lines",
        })
    }
}

impl Change {
    /// What is there instead; nothing for a field that is taken out.
    fn value(self) -> Option<Value> {
        Some(match self {
            Change::Removed => return None,
            Change::NoItems => json!([]),
            Change::Zero => json!(0),
            Change::Negative => json!(-1),
            Change::Huge => json!(1_u64 << 32),
            Change::NoTime => json!("0s"),
            Change::NegativeTime => json!("-1s"),
            Change::NoSuchChoice => json!("NO_SUCH_CHOICE"),
            Change::Empty => json!(""),
            Change::TwoLines => json!("a\nb"),
        })
    }

    /// The changes that make sense for such a value.
    fn of(value: &Value, is_field: bool) -> Vec<Change> {
        let mut changes = match value {
            Value::Array(_) => vec![Change::NoItems],
            Value::Number(_) => vec![Change::Zero, Change::Negative, Change::Huge],
            Value::String(text) if is_duration(text) => vec![Change::NoTime, Change::NegativeTime],
            Value::String(text) if is_choice(text) => vec![Change::NoSuchChoice],
            Value::String(_) => vec![Change::Empty, Change::TwoLines],
            Value::Null | Value::Bool(_) | Value::Object(_) => Vec::new(),
        };
        if is_field {
            changes.push(Change::Removed);
        }
        changes
    }
}

fn is_duration(text: &str) -> bool {
    text.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

fn is_choice(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A spoiled configuration.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// The example it was made of.
    pub example: String,
    /// The spoiled field, as in `clusters[0].name`.
    pub field: String,
    /// How.
    pub change: Change,
    /// The whole configuration.
    pub content: Value,
}

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// One mutant for each field of each message and each change, wherever in the examples it is found first: a field is
/// the same for this when the message with a type of its own around it, and the last two names of its path, are.
pub fn mutants(examples: &[Example]) -> Vec<Mutant> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for example in examples {
        let mut places = Vec::new();
        collect(&example.content, "", &mut Vec::new(), &mut places);
        for (path, message) in places {
            let Some(value) = at(&example.content, &path) else { continue };
            let is_field = matches!(path.last(), Some(Step::Key(_)));
            for change in Change::of(value, is_field) {
                if seen.insert((message.clone(), last_names(&path), is_field, change)) {
                    let mut content = example.content.clone();
                    spoil(&mut content, &path, change);
                    let field = text(&path);
                    found.push(Mutant { example: example.name.clone(), field, change, content });
                }
            }
        }
    }
    found
}

/// The places of everything that may be spoiled, each with the `@type` around it.
fn collect(
    value: &Value,
    message: &str,
    path: &mut Vec<Step>,
    places: &mut Vec<(Vec<Step>, String)>,
) {
    let mut visit = |step: Step, value: &Value, message: &str| {
        path.push(step);
        places.push((path.clone(), message.to_owned()));
        collect(value, message, path, places);
        path.pop();
    };
    match value {
        Value::Object(fields) => {
            let message = fields.get("@type").and_then(Value::as_str).unwrap_or(message);
            // What type a message has, and who the node is, are not what an example is about.
            for (key, value) in fields.iter().filter(|(key, _)| *key != "@type" && *key != "node") {
                visit(Step::Key(key.clone()), value, message);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                visit(Step::Index(index), value, message);
            }
        }
        _ => {}
    }
}

fn at<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn at_mut<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

fn spoil(content: &mut Value, path: &[Step], change: Change) {
    match change.value() {
        Some(value) => {
            if let Some(place) = at_mut(content, path) {
                *place = value;
            }
        }
        None => {
            if let Some((Step::Key(key), parent)) = path.split_last()
                && let Some(Value::Object(fields)) = at_mut(content, parent)
            {
                fields.remove(key);
            }
        }
    }
}

fn last_names(path: &[Step]) -> Vec<String> {
    let names = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    });
    let names: Vec<String> = names.collect();
    names.split_at(names.len().saturating_sub(2)).1.to_vec()
}

fn text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: Value) -> Vec<Mutant> {
        mutants(&[Example { name: "e".to_owned(), path: "e.yaml".into(), content }])
    }

    fn listed(mutants: &[Mutant]) -> Vec<String> {
        mutants.iter().map(|mutant| format!("{} {}", mutant.field, mutant.change)).collect()
    }

    #[test]
    fn a_field_is_spoiled_as_its_value_allows() {
        assert_eq!(
            listed(&of(json!({"a": {"b": 1}, "c": ["5s"], "d": "MODE", "e": "text", "f": true}))),
            [
                "a removed",
                "a.b 0",
                "a.b -1",
                "a.b 2^32",
                "a.b removed",
                "c no items",
                "c removed",
                "c[0] 0s",
                "c[0] -1s",
                "d no such choice",
                "d removed",
                "e empty",
                "e two lines",
                "e removed",
                "f removed",
            ]
        );
    }

    #[test]
    fn only_the_named_field_differs() {
        let mutants = of(json!({"a": {"b": 1, "c": true}}));
        let spoiled = |field: &str, change| {
            let found = mutants.iter().find(|one| one.field == field && one.change == change);
            found.map(|mutant| mutant.content.clone())
        };
        assert_eq!(spoiled("a.b", Change::Negative), Some(json!({"a": {"b": -1, "c": true}})));
        assert_eq!(spoiled("a.c", Change::Removed), Some(json!({"a": {"b": 1}})));
    }

    #[test]
    fn the_same_field_of_the_same_message_is_spoiled_once() {
        let twice =
            of(json!({"l": [{"@type": "t", "x": {"y": true}}, {"@type": "t", "x": {"y": true}}]}));
        let removed = |field: &str| twice.iter().filter(|one| one.field.ends_with(field)).count();
        assert_eq!(removed("x.y"), 1);
        let other = of(json!({"l": [{"@type": "t", "y": true}, {"@type": "u", "y": true}]}));
        assert_eq!(other.iter().filter(|one| one.field.ends_with(".y")).count(), 2);
    }
}
