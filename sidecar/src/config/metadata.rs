//! Metadata and filter state: what filters note of a request, and matchers on it.
//!
//! Metadata are objects by the name of their filter (a namespace); filter state are texts by key. Reference:
//! `envoy.type.matcher.v3.MetadataMatcher`, `ValueMatcher` and `FilterStateMatcher`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::access_log::Format;
pub(crate) use super::convert::metadata_to_proto as to_proto;
pub use super::endpoint::Metadata;
use super::matcher::StringMatcher;

impl Metadata {
    /// The value at a path in the object of `filter`; the whole object for an empty path. `None` if it is not there.
    pub fn value(&self, filter: &str, path: &[Box<str>]) -> Option<&Value> {
        path.iter().try_fold(self.0.get(filter)?, |value, key| value.as_object()?.get(&**key))
    }

    /// Puts each entry of `object` into the object of `filter`, over what has the same key.
    pub fn put(&mut self, filter: &str, object: Map<String, Value>) {
        match self.0.get_mut(filter) {
            Some(Value::Object(before)) => before.extend(object),
            _ => drop(self.0.insert(filter.to_owned(), Value::Object(object))),
        }
    }
}

/// Texts by key, of which there are few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterState(Vec<(Arc<str>, StateText)>);

impl FilterState {
    /// The text under `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.at(key).map(|text| &*text.text)
    }

    /// The text under `key`, if it may be hashed.
    pub fn hashable(&self, key: &str) -> Option<&str> {
        self.at(key).filter(|text| text.kind == StateKind::Hashable).map(|text| &*text.text)
    }

    /// What is under `key`.
    pub fn at(&self, key: &str) -> Option<&StateText> {
        self.0.iter().find(|(other, _)| **other == *key).map(|(_, text)| text)
    }

    /// Puts a text under `key`, in place of what was there.
    pub fn set(&mut self, key: &Arc<str>, text: StateText) {
        match self.0.iter_mut().find(|(other, _)| other == key) {
            Some((_, before)) => *before = text,
            None => self.0.push((Arc::clone(key), text)),
        }
    }
}

/// One text of a [`FilterState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateText {
    /// The text.
    pub text: Box<str>,
    /// What it stands for.
    pub kind: StateKind,
}

/// What a text of a [`FilterState`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    /// Itself: Envoy's `envoy.string`.
    Text,
    /// Itself, and a hash policy may ask for it: Envoy's `envoy.hashable_string`.
    Hashable,
    /// The messages of a gRPC call so far, a `grpc_stats.v3.FilterObject`.
    GrpcMessages {
        /// From the client.
        request: u64,
        /// To the client.
        response: u64,
    },
}

impl StateText {
    /// As JSON. Fields are named as Protobuf's JSON does, or, if `snake`, as they are where they were declared.
    pub fn json(&self, snake: bool) -> Value {
        let (request, response) = match self.kind {
            StateKind::Text | StateKind::Hashable => return Value::from(&*self.text),
            StateKind::GrpcMessages { request, response } => (request, response),
        };
        let names = match snake {
            true => ["request_message_count", "response_message_count"],
            false => ["requestMessageCount", "responseMessageCount"],
        };
        let fields = names.into_iter().zip([request, response]);
        // Numbers of 64 bits are texts in JSON, and those that are zero are left out.
        let fields = fields.filter(|(_, count)| *count != 0);
        fields.map(|(name, count)| (name.to_owned(), Value::from(count.to_string()))).collect()
    }
}

/// A validated `MetadataMatcher`.
#[derive(Debug, Clone)]
pub struct MetadataMatcher {
    /// Whose metadata.
    pub filter: Box<str>,
    /// Where the value stands in them; never empty.
    pub path: Box<[Box<str>]>,
    /// What it must be.
    pub value: ValueMatcher,
    /// Turns the result round.
    pub invert: bool,
}

impl MetadataMatcher {
    /// Whether the metadata have what the matcher asks for. A value that is not there matches nothing.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.value(&self.filter, &self.path));
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

/// A validated `ValueMatcher`.
#[derive(Debug, Clone)]
pub enum ValueMatcher {
    /// It is null.
    Null,
    /// It is this number.
    Number(f64),
    /// It is a number in `[start, end)`.
    Range(f64, f64),
    /// It is a text that matches.
    String(StringMatcher),
    /// It is this boolean.
    Bool(bool),
    /// It is there; with `false` the matcher matches nothing, as in Envoy.
    Present(bool),
    /// It is a list of which one element matches.
    OneOf(Box<ValueMatcher>),
    /// One of these matches.
    Or(Box<[ValueMatcher]>),
}

impl ValueMatcher {
    /// Whether a value that is there is what the matcher asks for.
    pub fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            #[allow(clippy::float_cmp)] // what the configuration asks for
            Self::Number(number) => value.as_f64() == Some(*number),
            Self::Range(start, end) => {
                value.as_f64().is_some_and(|number| (*start..*end).contains(&number))
            }
            Self::String(matcher) => {
                value.as_str().is_some_and(|text| matcher.matches(text.as_bytes()))
            }
            Self::Bool(boolean) => value.as_bool() == Some(*boolean),
            Self::Present(present) => *present,
            Self::OneOf(matcher) => value
                .as_array()
                .is_some_and(|list| list.iter().any(|element| matcher.matches(element))),
            Self::Or(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

/// A validated `FilterStateMatcher`.
#[derive(Debug, Clone)]
pub struct FilterStateMatcher {
    /// Which text.
    pub key: Box<str>,
    /// What it must be.
    pub value: StringMatcher,
}

impl FilterStateMatcher {
    /// Whether the state has what the matcher asks for. A text that is not there matches nothing.
    pub fn matches(&self, state: Option<&FilterState>) -> bool {
        let text = state.and_then(|state| state.get(&self.key));
        text.is_some_and(|text| self.value.matches(text.as_bytes()))
    }
}

/// A validated `envoy.extensions.filters.http.set_metadata.v3.Config`: what is written, in order.
#[derive(Debug, Clone, Default)]
pub struct SetMetadata(pub Box<[SetMetadataEntry]>);

/// One entry of a [`SetMetadata`].
#[derive(Debug, Clone)]
pub struct SetMetadataEntry {
    /// Whose metadata.
    pub namespace: Box<str>,
    /// Merge with what is there; otherwise what is there stays as it is.
    pub allow_overwrite: bool,
    /// What is written.
    pub value: Map<String, Value>,
}

impl SetMetadataEntry {
    /// Writes it; `false` if there is something that must not be overwritten.
    pub fn write(&self, metadata: &mut Metadata) -> bool {
        match metadata.0.get_mut(&*self.namespace) {
            Some(_) if !self.allow_overwrite => return false,
            Some(Value::Object(before)) => merge(before, &self.value),
            _ => metadata.put(&self.namespace, self.value.clone()),
        }
        true
    }
}

/// Objects are merged key by key and lists joined; of anything else, and of values of different kinds, the new one counts.
fn merge(before: &mut Map<String, Value>, new: &Map<String, Value>) {
    for (key, value) in new {
        match (before.get_mut(key), value) {
            (Some(Value::Object(before)), Value::Object(new)) => merge(before, new),
            (Some(Value::Array(before)), Value::Array(new)) => before.extend(new.iter().cloned()),
            (Some(before), new) => *before = new.clone(),
            (None, new) => drop(before.insert(key.clone(), new.clone())),
        }
    }
}

/// A validated `envoy.extensions.filters.http.set_filter_state.v3.Config`.
#[derive(Debug, Clone, Default)]
pub struct SetFilterState {
    /// What is written, in order.
    pub values: Box<[SetFilterStateValue]>,
    /// Look for the route again afterwards.
    pub clear_route_cache: bool,
}

/// One entry of a [`SetFilterState`].
#[derive(Debug, Clone)]
pub struct SetFilterStateValue {
    /// Under which key.
    pub key: Arc<str>,
    /// What is written.
    pub value: Format,
    /// As [`StateKind::Hashable`].
    pub hashable: bool,
    /// What is not known leaves no `-`.
    pub omit_empty_values: bool,
    /// Write nothing if the value comes out empty.
    pub skip_if_empty: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::matcher::StringPattern;

    fn metadata() -> Metadata {
        let Value::Object(map) =
            json!({"f": {"a": {"b": "text"}, "n": 5, "l": [1, "x"], "z": null, "t": true}})
        else {
            panic!("an object")
        };
        Metadata(map)
    }

    fn matches(path: &[&str], value: ValueMatcher, invert: bool) -> bool {
        let path = path.iter().map(|key| Box::from(*key)).collect();
        MetadataMatcher { filter: "f".into(), path, value, invert }.matches(Some(&metadata()))
    }

    fn exact(text: &str) -> ValueMatcher {
        ValueMatcher::String(StringMatcher {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        })
    }

    #[test]
    fn a_value_is_matched_by_its_kind() {
        assert!(matches(&["a", "b"], exact("text"), false));
        assert!(!matches(&["a"], exact("text"), false), "an object is no text");
        assert!(matches(&["n"], ValueMatcher::Number(5.0), false));
        assert!(matches(&["n"], ValueMatcher::Range(4.0, 5.5), false));
        assert!(!matches(&["n"], ValueMatcher::Range(4.0, 5.0), false), "the end is not in it");
        assert!(matches(&["z"], ValueMatcher::Null, false));
        assert!(matches(&["t"], ValueMatcher::Bool(true), false));
        assert!(matches(&["l"], ValueMatcher::OneOf(Box::new(exact("x"))), false));
        assert!(!matches(&["l"], ValueMatcher::OneOf(Box::new(exact("y"))), false));
        let or = ValueMatcher::Or([ValueMatcher::Null, ValueMatcher::Number(5.0)].into());
        assert!(matches(&["n"], or, false));
    }

    #[test]
    fn what_is_not_there_matches_nothing_but_an_inverted_matcher() {
        for path in [&["none"][..], &["a", "none"], &["n", "none"]] {
            for value in [ValueMatcher::Null, ValueMatcher::Present(true), exact("")] {
                assert!(!matches(path, value.clone(), false));
                assert!(matches(path, value, true));
            }
        }
        assert!(!matches(&["n"], ValueMatcher::Present(false), false));
        assert!(matches(&["n"], ValueMatcher::Present(true), false));
    }

    #[test]
    fn an_entry_is_merged_only_if_it_may_overwrite() {
        let entry = |allow_overwrite, value: Value| SetMetadataEntry {
            namespace: "f".into(),
            allow_overwrite,
            value: value.as_object().cloned().unwrap_or_default(),
        };
        let mut written = metadata();
        assert!(!entry(false, json!({"n": 6})).write(&mut written));
        assert_eq!(written, metadata());
        let new = json!({"a": {"c": 1}, "n": "six", "l": [2], "new": 1});
        assert!(entry(true, new).write(&mut written));
        let expected = json!({"a": {"b": "text", "c": 1}, "n": "six", "l": [1, "x", 2], "z": null, "t": true, "new": 1});
        assert_eq!(written.0["f"], expected);
        let mut fresh = Metadata::default();
        assert!(entry(false, json!({"n": 6})).write(&mut fresh));
        assert_eq!(fresh.0["f"], json!({"n": 6}));
    }

    #[test]
    fn filter_state_is_matched_as_text() {
        let mut state = FilterState::default();
        let text = |text: &str, hashable| {
            let kind = if hashable { StateKind::Hashable } else { StateKind::Text };
            StateText { text: text.into(), kind }
        };
        state.set(&"k".into(), text("old", true));
        assert_eq!(state.hashable("k"), Some("old"));
        state.set(&"k".into(), text("new", false));
        assert_eq!((state.get("k"), state.hashable("k")), (Some("new"), None));
        let matches = |key: &str, text: &str| {
            let ValueMatcher::String(value) = exact(text) else { return false };
            FilterStateMatcher { key: key.into(), value }.matches(Some(&state))
        };
        assert!(matches("k", "new") && !matches("k", "old"));
        assert!(!matches("other", ""), "nothing is there");
    }
}
