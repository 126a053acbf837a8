//! Matchers on strings, headers and query parameters, compiled once.

use http::HeaderName;
use regex::bytes::Regex;

/// Envoy's `StringMatcher`. Works on bytes: a value that is not UTF-8 can be matched, and never fails open.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    /// What to compare with.
    pub pattern: StringPattern,
    /// Compare ASCII letters without case. Does not apply to a regex.
    pub ignore_case: bool,
}

/// The kinds of [`StringMatcher`].
#[derive(Debug, Clone)]
pub enum StringPattern {
    /// The whole value.
    Exact(Box<str>),
    /// Its beginning; never empty.
    Prefix(Box<str>),
    /// Its end; never empty.
    Suffix(Box<str>),
    /// A part of it; never empty.
    Contains(Box<str>),
    /// The whole value, anchored at both ends.
    Regex(Regex),
}

/// Envoy's `HeaderMatcher`.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    /// Header to look at. `:method`, `:path`, `:authority` and `:scheme` name parts of the request.
    pub name: MatchedHeader,
    /// What its value must be.
    pub value: HeaderValueMatcher,
    /// Turns the result round.
    pub invert: bool,
    /// A missing header counts as an empty one.
    pub treat_missing_as_empty: bool,
}

/// The header or request part that a [`HeaderMatcher`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchedHeader {
    /// An ordinary header. Of several lines one has to match alone, as in Envoy 1.40.
    Header(HeaderName),
    /// `:method`.
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`, the `Host` of HTTP/1.
    Authority,
    /// `:scheme`.
    Scheme,
}

/// What a header's value must be.
#[derive(Debug, Clone)]
pub enum HeaderValueMatcher {
    /// The header is there (`true`), or is not (`false`).
    Present(bool),
    /// A match on the text.
    String(StringMatcher),
    /// A whole decimal number in `[start, end)`.
    Range {
        /// First number that matches.
        start: i64,
        /// First number that no longer matches.
        end: i64,
    },
}

/// Envoy's `QueryParameterMatcher`.
#[derive(Debug, Clone)]
pub struct QueryParameterMatcher {
    /// Name of the parameter, compared as it stands in the URL.
    pub name: Box<str>,
    /// What its first value must be.
    pub value: QueryValueMatcher,
}

/// What a query parameter must be.
#[derive(Debug, Clone)]
pub enum QueryValueMatcher {
    /// It is there (`true`), or is not (`false`).
    Present(bool),
    /// A match on its text.
    String(StringMatcher),
}

/// Envoy's `PathMatcher`, for RBAC: the path without the query.
pub type PathMatcher = StringMatcher;

impl StringMatcher {
    /// Whether `value` is what the matcher asks for.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.pattern {
            StringPattern::Exact(text) => self.equal(value, text.as_bytes()),
            StringPattern::Prefix(text) => {
                value.get(..text.len()).is_some_and(|head| self.equal(head, text.as_bytes()))
            }
            StringPattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|tail| self.equal(tail, text.as_bytes())),
            StringPattern::Contains(text) => {
                value.windows(text.len()).any(|window| self.equal(window, text.as_bytes()))
            }
            StringPattern::Regex(regex) => regex.is_match(value),
        }
    }

    fn equal(&self, value: &[u8], text: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(text) } else { value == text }
    }
}
