//! `TypedStruct` in what is to be converted: each is replaced by the message that it stands for, so that no conversion
//! needs to know of them.

use std::borrow::Cow;
use std::sync::OnceLock;

use outrigger_proto::any;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::{JsonError, Problem, Schema, may_hold_typed_struct};
use prost::{Message, Name};

use super::Rejected;

/// A resource without the `TypedStruct`s of messages that are known here; it is the same if there is none.
///
/// # Errors
/// With every place of one that does not fit its message; with `deny_unknown_fields` also keys that it does not have.
pub fn resolve(body: &Any, deny_unknown_fields: bool) -> Result<Cow<'_, Any>, Vec<Rejected>> {
    if !may_hold_typed_struct(&body.value) {
        return Ok(Cow::Borrowed(body));
    }
    let name = any::message_name(&body.type_url);
    let value = encoded(name, &body.value, deny_unknown_fields)?;
    Ok(Cow::Owned(Any { type_url: body.type_url.clone(), value }))
}

/// As [`resolve`], of a message.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_message<M: Message + Name + Default>(
    message: M,
    deny_unknown_fields: bool,
) -> Result<M, Vec<Rejected>> {
    let bytes = message.encode_to_vec();
    if !may_hold_typed_struct(&bytes) {
        return Ok(message);
    }
    let bytes = encoded(&M::full_name(), &bytes, deny_unknown_fields)?;
    M::decode(bytes.as_slice()).map_err(|error| whole(error.to_string()))
}

fn encoded(name: &str, bytes: &[u8], deny_unknown_fields: bool) -> Result<Vec<u8>, Vec<Rejected>> {
    // Whoever sends one sends many. Who sends none never pays for the descriptors.
    static SCHEMA: OnceLock<Result<Schema, String>> = OnceLock::new();
    let schema = SCHEMA
        .get_or_init(|| Schema::load().map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|error| whole(error.clone()))?;
    schema.resolve_typed_structs(name, bytes, deny_unknown_fields).map_err(|error| match error {
        JsonError::Mapping(problems) => {
            problems.into_iter().map(|Problem { path, reason }| Rejected { path, reason }).collect()
        }
        other => whole(other.to_string()),
    })
}

fn whole(reason: String) -> Vec<Rejected> {
    vec![Rejected { path: String::new(), reason }]
}
