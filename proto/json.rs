//! YAML and JSON in the canonical protobuf mapping.
//!
//! Descriptors are decoded when a [`Schema`] is made and dropped with it: a process that reads no file never pays for them.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Why a text could not be read as a message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not YAML or JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but not this message.
    #[error("{path}: {reason}")]
    Mapping {
        /// Where, e.g. `static_resources.listeners[0].name`.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The descriptors do not know the message: a defect of this build.
    #[error("no descriptor for {0}")]
    NoDescriptor(String),
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
        let descriptor = self.descriptor(&M::full_name())?;
        let options =
            prost_reflect::DeserializeOptions::new().deny_unknown_fields(deny_unknown_fields);
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
        let message = DynamicMessage::deserialize_with_options(descriptor, deserializer, &options);
        let message = message.map_err(|error| JsonError::Mapping {
            path: track.path().to_string(),
            reason: error.to_string(),
        })?;
        message
            .transcode_to::<M>()
            .map_err(|error| JsonError::Mapping { path: M::full_name(), reason: error.to_string() })
    }

    /// Prints an encoded message with proto field names, leaving out what has its default value, as Envoy's admin does.
    ///
    /// # Errors
    /// If the bytes are not this message, or it holds an `Any` of a type without a descriptor.
    pub fn print(&self, message_name: &str, bytes: &[u8]) -> Result<serde_json::Value, JsonError> {
        let descriptor = self.descriptor(message_name)?;
        let mapping = |reason: String| JsonError::Mapping { path: message_name.to_owned(), reason };
        let message = DynamicMessage::decode(descriptor, bytes)
            .map_err(|error| mapping(error.to_string()))?;
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| mapping(error.to_string()))
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, JsonError> {
        self.pool.get_message_by_name(name).ok_or_else(|| JsonError::NoDescriptor(name.to_owned()))
    }
}

/// Parses YAML, and so JSON.
///
/// # Errors
/// With line and column, if the text is neither.
pub fn parse(text: &str) -> Result<serde_json::Value, JsonError> {
    serde_saphyr::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))
}
