//! `TypedStruct`: a message in its JSON form, from a sender that does not have its definition. Wherever an `Any` may stand,
//! one of these may stand for it; here each becomes the message that it means.

use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use super::structs::json_object;
use super::{JsonError, Problem, Schema};
use crate::any;
use crate::google::protobuf::{Any, Struct};

const ANY: &str = "google.protobuf.Any";
/// `Any`s within `Any`s: each begins anew for the decoder, which bounds only the messages in one.
const MAX_DEPTH: usize = 32;

/// `xds.type.v3.TypedStruct`, and `udpa.type.v1.TypedStruct` before it.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// The type of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message in its JSON form.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

impl TypedStruct {
    /// The one in `any`, if there is one in it.
    pub fn within(any: &Any) -> Option<Self> {
        is_typed_struct(&any.type_url).then(|| Self::decode(any.value.as_slice()).ok()).flatten()
    }
}

fn is_typed_struct(type_url: &str) -> bool {
    matches!(any::message_name(type_url), "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct")
}

/// Whether an encoded message may have a `TypedStruct` in it: a quick look, without knowing the message.
pub fn may_hold_typed_struct(bytes: &[u8]) -> bool {
    // "TypedStruct" is rare enough that its first letter nearly decides.
    const NAME: &[u8] = b".TypedStruct";
    bytes.windows(NAME.len()).any(|window| window == NAME)
}

impl Schema {
    /// An encoded message with the message itself in the place of each `TypedStruct`. One of a message that is not known
    /// here stays what it is, and one that cannot be read is reported.
    ///
    /// With `deny_unknown_fields` a key that the message does not have is reported as well.
    ///
    /// # Errors
    /// With every place that does not fit its message, or if the bytes are not this message.
    pub fn resolve_typed_structs(
        &self,
        message_name: &str,
        bytes: &[u8],
        deny_unknown_fields: bool,
    ) -> Result<Vec<u8>, JsonError> {
        let mut message = DynamicMessage::decode(self.descriptor(message_name)?, bytes)
            .map_err(|error| super::mapping(message_name, &error.to_string()))?;
        let mut resolver = Resolver { schema: self, deny_unknown_fields, problems: Vec::new() };
        resolver.message(&mut message, "", 0);
        if resolver.problems.is_empty() {
            Ok(message.encode_to_vec())
        } else {
            Err(JsonError::Mapping(resolver.problems))
        }
    }
}

struct Resolver<'a> {
    schema: &'a Schema,
    deny_unknown_fields: bool,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn message(&mut self, message: &mut DynamicMessage, path: &str, depth: usize) {
        if message.descriptor().full_name() == ANY {
            return self.any(message, path, depth);
        }
        for (field, value) in message.fields_mut() {
            let path = match path {
                "" => field.name().to_owned(),
                path => format!("{path}.{}", field.name()),
            };
            match value {
                Value::Message(inner) => self.message(inner, &path, depth),
                Value::List(items) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        if let Value::Message(inner) = item {
                            self.message(inner, &format!("{path}[{index}]"), depth);
                        }
                    }
                }
                Value::Map(entries) => {
                    for (key, item) in entries {
                        if let Value::Message(inner) = item {
                            let key = match key {
                                prost_reflect::MapKey::String(key) => key.clone(),
                                other => format!("{other:?}"),
                            };
                            self.message(inner, &format!("{path}[{key}]"), depth);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn any(&mut self, dynamic: &mut DynamicMessage, path: &str, depth: usize) {
        // What cannot be read here, conversion reports.
        let Ok(any) = dynamic.transcode_to::<Any>() else { return };
        if !may_hold_typed_struct(any.type_url.as_bytes()) && !may_hold_typed_struct(&any.value) {
            return;
        }
        if depth == MAX_DEPTH {
            return self.report(path, format!("more than {MAX_DEPTH} messages within each other"));
        }
        let resolved = if is_typed_struct(&any.type_url) {
            self.read(&any, path, depth)
        } else {
            self.within(&any, path, depth)
        };
        if let Some(resolved) = resolved {
            // It merges, and an empty value would leave the old one.
            dynamic.clear();
            // Both are google.protobuf.Any.
            let _ = dynamic.transcode_from(&resolved);
        }
    }

    /// What a `TypedStruct` means.
    fn read(&mut self, any: &Any, path: &str, depth: usize) -> Option<Any> {
        let typed = match TypedStruct::decode(any.value.as_slice()) {
            Ok(typed) => typed,
            Err(error) => {
                self.report(path, format!("cannot decode {}: {error}", any.type_url));
                return None;
            }
        };
        let descriptor = self.schema.descriptor(any::message_name(&typed.type_url)).ok()?;
        if descriptor.full_name().starts_with("google.protobuf.") {
            return None;
        }
        let object = json_object(typed.value.unwrap_or_default());
        match self.schema.read_dynamic(descriptor, object.into(), self.deny_unknown_fields) {
            Ok(mut message) => {
                self.message(&mut message, &format!("{path}.value"), depth + 1);
                Some(Any { type_url: typed.type_url, value: message.encode_to_vec() })
            }
            Err(JsonError::Mapping(problems)) => {
                for Problem { path: inner, reason } in problems {
                    let dot = if inner.is_empty() { "" } else { "." };
                    self.report(&format!("{path}.value{dot}{inner}"), reason);
                }
                None
            }
            Err(error) => {
                self.report(path, error.to_string());
                None
            }
        }
    }

    /// A message that has `TypedStruct`s somewhere in it.
    fn within(&mut self, any: &Any, path: &str, depth: usize) -> Option<Any> {
        let descriptor = self.schema.descriptor(any::message_name(&any.type_url)).ok()?;
        let mut message = DynamicMessage::decode(descriptor, any.value.as_slice()).ok()?;
        self.message(&mut message, path, depth + 1);
        Some(Any { type_url: any.type_url.clone(), value: message.encode_to_vec() })
    }

    fn report(&mut self, path: &str, reason: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), reason: reason.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::listener::v3::{Listener, filter};
    use crate::envoy::extensions::filters::http::router::v3::Router;
    use crate::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_filter,
    };
    use crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

    const XDS: &str = "type.googleapis.com/xds.type.v3.TypedStruct";
    const UDPA: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";

    fn listener(filter: &str) -> Listener {
        let text =
            format!("name: a\nfilter_chains: [{{filters: [{{name: f, typed_config: {filter}}}]}}]");
        Schema::load().unwrap().read(&text, true).unwrap()
    }

    fn resolve(listener: &Listener, deny: bool) -> Result<Listener, String> {
        let bytes = listener.encode_to_vec();
        assert!(may_hold_typed_struct(&bytes));
        let schema = Schema::load().unwrap();
        let resolved =
            schema.resolve_typed_structs("envoy.config.listener.v3.Listener", &bytes, deny);
        let resolved = resolved.map_err(|error| error.to_string())?;
        Ok(Listener::decode(resolved.as_slice()).unwrap())
    }

    fn filter_of(listener: &Listener) -> &Any {
        match listener.filter_chains[0].filters[0].config_type.as_ref().unwrap() {
            filter::ConfigType::TypedConfig(any) => any,
            filter::ConfigType::ConfigDiscovery(_) => panic!("discovered"),
        }
    }

    #[test]
    fn both_names_become_the_message_that_they_mean() {
        for name in [XDS, UDPA] {
            let listener = listener(&format!(
                "{{'@type': {name}, type_url: type.googleapis.com/envoy.extensions.filters.network.\
                 tcp_proxy.v3.TcpProxy, value: {{stat_prefix: a, cluster: b, idleTimeout: 5s, \
                 max_connect_attempts: 3}}}}"
            ));
            let resolved = resolve(&listener, true).unwrap();
            let proxy: TcpProxy = any::unpack(filter_of(&resolved)).unwrap();
            assert_eq!((&*proxy.stat_prefix, proxy.idle_timeout.unwrap().seconds), ("a", 5));
            assert_eq!(proxy.max_connect_attempts.unwrap().value, 3);
        }
    }

    #[test]
    fn one_within_another_and_within_an_any_is_read_too() {
        let inner = format!(
            "{{stat_prefix: a, http_filters: [{{name: router, typed_config: {{'@type': {UDPA}, \
             type_url: type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, \
             value: {{suppress_envoy_headers: true}}}}}}]}}"
        );
        let url = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                   HttpConnectionManager";
        let outer = format!("{{'@type': {XDS}, type_url: {url}, value: {inner}}}");
        let plain = format!("{{'@type': {url}, {}", inner.trim_start_matches('{'));
        for config in [outer, plain] {
            let resolved = resolve(&listener(&config), true).unwrap();
            let manager: HttpConnectionManager = any::unpack(filter_of(&resolved)).unwrap();
            let Some(http_filter::ConfigType::TypedConfig(router)) =
                &manager.http_filters[0].config_type
            else {
                panic!("{manager:?}")
            };
            assert!(any::unpack::<Router>(router).unwrap().suppress_envoy_headers);
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_an_unknown_key_where_it_matters() {
        let url = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        let with =
            |value: &str| listener(&format!("{{'@type': {XDS}, type_url: {url}, value: {value}}}"));
        let error = resolve(&with("{cluster: 7}"), false).unwrap_err();
        let place = "filter_chains[0].filters[0].typed_config.value.cluster: ";
        assert!(error.starts_with(place), "{error}");
        let unknown = with("{clusetr: a}");
        assert!(resolve(&unknown, false).is_ok());
        let error = resolve(&unknown, true).unwrap_err();
        assert!(error.contains("did you mean cluster?"), "{error}");
    }

    #[test]
    fn one_of_an_unknown_message_stays_as_it_is() {
        let listener = listener(&format!(
            "{{'@type': {XDS}, type_url: type.googleapis.com/stats.PluginConfig, value: {{a: 1}}}}"
        ));
        assert_eq!(resolve(&listener, true).unwrap(), listener);
    }

    #[test]
    fn a_tower_of_messages_is_refused() {
        let mut any = Any { type_url: XDS.to_owned(), value: Vec::new() };
        for _ in 0..MAX_DEPTH + 2 {
            let message = Listener {
                filter_chains: vec![crate::envoy::config::listener::v3::FilterChain {
                    filters: vec![crate::envoy::config::listener::v3::Filter {
                        name: String::new(),
                        config_type: Some(filter::ConfigType::TypedConfig(any)),
                    }],
                    ..Default::default()
                }],
                ..Listener::default()
            };
            any = any::pack(&message);
        }
        let top: Listener = any::unpack(&any).unwrap();
        assert!(resolve(&top, true).unwrap_err().contains("within each other"));
    }
}
