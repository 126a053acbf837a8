//! Walking a tree with a path in hand: [`Scope`] collects the problems of one object, [`Fields`] reads one mapping.

use super::tree::{Entry, Node, Value};
use crate::model::Kind;
use crate::model::problem::{Code, MOST, Position, Problem};

/// What is being read, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) problems: Vec<Problem>,
    /// The kind and name that were settled before the document was read.
    pub(super) expected: Option<(Kind, String)>,
}

/// A value and the path to it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: &'a str,
}

impl Scope {
    /// Whether there are as many problems as anybody wants to read.
    pub(super) fn full(&self) -> bool {
        self.problems.len() >= MOST
    }

    /// Adds a problem about `path`.
    pub(super) fn problem(&mut self, problem: Problem, path: &str, position: Position) {
        if self.full() {
            return;
        }
        let mut problem = problem.at(Some(position));
        problem.kind.clone_from(&self.kind);
        problem.name.clone_from(&self.name);
        if !path.is_empty() {
            problem.field = Some(path.to_owned());
        }
        self.problems.push(problem);
    }

    /// The value is not what the field takes.
    pub(super) fn invalid(&mut self, at: At<'_>, reason: impl Into<String>) {
        self.problem(Problem::new(Code::InvalidValue, reason), at.path, at.node.at);
    }

    /// What this is part of is not in this version.
    pub(super) fn not_supported(&mut self, at: At<'_>, what: &str) {
        let reason = format!("{what} is not supported by this version");
        self.problem(Problem::new(Code::NotSupported, reason), at.path, at.node.at);
    }

    /// The value is of another type than `expected` (with its article).
    pub(super) fn wrong_type(&mut self, at: At<'_>, expected: &str) {
        let mut reason = format!("expected {expected}, this is {}", at.node.describe());
        if expected == "a text" && matches!(at.node.value, Value::Number(_) | Value::Bool(_)) {
            reason.push_str(": put it in quotes");
        }
        self.problem(Problem::new(Code::WrongType, reason), at.path, at.node.at);
    }

    /// The items of a list, each read by `item`. What is no list has none.
    pub(super) fn list<T>(
        &mut self,
        at: At<'_>,
        mut item: impl FnMut(&mut Self, At<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Value::List(nodes) = &at.node.value else {
            self.wrong_type(at, "a list");
            return Vec::new();
        };
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            if self.full() {
                break;
            }
            let path = format!("{}[{index}]", at.path);
            items.extend(item(self, At { node, path: &path }));
        }
        items
    }

    /// As [`Self::list`]; an empty list is a problem.
    pub(super) fn list_of_some<T>(
        &mut self,
        at: At<'_>,
        item: impl FnMut(&mut Self, At<'_>) -> Option<T>,
    ) -> Vec<T> {
        if matches!(&at.node.value, Value::List(nodes) if nodes.is_empty()) {
            self.invalid(at, "at least one is needed");
        }
        self.list(at, item)
    }

    /// Reads a mapping; `read` asks for the fields there are, what it did not ask for is unknown.
    pub(super) fn mapping<T>(
        &mut self,
        at: At<'_>,
        read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let Value::Map(entries) = &at.node.value else {
            self.wrong_type(at, "a mapping");
            return None;
        };
        let mut fields = Fields { scope: self, at, entries, known: Vec::new() };
        let value = read(&mut fields);
        fields.refuse_unknown();
        value
    }

    /// Two of `names` are the same.
    pub(super) fn refuse_duplicates<'a>(
        &mut self,
        at: At<'_>,
        key: &str,
        names: impl Iterator<Item = &'a str>,
    ) {
        let mut seen = std::collections::HashSet::new();
        for (index, name) in names.enumerate() {
            if !seen.insert(name) {
                let path = match key {
                    "" => format!("{}[{index}]", at.path),
                    key => format!("{}[{index}].{key}", at.path),
                };
                let position = at.node.position_of(&format!("[{index}].{key}"));
                let problem = Problem::new(Code::Duplicate, format!("`{name}` is there twice"));
                self.problem(problem, &path, position);
            }
        }
    }
}

/// The fields of one mapping.
pub(super) struct Fields<'s, 'n> {
    pub(super) scope: &'s mut Scope,
    /// The mapping itself.
    pub(super) at: At<'n>,
    entries: &'n [Entry],
    known: Vec<&'static str>,
}

impl Fields<'_, '_> {
    /// The field `key`, read by `read`, if it is there. An empty value (`key:`) is as if it were not.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Scope, At<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if entry.node.value == Value::Null {
            return None;
        }
        let path = self.path_of(key);
        read(self.scope, At { node: &entry.node, path: &path })
    }

    /// The field `key`, which must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Scope, At<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key, "this field is required");
        }
        self.optional(key, read)
    }

    /// Whether the field is there with a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.node.value != Value::Null)
    }

    /// `key` is missing, because of `reason`.
    pub(super) fn missing(&mut self, key: &str, reason: &str) {
        let path = self.path_of(key);
        self.scope.problem(Problem::new(Code::MissingField, reason), &path, self.at.node.at);
    }

    /// Fields of the interface that this version does not know what to do with: refused, never ignored.
    pub(super) fn not_supported(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.optional(key, |scope, at| -> Option<()> {
                scope.not_supported(at, &format!("`{key}`"));
                None
            });
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.at.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at.path) }
    }

    fn refuse_unknown(&mut self) {
        for entry in self.entries {
            if self.scope.full() {
                break;
            }
            if !self.known.contains(&entry.key.as_str()) {
                let problem = Problem::new(
                    Code::UnknownField,
                    format!("there is no field `{}` here", entry.key),
                )
                .choices(&entry.key, self.known.iter().copied());
                let path = self.path_of(&entry.key);
                self.scope.problem(problem, &path, entry.key_at);
            }
        }
    }
}
