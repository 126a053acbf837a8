//! YAML (and so JSON) as a value together with where each part of it stands.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::JsonError;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where the parts of a document stand, by their paths.
#[derive(Debug, Clone, Default)]
pub struct Positions(HashMap<String, Position>);

impl Positions {
    /// Where the value of a field stands (`a.b[0].c`, or with the key of a map `a[key].c`), or else the nearest part of
    /// the document that the field would be in.
    pub fn of(&self, path: &str) -> Option<Position> {
        let mut path = normalized(path);
        loop {
            if let Some(position) = self.0.get(&path) {
                return Some(*position);
            }
            if path.is_empty() {
                return None;
            }
            path.truncate(path.rfind(['.', '[']).unwrap_or(0));
        }
    }
}

/// A document does not tell a map from a message: both are `a.key` there.
fn normalized(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, inner)) = rest.split_once('[') {
        result.push_str(before);
        let (key, after) = inner.split_once(']').unwrap_or((inner, ""));
        if key.bytes().all(|byte| byte.is_ascii_digit()) {
            result.push_str(&format!("[{key}]"));
        } else {
            result.push('.');
            result.push_str(key);
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// A parsed text.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// Where.
    pub positions: Positions,
}

/// Parses YAML, and so JSON.
///
/// # Errors
/// With line and column, if the text is neither.
pub fn parse_document(text: &str) -> Result<Document, JsonError> {
    let root: Spanned<Node> =
        serde_saphyr::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
    let mut positions = Positions::default();
    let value = flatten(root, String::new(), &mut positions);
    Ok(Document { value, positions })
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

/// Nesting is bounded by the parser.
fn flatten(node: Spanned<Node>, path: String, positions: &mut Positions) -> Value {
    let Spanned { value, referenced, .. } = node;
    let position = Position { line: referenced.line(), column: referenced.column() };
    let result = match value {
        Node::Scalar(value) => value,
        Node::List(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| flatten(item, format!("{path}[{index}]"), positions))
            .collect(),
        Node::Map(entries) => {
            let mut object = Map::new();
            for (key, item) in entries {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                object.insert(key, flatten(item, below, positions));
            }
            Value::Object(object)
        }
    };
    positions.0.insert(path, position);
    result
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value);
        number.map(|number| Node::Scalar(number.into())).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map: Vec<(String, Spanned<Node>)> = Vec::new();
        while let Some((key, value)) = entries.next_entry::<String, _>()? {
            // The parser has refused a key that stands twice.
            map.push((key, value));
        }
        Ok(Node::Map(map))
    }
}
