//! [`Problem`]: one thing that is wrong with what was given, where, and what would be right.

use super::Kind;
use serde::Serialize;
use std::fmt;

/// So many problems of one input are looked for: whoever has more is not helped by all of them.
pub const MOST: usize = 1000;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// What is wrong, as a word that stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Neither YAML nor JSON.
    Syntax,
    /// A mapping has the same key twice.
    DuplicateKey,
    /// The kind has no such field.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// A text where a number is expected, and the like.
    WrongType,
    /// Not one of the choices.
    UnknownValue,
    /// Of the right type, but not what the field takes.
    InvalidValue,
    /// What must be unique is there twice.
    Duplicate,
    /// What is referred to does not exist.
    NotFound,
    /// What is deleted or changed is used so by others.
    InUse,
    /// Part of the interface, but not of this version.
    NotSupported,
    /// Warning: two listeners want one port.
    ListenerConflict,
    /// Warning: a rule before it takes every request of this one.
    ShadowedRule,
    /// Warning: no request ever satisfies it.
    NeverMatches,
    /// Warning: the outcome is the same without it.
    NoEffect,
    /// Warning: no instance belongs to the subset.
    EmptySubset,
}

/// One thing that is wrong with what was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub code: Code,
    /// Kind of the object, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Path of the field, e.g. `spec.rules[0].backendRefs[1].weight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What the field takes, or which fields there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// Line in the input, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in the input, in characters from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl Problem {
    /// A problem about no place in particular.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            kind: None,
            name: None,
            field: None,
            reason: reason.into(),
            suggestion: None,
            choices: Vec::new(),
            line: None,
            column: None,
        }
    }

    /// About this object.
    #[must_use]
    pub fn of(mut self, kind: Kind, name: &str) -> Self {
        self.kind = Some(kind.as_str().to_owned());
        self.name = Some(name.to_owned());
        self
    }

    /// About this field.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.field = Some(path.into());
        self
    }

    /// At this place.
    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.line = position.map(|position| position.line);
        self.column = position.map(|position| position.column);
        self
    }

    /// With what would be right, and the one of it that `given` was probably meant to be.
    #[must_use]
    pub fn choices<'a>(mut self, given: &str, choices: impl IntoIterator<Item = &'a str>) -> Self {
        self.choices = choices.into_iter().map(str::to_owned).collect();
        self.suggestion = did_you_mean(given, self.choices.iter().map(String::as_str));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        match (&self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, "{kind} {name}: ")?,
            (Some(kind), None) => write!(f, "{kind}: ")?,
            _ => {}
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.reason)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

/// The choice that `given` was probably meant to be: the nearest, if it is near enough that a slip explains it.
pub fn did_you_mean<'a>(given: &str, choices: impl Iterator<Item = &'a str>) -> Option<String> {
    let given = simplified(given);
    if given.len() > 64 {
        return None;
    }
    choices
        .map(|choice| (strsim::damerau_levenshtein(&given, &simplified(choice)), choice))
        .filter(|(distance, choice)| *distance <= 1 + choice.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, choice)| choice.to_owned())
}

/// Case and word separators do not count as a difference: `leastRequest`, `LEAST_REQUEST` and `least-request` are one word.
fn simplified(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggest(given: &str, choices: &[&'static str]) -> Option<String> {
        did_you_mean(given, choices.iter().copied())
    }

    #[test]
    fn a_slip_is_recognised() {
        let policies = ["round_robin", "least_request", "random"];
        assert_eq!(suggest("leest_request", &policies).unwrap(), "least_request");
        assert_eq!(suggest("LEAST-REQUEST", &policies).unwrap(), "least_request");
        assert_eq!(suggest("rondom", &policies).unwrap(), "random");
        assert_eq!(suggest("prot", &["port", "protocol"]).unwrap(), "port");
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        assert_eq!(suggest("banana", &["port", "protocol"]), None);
        assert_eq!(suggest(&"x".repeat(100_000), &["port"]), None);
    }
}
