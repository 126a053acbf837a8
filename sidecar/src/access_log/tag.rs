//! Values of custom tags, which spans and the entries of gRPC logs have.

use serde_json::Value;

use super::record::LogRecord;
use super::text::render;
use crate::config::access_log::Format;
use crate::config::tracing::{TagMetadata, TagValue};

/// The value of a tag; `None`: there is none, and so no tag.
pub(crate) fn tag_value(value: &TagValue, record: &LogRecord<'_>) -> Option<String> {
    let or_else = |default: &Option<Box<str>>| default.as_ref().map(|value| value.to_string());
    let filled = |format| Some(filled(format, record)).filter(|text| !text.is_empty());
    match value {
        TagValue::Fixed(value) => or_else(value),
        TagValue::RequestHeader(name, default) => {
            let value = record.request_headers.get(name);
            let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            value.or_else(|| or_else(default))
        }
        TagValue::Format(format) => filled(format),
        TagValue::Metadata(TagMetadata::Format(format), default) => {
            filled(format).or_else(|| or_else(default))
        }
        TagValue::Metadata(TagMetadata::Route(namespace, path), default) => {
            let value = record.route_metadata.and_then(|it| it.value(namespace, path));
            let value = match value {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(value) => Some(value.to_string()),
            };
            value.or_else(|| or_else(default))
        }
    }
}

/// A format with its values; what is not known leaves no trace.
pub(crate) fn filled(format: &Format, record: &LogRecord<'_>) -> String {
    let mut text = Vec::new();
    render(format, record, b"", &mut text);
    String::from_utf8(text)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
