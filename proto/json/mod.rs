//! YAML and JSON in the canonical protobuf mapping.
//!
//! A text that does not fit its message is reported with every place that is wrong ([`check`]), and where it stands in the
//! text ([`document`]).
//!
//! Descriptors are decoded when a [`Schema`] is made and dropped with it: a process that reads no file never pays for them.

mod check;
mod document;
mod lists;
mod structs;
mod typed_struct;
mod unknown;

use std::fmt;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

pub use document::{Document, Position, Positions, parse_document};
pub use structs::{json_object, json_value};
pub use typed_struct::{TypedStruct, may_hold_typed_struct};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Why a text could not be read as a message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not YAML or JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but not this message: every place that is wrong.
    #[error("{}", lines(.0))]
    Mapping(Vec<Problem>),
    /// The descriptors do not know the message: a defect of this build.
    #[error("no descriptor for {0}")]
    NoDescriptor(String),
}

/// A place that does not fit the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, e.g. `static_resources.listeners[0].name`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The loaded descriptors of Envoy's messages.
pub struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// Decodes the descriptors. Takes some milliseconds and megabytes, until it is dropped.
    ///
    /// # Errors
    /// If the descriptors that were built in do not decode.
    pub fn load() -> Result<Self, JsonError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)
            .map_err(|error| JsonError::NoDescriptor(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Reads YAML (and so JSON, which is a part of it) as a message.
    ///
    /// With `deny_unknown_fields` a key that the message does not have is an error, as in Envoy for static configuration.
    ///
    /// # Errors
    /// If the text is not YAML, or is not this message.
    pub fn read<M: Message + Name + Default>(
        &self,
        text: &str,
        deny_unknown_fields: bool,
    ) -> Result<M, JsonError> {
        self.read_value(parse(text)?, deny_unknown_fields)
    }

    /// As [`Schema::read`], from a value that was parsed (and perhaps merged) before.
    ///
    /// # Errors
    /// If the value is not this message.
    pub fn read_value<M: Message + Name + Default>(
        &self,
        value: serde_json::Value,
        deny_unknown_fields: bool,
    ) -> Result<M, JsonError> {
        let message =
            self.read_dynamic(self.descriptor(&M::full_name())?, value, deny_unknown_fields)?;
        message.transcode_to::<M>().map_err(|error| mapping(&M::full_name(), &error.to_string()))
    }

    fn read_dynamic(
        &self,
        descriptor: MessageDescriptor,
        mut value: serde_json::Value,
        deny_unknown_fields: bool,
    ) -> Result<DynamicMessage, JsonError> {
        lists::complete(&self.pool, &descriptor, &mut value);
        let problems = check::check(&self.pool, &descriptor, &value, deny_unknown_fields);
        if !problems.is_empty() {
            return Err(JsonError::Mapping(problems));
        }
        let options =
            prost_reflect::DeserializeOptions::new().deny_unknown_fields(deny_unknown_fields);
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
        let message = DynamicMessage::deserialize_with_options(descriptor, deserializer, &options);
        message.map_err(|error| mapping(&track.path().to_string(), &error.to_string()))
    }

    /// Prints an encoded message with proto field names, leaving out what has its default value, as Envoy's admin does.
    ///
    /// # Errors
    /// If the bytes are not this message, or it holds an `Any` of a type without a descriptor.
    pub fn print(&self, message_name: &str, bytes: &[u8]) -> Result<serde_json::Value, JsonError> {
        let descriptor = self.descriptor(message_name)?;
        let message = DynamicMessage::decode(descriptor, bytes)
            .map_err(|error| mapping(message_name, &error.to_string()))?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| mapping(message_name, &error.to_string()))
    }

    /// Encodes a message that was printed by [`Schema::print`], and perhaps changed.
    ///
    /// # Errors
    /// If the value is not this message.
    pub fn encode(
        &self,
        message_name: &str,
        value: serde_json::Value,
    ) -> Result<Vec<u8>, JsonError> {
        Ok(self.read_dynamic(self.descriptor(message_name)?, value, true)?.encode_to_vec())
    }

    /// The fields of an encoded message that it does not have in this build, and those of everything in it.
    ///
    /// # Errors
    /// If the bytes are not this message.
    pub fn unknown_fields(
        &self,
        message_name: &str,
        bytes: &[u8],
    ) -> Result<Vec<Problem>, JsonError> {
        let message = DynamicMessage::decode(self.descriptor(message_name)?, bytes)
            .map_err(|error| mapping(message_name, &error.to_string()))?;
        let mut found = Vec::new();
        unknown::collect(&self.pool, &message, "", &mut found);
        Ok(found)
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, JsonError> {
        self.pool.get_message_by_name(name).ok_or_else(|| JsonError::NoDescriptor(name.to_owned()))
    }
}

fn mapping(path: &str, reason: &str) -> JsonError {
    JsonError::Mapping(vec![Problem { path: path.to_owned(), reason: reason.to_owned() }])
}

/// Parses YAML, and so JSON.
///
/// # Errors
/// With line and column, if the text is neither.
pub fn parse(text: &str) -> Result<serde_json::Value, JsonError> {
    parse_document(text).map(|document| document.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::bootstrap::v3::Bootstrap;

    fn problems(text: &str) -> Vec<String> {
        let schema = Schema::load().unwrap();
        match schema.read::<Bootstrap>(text, true) {
            Err(JsonError::Mapping(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_place_that_is_wrong_is_reported_inside_an_any_too() {
        let found = problems(
            r#"
nodes: {}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: many}}}
static_resources:
  clusters:
  - {name: a, connect_timeout: 1, type: STATICAL}
  - 7
  listeners:
  - filter_chains:
    - filters:
      - name: a
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefx: a
          cluster: a
          weighted_clusters: {clusters: []}
      - {name: b, typed_config: {"@type": nothing.Here}}
      - {name: c, typed_config: {}}
"#,
        );
        let expected = [
            ("nodes", "did you mean node?"),
            ("admin.address.socket_address.port_value", ""),
            ("static_resources.clusters[0].connect_timeout", ""),
            ("static_resources.clusters[0].type", ""),
            ("static_resources.clusters[1]", "expected an object, got a number"),
            (
                "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefx",
                "did you mean stat_prefix?",
            ),
            (
                "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.weighted_clusters",
                "together with cluster",
            ),
            (
                "static_resources.listeners[0].filter_chains[0].filters[1].typed_config.@type",
                "\"nothing.Here\" is not known",
            ),
            (
                "static_resources.listeners[0].filter_chains[0].filters[2].typed_config.@type",
                "required",
            ),
        ];
        for (path, reason) in expected {
            let told = found.iter().any(|problem| {
                problem.starts_with(&format!("{path}: ")) && problem.contains(reason)
            });
            assert!(told, "{path}: {reason} is not in {found:#?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }

    #[test]
    fn unknown_fields_are_skipped_where_that_is_asked_for() {
        let schema = Schema::load().unwrap();
        let text = "node: {id: a, colour: red}\nnodes: 5\n";
        let bootstrap: Bootstrap = schema.read(text, false).unwrap();
        assert_eq!(bootstrap.node.unwrap().id, "a");
    }

    #[test]
    fn both_spellings_of_a_field_are_understood_but_not_at_once() {
        let schema = Schema::load().unwrap();
        let bootstrap: Bootstrap = schema.read("flagsPath: /a", true).unwrap();
        assert_eq!(bootstrap.flags_path, "/a");
        assert!(problems("flagsPath: /a\nflags_path: /b")[0].contains("the same field"));
    }

    #[test]
    fn the_place_of_a_field_is_where_it_stands_or_would_stand() {
        let text = "node:\n  id: a\n  list:\n  - x: 1\n  - y:\n      z.k: 2\n";
        let positions = parse_document(text).unwrap().positions;
        let at = |path: &str| positions.of(path).map(|position| position.to_string());
        assert_eq!(at("node.id").as_deref(), Some("2:7"));
        assert_eq!(at("node.list[1].y[z.k]").as_deref(), Some("6:12"));
        assert_eq!(at("node.list[1].missing"), at("node.list[1]"));
        assert_eq!(at("missing").as_deref(), Some("1:1"));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_line() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn json_is_read_as_yaml() {
        let value = parse("{\"a\": [1, -2, 1.5, true, null, \"x\"]}").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, -2, 1.5, true, null, "x"]}));
    }
}
