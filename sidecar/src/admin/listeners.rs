//! `/listeners`.

use serde_json::json;

use super::query::ListenerStatus;
use super::reply::Reply;

pub(super) fn text(listeners: &[ListenerStatus]) -> Reply {
    let line = |one: &ListenerStatus| format!("{}::{}\n", one.name, one.local_address);
    Reply::text(listeners.iter().map(line).collect::<String>())
}

pub(super) fn json(listeners: &[ListenerStatus]) -> Reply {
    let status = |one: &ListenerStatus| json!({"name": &*one.name, "local_address": super::clusters::address(one.local_address)});
    let statuses: Vec<_> = listeners.iter().map(status).collect();
    Reply::json(&json!({"listener_statuses": statuses}))
}
