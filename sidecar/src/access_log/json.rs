//! Lines of JSON.
//!
//! The format is compiled once: what does not depend on the request is one literal after the other, keys sorted and
//! everything escaped; only values are left to fill in.

use serde_json::Value as JsonValue;

use super::operator::{Value, append_plain, push_number, value};
use super::record::LogRecord;
use super::text;
use crate::config::access_log::{Command, Format, FormatPart, JsonFormat};

/// A compiled format.
#[derive(Debug, Clone)]
pub(crate) struct Compiled(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    /// Copied.
    Literal(Vec<u8>),
    /// A value with its type: a number stays one, what is not known is `null`.
    Typed(Command),
    /// A string with commands in it; what is not known is `-`.
    Text(Format),
}

impl Compiled {
    pub(super) fn new(format: &JsonFormat) -> Self {
        let mut compiled = Self(Vec::new());
        compiled.add(format);
        compiled.literal(b"\n");
        compiled
    }

    /// Appends a line.
    pub(super) fn render(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Typed(command) => typed(command, record, out),
                Piece::Text(format) => {
                    // Nothing to escape is the usual case, in which nothing is copied either.
                    out.push(b'"');
                    let start = out.len();
                    text::render(format, record, b"-", out);
                    if out.iter().skip(start).all(|&byte| is_plain(byte)) {
                        out.push(b'"');
                    } else {
                        let value = out.split_off(start);
                        out.pop();
                        string(&value, out);
                    }
                }
            }
        }
    }

    fn literal(&mut self, text: &[u8]) {
        match self.0.last_mut() {
            Some(Piece::Literal(before)) => before.extend_from_slice(text),
            _ => self.0.push(Piece::Literal(text.to_vec())),
        }
    }

    fn add(&mut self, format: &JsonFormat) {
        match format {
            JsonFormat::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                self.literal(b"{");
                for (at, (key, field)) in fields.into_iter().enumerate() {
                    if at > 0 {
                        self.literal(b",");
                    }
                    let mut quoted = Vec::new();
                    string(key.as_bytes(), &mut quoted);
                    quoted.push(b':');
                    self.literal(&quoted);
                    self.add(field);
                }
                self.literal(b"}");
            }
            JsonFormat::List(items) => {
                self.literal(b"[");
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.literal(b",");
                    }
                    self.add(item);
                }
                self.literal(b"]");
            }
            JsonFormat::Value(format) => self.value(format),
            JsonFormat::Fixed(fixed) => self.fixed(fixed),
        }
    }

    fn value(&mut self, format: &Format) {
        match &*format.parts {
            [FormatPart::Command(command)] => self.0.push(Piece::Typed(command.clone())),
            parts if parts.iter().all(|part| matches!(part, FormatPart::Literal(_))) => {
                let mut text = Vec::new();
                for part in parts {
                    if let FormatPart::Literal(literal) = part {
                        text.extend_from_slice(literal.as_bytes());
                    }
                }
                let mut quoted = Vec::new();
                string(&text, &mut quoted);
                self.literal(&quoted);
            }
            _ => self.0.push(Piece::Text(format.clone())),
        }
    }

    fn fixed(&mut self, fixed: &JsonValue) {
        match fixed {
            JsonValue::String(text) => {
                let mut quoted = Vec::new();
                string(text.as_bytes(), &mut quoted);
                self.literal(&quoted);
            }
            JsonValue::Number(number) => self.literal(fixed_number(number).as_bytes()),
            other => self.literal(other.to_string().as_bytes()),
        }
    }
}

/// Appends a line without what has no value (`omit_empty_values`): neither its key nor what holds nothing else.
pub(super) fn sparse(format: &JsonFormat, record: &LogRecord<'_>, out: &mut Vec<u8>) {
    if !append_sparse(format, record, out) {
        out.extend_from_slice(b"{}");
    }
    out.push(b'\n');
}

/// `false`: there was nothing to append.
fn append_sparse(format: &JsonFormat, record: &LogRecord<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match format {
        JsonFormat::Object(fields) => {
            out.push(b'{');
            for (key, field) in fields {
                let before = out.len();
                if before > start + 1 {
                    out.push(b',');
                }
                string(key.as_bytes(), out);
                out.push(b':');
                if !append_sparse(field, record, out) {
                    out.truncate(before);
                }
            }
            out.push(b'}');
        }
        JsonFormat::List(items) => {
            out.push(b'[');
            for item in items {
                let before = out.len();
                if before > start + 1 {
                    out.push(b',');
                }
                if !append_sparse(item, record, out) {
                    out.truncate(before);
                }
            }
            out.push(b']');
        }
        JsonFormat::Value(format) => match &*format.parts {
            [FormatPart::Command(command)] => {
                if matches!(value(&command.operator, record), Value::Missing) {
                    return false;
                }
                typed(command, record, out);
            }
            _ => {
                let mut text = Vec::new();
                text::render(format, record, b"", &mut text);
                string(&text, out);
            }
        },
        JsonFormat::Fixed(JsonValue::Null) => return false,
        JsonFormat::Fixed(JsonValue::String(text)) => string(text.as_bytes(), out),
        JsonFormat::Fixed(JsonValue::Number(number)) => {
            out.extend_from_slice(fixed_number(number).as_bytes());
        }
        JsonFormat::Fixed(other) => out.extend_from_slice(other.to_string().as_bytes()),
    }
    // An object or list of which nothing is left is left out as well.
    if out.len() == start + 2 && matches!(format, JsonFormat::Object(_) | JsonFormat::List(_)) {
        out.truncate(start);
        return false;
    }
    true
}

/// A number of the configuration, whose numbers are all floating point: a whole one is printed without a fraction, and an
/// exponent with its sign.
fn fixed_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        _ => match number.to_string() {
            text if text.contains("e-") || text.contains("e+") => text,
            text => text.replace('e', "e+"),
        },
    }
}

/// Appends a value with its type.
fn typed(command: &Command, record: &LogRecord<'_>, out: &mut Vec<u8>) {
    let limit = |text: &[u8], out: &mut Vec<u8>| {
        let length = command.max_length.unwrap_or(usize::MAX).min(text.len());
        string(text.get(..length).unwrap_or_default(), out);
    };
    if command.max_length.is_none() {
        let start = out.len();
        out.push(b'"');
        if append_plain(&command.operator, record, out) {
            out.push(b'"');
            return;
        }
        out.truncate(start);
    }
    match value(&command.operator, record) {
        Value::Missing => out.extend_from_slice(b"null"),
        Value::Text(text) => limit(text, out),
        Value::Owned(text) => limit(&text, out),
        Value::Number(number) => push_number(out, number),
        Value::State(state) => match state.json(true) {
            JsonValue::String(text) => limit(text.as_bytes(), out),
            value => out.extend_from_slice(value.to_string().as_bytes()),
        },
        Value::Json(JsonValue::String(text), _) => limit(text.as_bytes(), out),
        Value::Json(value, _) => out.extend_from_slice(value.to_string().as_bytes()),
    }
}

/// Appends a JSON string. Control characters are escaped, so that a header's value can never end the line. A value that is
/// not UTF-8 is escaped byte by byte, as in Envoy: what it was can still be told.
fn string(text: &[u8], out: &mut Vec<u8>) {
    if text.iter().all(|&byte| is_plain(byte)) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    let is_text = std::str::from_utf8(text).is_ok();
    out.push(b'"');
    for &byte in text {
        match byte {
            0x80..=0xff if is_text => out.push(byte),
            byte if is_plain(byte) => out.push(byte),
            b'"' if is_text => out.extend_from_slice(b"\\\""),
            b'\\' if is_text => out.extend_from_slice(b"\\\\"),
            b'\n' if is_text => out.extend_from_slice(b"\\n"),
            b'\r' if is_text => out.extend_from_slice(b"\\r"),
            b'\t' if is_text => out.extend_from_slice(b"\\t"),
            0x08 if is_text => out.extend_from_slice(b"\\b"),
            0x0c if is_text => out.extend_from_slice(b"\\f"),
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.push(b'"');
}

/// Whether a byte stands for itself in a JSON string, whatever is around it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}
