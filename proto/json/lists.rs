//! A repeated field may be written as its only entry, without a list around it: Envoy reads that, and there are bootstraps
//! which count on it (`grpc_services` in those of Consul).

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::check::{ANY, field_of};

/// Puts a list around what stands alone in a repeated field, everywhere in `value`, `Any`s included.
pub(super) fn complete(pool: &DescriptorPool, message: &MessageDescriptor, value: &mut Value) {
    if let Value::Object(object) = value {
        fields(pool, message, object);
    }
}

fn fields(pool: &DescriptorPool, message: &MessageDescriptor, object: &mut Map<String, Value>) {
    for (key, value) in object {
        let Some(field) = field_of(message, key) else { continue };
        if value.is_null() {
            continue;
        }
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            let kind = entry.map_entry_value_field().kind();
            if let Value::Object(entries) = value {
                entries.values_mut().for_each(|value| single(pool, &kind, value));
            }
        } else if field.is_list() {
            if !value.is_array() {
                *value = Value::Array(vec![value.take()]);
            }
            let entries = value.as_array_mut().into_iter().flatten();
            entries.for_each(|value| single(pool, &field.kind(), value));
        } else {
            single(pool, &field.kind(), value);
        }
    }
}

fn single(pool: &DescriptorPool, kind: &Kind, value: &mut Value) {
    let (Kind::Message(message), Value::Object(object)) = (kind, value) else { return };
    if message.full_name() == ANY {
        let name = object.get("@type").and_then(Value::as_str).map(crate::any::message_name);
        let inner = name.and_then(|name| pool.get_message_by_name(name));
        if let Some(inner) = inner.filter(|inner| !is_json_of_its_own(inner)) {
            fields(pool, &inner, object);
        }
    } else if !is_json_of_its_own(message) {
        fields(pool, message, object);
    }
}

/// Its JSON is not made of its fields.
fn is_json_of_its_own(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("google.protobuf.")
}

#[cfg(test)]
mod tests {
    use crate::envoy::config::bootstrap::v3::Bootstrap;
    use crate::json::Schema;

    fn read(text: &str) -> Bootstrap {
        Schema::load().unwrap().read(text, true).unwrap()
    }

    #[test]
    fn what_stands_alone_in_a_repeated_field_is_its_only_entry() {
        let alone = read(
            r#"
node: {metadata: {list: alone}}
static_resources:
  listeners:
    name: one
    filter_chains:
      filters:
        name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          weighted_clusters: {clusters: {name: a, weight: 1}}
"#,
        );
        let listed = read(
            r#"
node: {metadata: {list: alone}}
static_resources:
  listeners:
  - name: one
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          weighted_clusters: {clusters: [{name: a, weight: 1}]}
"#,
        );
        assert_eq!(alone, listed);
    }
}
