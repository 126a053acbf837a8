//! Fields on the wire that their messages do not have: what a newer or mistaken sender wrote, and decoding would drop.

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

use super::Problem;

/// The full name of the message that holds any other.
const ANY: &str = "google.protobuf.Any";

/// Collects the unknown fields of `message` and of everything in it, `Any`s included as far as their types are known.
pub(super) fn collect(
    pool: &DescriptorPool,
    message: &DynamicMessage,
    path: &str,
    found: &mut Vec<Problem>,
) {
    let full_name = message.descriptor().full_name().to_owned();
    found.extend(message.unknown_fields().map(|field| Problem {
        path: path.to_owned(),
        reason: format!("{full_name} has no field with number {}", field.number()),
    }));
    if full_name == ANY {
        if let Some(inner) = unpack(pool, message) {
            collect(pool, &inner, path, found);
        }
        return;
    }
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for (field, value) in message.fields() {
        let path = below(field.name());
        match value {
            Value::Message(inner) => collect(pool, inner, &path, found),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        collect(pool, inner, &format!("{path}[{index}]"), found);
                    }
                }
            }
            Value::Map(entries) => {
                for (key, item) in entries {
                    if let Value::Message(inner) = item {
                        collect(pool, inner, &format!("{path}[{key:?}]"), found);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What an `Any` holds; `None` if its type is not known here or its bytes do not decode, which conversion reports.
fn unpack(pool: &DescriptorPool, any: &DynamicMessage) -> Option<DynamicMessage> {
    let type_url = any.get_field_by_name("type_url")?;
    let bytes = any.get_field_by_name("value")?;
    let name = crate::any::message_name(type_url.as_str()?);
    let descriptor = pool.get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, bytes.as_bytes()?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use crate::any;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::envoy::config::core::v3::{TransportSocket, transport_socket};
    use crate::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    use crate::json::Schema;

    /// Field 12345, varint 1.
    const UNKNOWN: [u8; 4] = [0xc8, 0x83, 0x06, 0x01];

    fn found(cluster: &[u8]) -> Vec<String> {
        let schema = Schema::load().unwrap();
        let found = schema.unknown_fields("envoy.config.cluster.v3.Cluster", cluster).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_message_of_known_fields_has_no_unknown_ones() {
        let cluster = Cluster { name: "api".to_owned(), ..Cluster::default() };
        assert!(found(&cluster.encode_to_vec()).is_empty());
    }

    #[test]
    fn an_unknown_field_is_found_at_the_root_and_inside_an_any() {
        let mut tls =
            any::pack(&UpstreamTlsContext { sni: "api".to_owned(), ..Default::default() });
        tls.value.extend(UNKNOWN);
        let cluster = Cluster {
            transport_socket: Some(TransportSocket {
                name: "tls".to_owned(),
                config_type: Some(transport_socket::ConfigType::TypedConfig(tls)),
            }),
            ..Cluster::default()
        };
        let mut bytes = cluster.encode_to_vec();
        bytes.extend(UNKNOWN);
        let found = found(&bytes);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("Cluster has no field with number 12345"), "{found:?}");
        assert!(found[1].contains("transport_socket.typed_config"), "{found:?}");
        assert!(found[1].contains("UpstreamTlsContext has no field"), "{found:?}");
    }
}
