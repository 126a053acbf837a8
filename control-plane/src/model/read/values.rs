//! Reading of single values: texts, names, numbers, durations, choices.

use super::fields::{At, Scope};
use super::tree::Value;
use crate::model::duration;
use crate::model::object::Labels;
use crate::model::problem::{Code, Problem};
use regex::bytes::RegexBuilder;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A text.
pub(super) fn text(scope: &mut Scope, at: At<'_>) -> Option<String> {
    match &at.node.value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            scope.wrong_type(at, "a text");
            None
        }
    }
}

/// A text for which `check` finds no reason against.
pub(super) fn text_that(
    scope: &mut Scope,
    at: At<'_>,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> Option<String> {
    let text = text(scope, at)?;
    match check(&text) {
        Ok(()) => Some(text),
        Err(reason) => {
            scope.invalid(at, reason);
            None
        }
    }
}

/// A name: a DNS label (RFC 1123).
pub(super) fn name(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, check_name)
}

/// Whether `name` is a DNS label (RFC 1123): 1 to 63 lower-case letters, digits and `-`, no `-` at its ends.
///
/// # Errors
/// With the reason why not.
pub fn check_name(name: &str) -> Result<(), String> {
    if is_dns_label(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(format!(
        "`{shown}` is not a name: 1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends"
    ))
}

fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether `name` is a host name without port: DNS labels, joined by dots, 253 characters in all.
pub(super) fn is_host_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// A host name without port, or with `*.` before it, or (if `any`) `*`.
pub(super) fn host_pattern(scope: &mut Scope, at: At<'_>, any: bool) -> Option<String> {
    text_that(scope, at, |host| {
        if host == "*" && !any {
            return Err("`*` needs a Gateway: inside the mesh, name the hosts".to_owned());
        }
        if host == "*" || is_host_name(host.strip_prefix("*.").unwrap_or(host)) {
            return Ok(());
        }
        Err(format!(
            "`{host}` is not a host: lower-case DNS name without port, perhaps with `*.` before it"
        ))
    })
}

/// A host name without port.
pub(super) fn host_name(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |host| {
        if is_host_name(host) {
            return Ok(());
        }
        Err(format!("`{host}` is not a host name: a lower-case DNS name without port"))
    })
}

/// A whole number.
pub(super) fn number(scope: &mut Scope, at: At<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let Value::Number(text) = &at.node.value else {
        scope.wrong_type(at, "a number");
        return None;
    };
    match text.parse() {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let reason =
                format!("`{text}` is not a whole number from {} to {}", range.start(), range.end());
            scope.invalid(at, reason);
            None
        }
    }
}

/// A port, 1 to 65535.
pub(super) fn port(scope: &mut Scope, at: At<'_>) -> Option<u16> {
    number(scope, at, 1..=65535).and_then(|port| u16::try_from(port).ok())
}

/// True or false.
pub(super) fn boolean(scope: &mut Scope, at: At<'_>) -> Option<bool> {
    match &at.node.value {
        Value::Bool(value) => Some(*value),
        _ => {
            scope.wrong_type(at, "true or false");
            None
        }
    }
}

/// A duration of at least `least`.
pub(super) fn duration_from(scope: &mut Scope, at: At<'_>, least: Duration) -> Option<Duration> {
    let text = match &at.node.value {
        Value::Text(text) => text,
        Value::Number(number) => {
            let reason = format!(
                "`{number}` has no unit: a duration is written like `500ms`, `30s` or `5m`"
            );
            scope.invalid(at, reason);
            return None;
        }
        _ => {
            scope.wrong_type(at, "a duration");
            return None;
        }
    };
    match duration::parse(text) {
        Ok(value) if value >= least => Some(value),
        Ok(_) => {
            scope.invalid(at, format!("`{text}` is less than {}", duration::format(least)));
            None
        }
        Err(reason) => {
            scope.invalid(at, reason);
            None
        }
    }
}

/// A duration, zero allowed.
pub(super) fn duration(scope: &mut Scope, at: At<'_>) -> Option<Duration> {
    duration_from(scope, at, Duration::ZERO)
}

/// A duration of a millisecond or more.
pub(super) fn positive_duration(scope: &mut Scope, at: At<'_>) -> Option<Duration> {
    duration_from(scope, at, Duration::from_millis(1))
}

/// One of some words. Those of `later` belong to the interface, but not to this version.
pub(super) fn choice<T: Copy>(
    scope: &mut Scope,
    at: At<'_>,
    choices: &[(&str, T)],
    later: &[&str],
) -> Option<T> {
    let text = text(scope, at)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words = choices.iter().map(|(word, _)| *word);
    let problem = if later.contains(&text.as_str()) {
        let mut problem =
            Problem::new(Code::NotSupported, format!("`{text}` is not supported by this version"))
                .choices(&text, words);
        problem.suggestion = None;
        problem
    } else {
        Problem::new(Code::UnknownValue, format!("`{text}` is none of the choices"))
            .choices(&text, words)
    };
    scope.problem(problem, at.path, at.node.at);
    None
}

/// Labels: names and values of up to 63 letters, digits, `-`, `_` and `.` (a name may have a prefix and `/`).
pub(super) fn labels(scope: &mut Scope, at: At<'_>) -> Option<Labels> {
    let Value::Map(entries) = &at.node.value else {
        scope.wrong_type(at, "a mapping");
        return None;
    };
    let mut labels = Labels::new();
    for entry in entries {
        let path = format!("{}.{}", at.path, entry.key);
        let value_at = At { node: &entry.node, path: &path };
        if !is_label_name(&entry.key) {
            let reason = format!(
                "`{}` is not a label name: up to 63 letters, digits, `-`, `_` and `.`, perhaps with a DNS name and `/` before",
                entry.key
            );
            scope.invalid(value_at, reason);
        }
        let value = text_that(scope, value_at, |value| {
            if value.is_empty() || is_label_part(value) {
                return Ok(());
            }
            Err(format!(
                "`{value}` is not a label value: up to 63 letters, digits, `-`, `_` and `.`"
            ))
        });
        if let Some(value) = value {
            labels.insert(entry.key.clone(), value);
        }
    }
    Some(labels)
}

fn is_label_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, name)) => is_host_name(prefix) && is_label_part(name),
        None => is_label_part(name),
    }
}

fn is_label_part(part: &str) -> bool {
    (1..=63).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Most bytes of a compiled regular expression; the sidecar's limit.
const MOST_REGEX_BYTES: usize = 1 << 20;

/// Longest path, pattern or value of a match; the Gateway API's limit is 1024 for paths and 4096 for headers.
const MAX_TEXT: usize = 1024;

/// An HTTP path: begins with `/`, visible ASCII without `?` and `#`.
pub(super) fn path(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |path| {
        if !path.starts_with('/') {
            return Err(format!("`{path}` does not begin with `/`"));
        }
        if path.len() > MAX_TEXT {
            return Err(format!("longer than {MAX_TEXT} bytes"));
        }
        if path.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#')) {
            return Err("a path is visible ASCII without `?` and `#`".to_owned());
        }
        Ok(())
    })
}

/// A regular expression (RE2 syntax).
pub(super) fn regular_expression(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |pattern| {
        if pattern.is_empty() || pattern.len() > MAX_TEXT {
            return Err(format!("a regular expression has 1 to {MAX_TEXT} bytes"));
        }
        // As the sidecar compiles it: by RE2's rules, with Unicode only where the pattern needs it. But without the anchors
        // that it gets there: `a)|(b` must not become valid by them.
        let compile = |unicode| {
            RegexBuilder::new(pattern).unicode(unicode).size_limit(MOST_REGEX_BYTES).build()
        };
        match compile(false).or_else(|_| compile(true)) {
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err("this regular expression is too large when compiled".to_owned())
            }
            // The last line of the error says what is wrong, the others draw an arrow.
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Err(format!("not a regular expression: {reason}"))
            }
        }
    })
}

/// Whether `text` is a token of RFC 9110: a header name, a method.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A header name, in lower case.
pub(super) fn header_name(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |name| {
        if is_token(name) {
            return Ok(());
        }
        Err(format!("`{name}` is not a header name"))
    })
    .map(|name| name.to_ascii_lowercase())
}

/// A header value: visible ASCII, spaces and tabs inside.
pub(super) fn header_value(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |value| {
        let fine = value.len() <= 4096
            && value.bytes().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t'))
            && value.trim() == value;
        if fine {
            return Ok(());
        }
        Err("a header value is up to 4096 bytes of visible ASCII, with spaces only inside"
            .to_owned())
    })
}

/// A method, in upper case.
pub(super) fn method(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |method| {
        if is_token(method) && !method.bytes().any(|b| b.is_ascii_lowercase()) {
            return Ok(());
        }
        Err(format!("`{method}` is not a method: methods are upper-case, like `GET`"))
    })
}

/// The name of a query parameter.
pub(super) fn query_name(scope: &mut Scope, at: At<'_>) -> Option<String> {
    text_that(scope, at, |name| {
        if !name.is_empty() && name.len() <= 256 && name.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(());
        }
        Err("a query parameter's name is 1 to 256 bytes of visible ASCII".to_owned())
    })
}
