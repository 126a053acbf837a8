//! Lines of text.

use super::operator::{Value, append_plain, push_number, value};
use super::record::LogRecord;
use crate::config::access_log::{Command, Format, FormatPart};

/// Appends `format` filled in from `record`, with `missing` for what is not known: `-` in a log. The values of header
/// additions with commands are made by this too, and leave it out (`b""`).
pub(crate) fn render(format: &Format, record: &LogRecord<'_>, missing: &[u8], out: &mut Vec<u8>) {
    for part in &format.parts {
        match part {
            FormatPart::Literal(text) => out.extend_from_slice(text.as_bytes()),
            FormatPart::Command(command) => push(command, record, missing, out),
        }
    }
}

fn push(command: &Command, record: &LogRecord<'_>, missing: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if !append_plain(&command.operator, record, out) {
        match value(&command.operator, record) {
            Value::Missing => out.extend_from_slice(missing),
            Value::Text(text) => out.extend_from_slice(text),
            Value::Number(number) => push_number(out, number),
            Value::Owned(text) => out.extend_from_slice(&text),
            Value::Json(serde_json::Value::String(text), false) => {
                out.extend_from_slice(text.as_bytes());
            }
            Value::State(state) => {
                out.extend_from_slice(state.json(false).to_string().as_bytes());
            }
            Value::Json(value, _) => out.extend_from_slice(value.to_string().as_bytes()),
        }
    }
    if let Some(length) = command.max_length {
        out.truncate(start.saturating_add(length).min(out.len()));
    }
}
