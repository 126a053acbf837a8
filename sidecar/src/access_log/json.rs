//! Lines of JSON.
//!
//! The format is compiled once: what does not depend on the request is one literal after the other, keys sorted and
//! everything escaped; only values are left to fill in.

use serde_json::Value as JsonValue;

use super::operator::{Value, push_number, value};
use super::record::LogRecord;
use super::text;
use crate::config::access_log::{Command, Format, FormatPart, JsonFormat};

/// A compiled format.
#[derive(Debug, Clone)]
pub(super) struct Compiled(Vec<Piece>);

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
                    let mut value = Vec::with_capacity(64);
                    text::render(format, record, b"-", &mut value);
                    string(&value, out);
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
            other => self.literal(other.to_string().as_bytes()),
        }
    }
}

/// Appends a value with its type.
fn typed(command: &Command, record: &LogRecord<'_>, out: &mut Vec<u8>) {
    let limit = |text: &[u8], out: &mut Vec<u8>| {
        let length = command.max_length.unwrap_or(usize::MAX).min(text.len());
        string(text.get(..length).unwrap_or_default(), out);
    };
    match value(&command.operator, record) {
        Value::Missing => out.extend_from_slice(b"null"),
        Value::Text(text) => limit(text, out),
        Value::Owned(text) => limit(&text, out),
        Value::Number(number) => push_number(out, number),
    }
}

/// Appends a JSON string. Control characters are escaped, so that a header's value can never end the line.
fn string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(text) => {
            for &byte in text.as_bytes() {
                match byte {
                    b'"' => out.extend_from_slice(b"\\\""),
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b'\t' => out.extend_from_slice(b"\\t"),
                    0x08 => out.extend_from_slice(b"\\b"),
                    0x0c => out.extend_from_slice(b"\\f"),
                    0..0x20 | 0x7f => {
                        out.extend_from_slice(b"\\u00");
                        out.push(HEX[usize::from(byte >> 4)]);
                        out.push(HEX[usize::from(byte & 15)]);
                    }
                    _ => out.push(byte),
                }
            }
        }
        Err(_) => {
            let text = String::from_utf8_lossy(text);
            out.pop();
            string(text.as_bytes(), out);
            return;
        }
    }
    out.push(b'"');
}
