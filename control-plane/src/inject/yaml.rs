//! YAML as it is taken from one file and written into another: what a value *is*, and whether it was written plain.
//!
//! Compose files are read by parsers of two versions of YAML, to which a plain `yes` or `0444` means different things. A
//! scalar that was plain stays as it was, so that whoever reads it next takes it as before.

use crate::model::problem::Position;
use crate::model::read::tree::{Node, Value};

/// Longest list that is written in one line, in characters.
const LINE: usize = 90;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Yaml {
    pub(super) value: Content,
    /// Where it stands in the file that is injected; `None` for what was made here or came from another file.
    pub(super) at: Option<Position>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    /// A scalar that means what its reader makes of it: numbers, `true`, most texts.
    Plain(String),
    /// A text, whatever it looks like.
    Quoted(String),
    List(Vec<Yaml>),
    Map(Vec<Field>),
}

/// A key and its value. Keys are unique.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) at: Option<Position>,
    pub(super) value: Yaml,
}

impl From<Content> for Yaml {
    fn from(value: Content) -> Self {
        Self { value, at: None }
    }
}

/// A text, plain if that is safe in every version of YAML.
pub(super) fn text(text: impl Into<String>) -> Yaml {
    let text = text.into();
    let plain = is_safe(&text);
    Yaml::from(if plain { Content::Plain(text) } else { Content::Quoted(text) })
}

/// A list of texts.
pub(super) fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Yaml {
    Yaml::from(Content::List(items.into_iter().map(text).collect()))
}

/// A mapping.
pub(super) fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Yaml)>) -> Yaml {
    Yaml::from(Content::Map(fields.into_iter().map(|(key, value)| field(key, value)).collect()))
}

/// A key and its value.
pub(super) fn field(key: &str, value: Yaml) -> Field {
    Field { key: key.to_owned(), at: None, value }
}

impl Yaml {
    /// The tree of `source` with its merge keys (`<<`) resolved. Without `places`, as from another file.
    pub(super) fn of(node: &Node, source: &Lines<'_>, places: bool) -> Self {
        let at = places.then_some(node.at);
        let value = match &node.value {
            Value::Null => Content::Null,
            Value::Bool(_) | Value::Number(_) | Value::Text(_) => scalar(node, source),
            Value::List(items) => {
                Content::List(items.iter().map(|item| Self::of(item, source, places)).collect())
            }
            Value::Map(_) => Content::Map(fields(node, source, places)),
        };
        Self { value, at }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.fields().iter().find(|field| field.key == key).map(|field| &field.value)
    }

    /// The fields; of anything but a mapping, none.
    pub(super) fn fields(&self) -> &[Field] {
        match &self.value {
            Content::Map(fields) => fields,
            _ => &[],
        }
    }

    /// The items; of anything but a list, none.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The scalar as it was written, without quotes.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Content::Plain(text) | Content::Quoted(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar, or the scalars of a list.
    pub(super) fn as_texts(&self) -> Vec<&str> {
        match &self.value {
            Content::List(items) => items.iter().filter_map(Self::as_text).collect(),
            _ => self.as_text().into_iter().collect(),
        }
    }
}

fn fields(node: &Node, source: &Lines<'_>, places: bool) -> Vec<Field> {
    let Value::Map(entries) = &node.value else { return Vec::new() };
    let mut fields: Vec<Field> = Vec::with_capacity(entries.len());
    for entry in entries.iter().filter(|entry| entry.key != "<<") {
        fields.push(Field {
            key: entry.key.clone(),
            at: places.then_some(entry.key_at),
            value: Yaml::of(&entry.node, source, places),
        });
    }
    let Some(merged) = node.get("<<") else { return fields };
    let sources = match &merged.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(merged),
    };
    for field in sources.iter().flat_map(|node| self::fields(node, source, places)) {
        if !fields.iter().any(|it| it.key == field.key) {
            fields.push(field);
        }
    }
    fields
}

fn scalar(node: &Node, source: &Lines<'_>) -> Content {
    let (Value::Number(text) | Value::Text(text)) = &node.value else {
        let truth = node.value == Value::Bool(true);
        return Content::Plain(truth.to_string());
    };
    let text = text.clone();
    let first = source.at(node.at);
    let was_plain = !matches!(first, Some('"' | '\'' | '|' | '>' | '!' | '&' | '*') | None);
    let stays = was_plain && !text.contains('\n') && !text.is_empty();
    if stays || is_safe(&text) || matches!(node.value, Value::Number(_)) {
        Content::Plain(text)
    } else {
        Content::Quoted(text)
    }
}

/// Whether a text is a text in every version of YAML, without quotes.
fn is_safe(text: &str) -> bool {
    let mut bytes = text.bytes();
    let word = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'));
    let reserved = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "yes" | "n" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    word && !reserved
}

/// Lines of a text, by number.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Lines<'a> {
    /// The lines of `text`, each with its line break.
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.split_inclusive('\n').collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// A line, from 1, without its break.
    pub(super) fn line(&self, number: usize) -> &'a str {
        let line = number.checked_sub(1).and_then(|index| self.lines.get(index));
        line.map_or("", |line| line.trim_end_matches(['\n', '\r']))
    }

    /// The lines from `first` up to, but not including, `end`, with their breaks; the last always has one.
    pub(super) fn text(&self, first: usize, end: usize) -> String {
        let range = first.saturating_sub(1)..end.saturating_sub(1).min(self.lines.len());
        let mut text = self.lines.get(range).unwrap_or_default().concat();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// The character at a place.
    pub(super) fn at(&self, at: Position) -> Option<char> {
        self.line(at.line).chars().nth(at.column.checked_sub(1)?)
    }
}

/// Writes fields as a block, each line indented by so many spaces.
pub(super) fn write_fields(out: &mut String, fields: &[Field], indent: usize) {
    for field in fields {
        write_field(out, field, indent);
    }
}

/// Writes one field.
pub(super) fn write_field(out: &mut String, field: &Field, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
    out.push_str(&key(&field.key));
    out.push(':');
    write_value(out, &field.value, indent);
}

/// Writes what follows a colon or a dash, and the line break.
fn write_value(out: &mut String, value: &Yaml, indent: usize) {
    match &value.value {
        Content::Map(fields) if !fields.is_empty() => {
            out.push('\n');
            write_fields(out, fields, indent + 2);
        }
        Content::List(items) if !items.is_empty() => match in_one_line(items) {
            Some(line) => {
                out.push(' ');
                out.push_str(&line);
                out.push('\n');
            }
            None => {
                out.push('\n');
                for item in items {
                    write_item(out, item, indent + 2);
                }
            }
        },
        Content::Quoted(text) if is_block(text) => {
            out.push_str(" |\n");
            for line in text.lines() {
                if !line.is_empty() {
                    out.extend(std::iter::repeat_n(' ', indent + 2));
                    out.push_str(line);
                }
                out.push('\n');
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&flow(value));
            out.push('\n');
        }
    }
}

fn write_item(out: &mut String, item: &Yaml, indent: usize) {
    let start = out.len();
    out.extend(std::iter::repeat_n(' ', indent));
    out.push('-');
    match &item.value {
        Content::Map(fields) if !fields.is_empty() => {
            // The first field stands behind the dash, the others under it.
            let mut block = String::new();
            write_fields(&mut block, fields, indent + 2);
            out.push(' ');
            out.push_str(block.trim_start());
        }
        _ => write_value(out, item, indent),
    }
    debug_assert!(out.len() > start);
}

/// Short lists of scalars fit in one line, as long as none of them would end it.
fn in_one_line(items: &[Yaml]) -> Option<String> {
    let mut line = String::from("[");
    for item in items {
        let fits = match &item.value {
            Content::Plain(text) => !text.contains([',', '[', ']', '{', '}', '#', ':']),
            Content::Quoted(text) => !text.contains('\n'),
            _ => false,
        };
        if !fits || line.len() > LINE {
            return None;
        }
        if line.len() > 1 {
            line.push_str(", ");
        }
        line.push_str(&flow(item));
    }
    line.push(']');
    (line.len() <= LINE).then_some(line)
}

fn flow(value: &Yaml) -> String {
    match &value.value {
        Content::Null => "null".to_owned(),
        Content::Plain(text) => text.clone(),
        Content::Quoted(text) => quoted(text),
        Content::List(_) => "[]".to_owned(),
        Content::Map(_) => "{}".to_owned(),
    }
}

/// Texts of several lines that a literal block keeps as they are.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || !c.is_control())
}

/// In double quotes. A JSON string is one in YAML too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn key(key: &str) -> String {
    if is_safe(key) { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::read::tree;

    fn read(text: &str) -> Yaml {
        let (documents, problems) = tree::parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        Yaml::of(&documents[0], &Lines::new(text), true)
    }

    fn written(yaml: &Yaml) -> String {
        let mut out = String::new();
        write_fields(&mut out, yaml.fields(), 0);
        out
    }

    #[test]
    fn what_was_plain_stays_plain_and_what_was_quoted_stays_a_text() {
        let text = "a: yes\nb: \"yes\"\nc: 0444\nd: '0444'\ne: [22:22, \"80:80\"]\n";
        let out = written(&read(text));
        assert!(out.starts_with("a: yes\nb: \"yes\"\nc: 0444\nd: \"0444\"\n"), "{out}");
        assert!(out.contains("- 22:22\n"), "{out}");
        assert!(out.contains("- \"80:80\"\n"), "{out}");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = "a: {b: [1, {c: d, e: [x, y]}], f: {}, g: [], h: null}\ni: |\n  one\n\n  two\nj: \"\\ttab # no\"\n\"k l\": m\n";
        let first = read(text);
        let again = read(&written(&first));
        assert_eq!(written(&first), written(&again));
        assert_eq!(again.get("i").unwrap().as_text(), Some("one\n\ntwo\n"));
        assert_eq!(again.get("j").unwrap().as_text(), Some("\ttab # no"));
        let inner = &again.get("a").unwrap().get("b").unwrap().items()[1];
        assert_eq!(inner.get("e").unwrap().as_texts(), ["x", "y"]);
    }

    #[test]
    fn merged_keys_are_those_that_are_not_there_already() {
        let yaml = read("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 0}\n");
        let z: Vec<_> = yaml.get("z").unwrap().fields().iter().collect();
        let of = |key: &str| z.iter().find(|it| it.key == key).unwrap().value.as_text().unwrap();
        assert_eq!((of("a"), of("b"), of("c"), z.len()), ("0", "2", "4", 3));
    }
}
