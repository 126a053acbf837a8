//! `/listeners`.

use serde_json::{Value, json};

use super::query::ListenerStatus;
use super::reply::Reply;

pub(super) fn text(listeners: &[ListenerStatus]) -> Reply {
    let lines = listeners.iter().flat_map(|one| {
        one.local_addresses.iter().map(move |address| format!("{}::{address}\n", one.name))
    });
    Reply::text(lines.collect::<String>())
}

pub(super) fn json(listeners: &[ListenerStatus]) -> Reply {
    let statuses: Vec<_> = listeners.iter().map(status).collect();
    Reply::json(&json!({"listener_statuses": statuses}))
}

fn status(listener: &ListenerStatus) -> Value {
    let mut addresses = listener.local_addresses.iter().map(super::clusters::address);
    let mut status = json!({"name": &*listener.name});
    if let Some(first) = addresses.next() {
        status["local_address"] = first;
    }
    let more: Vec<Value> = addresses.collect();
    if !more.is_empty() {
        status["additional_local_addresses"] = more.into();
    }
    status
}
