//! `/runtime` and `/runtime_modify`.

use http::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::query::{Query, RuntimeStatus};
use super::reply::{Parameters, Reply};
use super::server::{Admin, ask};

const USAGE: &str = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n\
                     \u{20}      use an empty value to remove a previously added override\n";

/// Every key with its value in each layer, and the one in force.
pub(super) fn runtime(status: &RuntimeStatus) -> Reply {
    let entries: Map<String, Json> = status
        .entries
        .iter()
        .map(|entry| {
            let value = json!({"layer_values": entry.layers, "final_value": entry.last});
            (entry.key.to_string(), value)
        })
        .collect();
    let layers: Vec<&str> = status.layers.iter().map(|name| &**name).collect();
    Reply::json(&json!({"layers": layers, "entries": entries}))
}

/// Overrides keys, in the layer of the admin interface.
pub(super) async fn modify(admin: &Admin, parameters: &Parameters) -> Reply {
    let changes: Vec<(String, String)> =
        parameters.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if changes.is_empty() {
        return Reply::bad_request(USAGE);
    }
    match ask(admin, |answer| Query::ModifyRuntime(changes, answer)).await {
        Err(reply) => reply,
        Ok(Ok(())) => Reply::ok(),
        Ok(Err(reason)) => Reply::with(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
