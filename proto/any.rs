//! Packing and unpacking of `google.protobuf.Any`.

use crate::google::protobuf::Any;
use prost::{DecodeError, Name};

/// The type URL of a message, `type.googleapis.com/package.Name`.
pub fn type_url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

/// Packs a message.
pub fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: type_url::<M>(), value: message.encode_to_vec() }
}

/// Whether `any` says that it holds an `M`. Only the part behind the last `/` counts, as in every protobuf runtime.
pub fn holds<M: Name>(any: &Any) -> bool {
    message_name(&any.type_url) == M::full_name()
}

/// The full message name in a type URL.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// Why an `Any` could not be unpacked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UnpackError {
    /// It says it is something else.
    #[error("expected a {expected}, got a {got}")]
    OtherType {
        /// Full name of the message that was wanted.
        expected: String,
        /// Full name of the message that is there.
        got: String,
    },
    /// Its bytes do not decode.
    #[error("cannot decode {message}: {source}")]
    Malformed {
        /// Full name of the message.
        message: String,
        /// What the decoder says.
        source: DecodeError,
    },
}

/// Unpacks an `M`.
///
/// # Errors
/// If `any` holds another type, or bytes that do not decode.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if !holds::<M>(any) {
        return Err(UnpackError::OtherType {
            expected: M::full_name(),
            got: message_name(&any.type_url).to_owned(),
        });
    }
    M::decode(any.value.as_slice())
        .map_err(|source| UnpackError::Malformed { message: M::full_name(), source })
}
