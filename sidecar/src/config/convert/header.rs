//! Additions and removals of headers.

use http::HeaderName;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use crate::config::Problems;
use crate::config::access_log::FormatPart;
use crate::config::header::{AppendAction, HeaderAddition, HeaderMutations, HeaderTemplate};

use super::common::{enumeration, header_name, header_value, required, unsupported};
use super::format;

/// Envoy's limit for names and values.
const MAX_BYTES: usize = 16_384;

/// Envoy's limit for the additions at one level.
const MAX_ADDITIONS: usize = 1_000;

/// The four fields `request_headers_to_add`, `request_headers_to_remove` and so on; `side` is `request` or `response`.
pub(super) fn mutations(
    problems: &mut Problems,
    side: &str,
    add: Vec<core::HeaderValueOption>,
    remove: Vec<String>,
) -> HeaderMutations {
    let HeaderMutations { add, .. } = additions(problems, &format!("{side}_headers_to_add"), add);
    let to_remove = format!("{side}_headers_to_remove");
    let remove = remove
        .into_iter()
        .enumerate()
        .filter_map(|(index, name)| {
            problems.element(&to_remove, index, |problems| removal(problems, &name))
        })
        .collect();
    HeaderMutations { add, remove }
}

/// Additions alone, in the field `name`.
pub(super) fn additions(
    problems: &mut Problems,
    name: &str,
    add: Vec<core::HeaderValueOption>,
) -> HeaderMutations {
    if add.len() > MAX_ADDITIONS {
        problems.reject_field(name, format!("more than {MAX_ADDITIONS} headers"));
    }
    let add = add
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| addition(problems, proto))
        })
        .collect();
    HeaderMutations { add, remove: Box::default() }
}

/// The name of a header that may be removed.
pub(super) fn removal(problems: &mut Problems, name: &str) -> Option<HeaderName> {
    if is_protected(name) {
        problems.reject("headers that start with ':' and host cannot be removed");
        return None;
    }
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        problems.reject(format!("{name:?} is not a valid header name"));
    }
    parsed
}

/// They carry the request line: routes rewrite them by fields of their own.
fn is_protected(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

/// One addition.
pub(super) fn addition(
    problems: &mut Problems,
    proto: core::HeaderValueOption,
) -> Option<HeaderAddition> {
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = proto;
    let action = action(problems, append.map(|append| append.value), append_action);
    let header = required(problems, "header", header)?;
    let (name, value) = problems.field("header", |problems| {
        let core::HeaderValue { key, value, raw_value } = header;
        // Envoy itself never adds it: only `value` is formatted and added.
        unsupported!(problems; raw_value);
        if key.len() > MAX_BYTES || value.len() > MAX_BYTES {
            problems.reject(format!("longer than {MAX_BYTES} bytes"));
        }
        if is_protected(&key) {
            problems.reject_field("key", "headers that start with ':' and host cannot be added");
            return None;
        }
        let name = header_name(problems, "key", &key);
        let value = template(problems, &value);
        name.zip(value)
    })?;
    Some(HeaderAddition { name, value, action: action?, keep_empty_value })
}

fn action(
    problems: &mut Problems,
    append: Option<bool>,
    append_action: i32,
) -> Option<AppendAction> {
    let action = enumeration(problems, "append_action", append_action)?;
    // `append` is the deprecated way to say it; unset, it says nothing.
    match (append, action) {
        (Some(_), action) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
            problems.reject_field("append", "cannot be set together with append_action");
            None
        }
        (Some(false), _) => Some(AppendAction::OverwriteIfExistsOrAdd),
        (_, HeaderAppendAction::AppendIfExistsOrAdd) => Some(AppendAction::AppendIfExistsOrAdd),
        (_, HeaderAppendAction::AddIfAbsent) => Some(AppendAction::AddIfAbsent),
        (_, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
            Some(AppendAction::OverwriteIfExistsOrAdd)
        }
        (_, HeaderAppendAction::OverwriteIfExists) => Some(AppendAction::OverwriteIfExists),
    }
}

fn template(problems: &mut Problems, value: &str) -> Option<HeaderTemplate> {
    // Also of what surrounds command operators: no line break may come out of a template.
    header_value(problems, "value", value.as_bytes())?;
    let format = match format::parse(value) {
        Ok(format) => format,
        Err(reason) => {
            problems.reject_field("value", reason);
            return None;
        }
    };
    match &*format.parts {
        [] => header_value(problems, "value", b"").map(HeaderTemplate::Fixed),
        [FormatPart::Literal(text)] => {
            header_value(problems, "value", text.as_bytes()).map(HeaderTemplate::Fixed)
        }
        _ => Some(HeaderTemplate::Format(format)),
    }
}
