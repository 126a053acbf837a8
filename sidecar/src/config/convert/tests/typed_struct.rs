//! Every extension of the base, sent by somebody who does not have its definition.

use serde_json::{Map, Value, json};

use super::harness::{SCHEMA, base};
use crate::config::bootstrap::{Bootstrap, Options, read};
use crate::config::typed_struct;

/// `value` with a `TypedStruct` in the place of each message that says its type; within one, the next says it plainly.
fn disguised(value: Value, name: &str, within: bool) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|it| disguised(it, name, within)).collect(),
        Value::Object(mut object) => match object.remove("@type") {
            Some(url) if !within => {
                let inner = disguised(Value::Object(object), name, true);
                json!({"@type": format!("type.googleapis.com/{name}"), "type_url": url, "value": inner})
            }
            url => {
                let url = url.map(|url| ("@type".to_owned(), url));
                let rest = object.into_iter().map(|(key, it)| (key, disguised(it, name, within)));
                Value::Object(url.into_iter().chain(rest).collect::<Map<_, _>>())
            }
        },
        other => other,
    }
}

fn shown(bootstrap: &Bootstrap) -> String {
    format!("{:#?} {:#?}", bootstrap.listeners, bootstrap.clusters)
}

#[test]
fn every_extension_may_be_a_typed_struct_and_means_the_same() {
    let plain = super::harness::convert(base()).unwrap();
    for name in ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"] {
        let value = disguised(base(), name, false);
        let proto = SCHEMA.read_value(value, true).unwrap();
        let proto = typed_struct::resolve_message(proto, true).unwrap();
        let bootstrap = super::super::bootstrap_of_file(proto).unwrap();
        assert_eq!(shown(&bootstrap), shown(&plain));
    }
}

#[test]
fn a_bad_field_in_a_typed_struct_of_a_file_is_named_unless_unknown_ones_are_allowed() {
    let text = r#"
static_resources:
  listeners:
  - name: a
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/xds.type.v3.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          value: {stat_prefix: a, cluster: b, clustr: c}
  clusters: [{name: b, type: STATIC}]
"#;
    let error = read(None, Some(text), &Options::default()).unwrap_err().to_string();
    let place =
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.value.clustr";
    assert!(error.contains(place) && error.contains(":12:"), "{error}");
    let options = Options { allow_unknown_static_fields: true, ..Options::default() };
    assert!(read(None, Some(text), &options).is_ok());
}

#[test]
fn one_of_a_message_that_is_not_known_is_refused_by_the_name_of_that_message() {
    let text = r#"
static_resources:
  listeners:
  - name: a
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: f
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/no.such.Filter
"#;
    let error = read(None, Some(text), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("no.such.Filter is not supported"), "{error}");
}
