//! `/config_dump`: Envoy's `ConfigDump`, secrets redacted.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use outrigger_proto::any;
use outrigger_proto::json::Schema;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::clusters::rfc3339_millis;
use super::query::{DumpEntry, Dumped, ResourceState};
use super::reply::{Parameters, Reply};

const REDACTED: &str = "[redacted]";
/// `[redacted]` as the JSON of a `bytes` field.
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

/// One type of resource in its dump message.
struct Section {
    /// Full name of the resource's message.
    resource: &'static str,
    /// `envoy.admin.v3.` and this is the dump message.
    dump: &'static str,
    /// The field of static resources, and the message of its elements.
    static_field: (&'static str, &'static str),
    /// The field of those in effect.
    active_field: (&'static str, &'static str),
    /// The field of those that warm.
    warming_field: Option<(&'static str, &'static str)>,
    /// The field, in those elements, of the resource itself.
    key: &'static str,
}

/// In Envoy's order; endpoints only on request.
const SECTIONS: &[Section] = &[
    Section {
        resource: "envoy.config.cluster.v3.Cluster",
        dump: "ClustersConfigDump",
        static_field: ("static_clusters", "StaticCluster"),
        active_field: ("dynamic_active_clusters", "DynamicCluster"),
        warming_field: Some(("dynamic_warming_clusters", "DynamicCluster")),
        key: "cluster",
    },
    Section {
        resource: "envoy.config.endpoint.v3.ClusterLoadAssignment",
        dump: "EndpointsConfigDump",
        static_field: ("static_endpoint_configs", "StaticEndpointConfig"),
        active_field: ("dynamic_endpoint_configs", "DynamicEndpointConfig"),
        warming_field: None,
        key: "endpoint_config",
    },
    Section {
        resource: "envoy.config.listener.v3.Listener",
        dump: "ListenersConfigDump",
        static_field: ("static_listeners", "StaticListener"),
        active_field: ("dynamic_listeners", "DynamicListener"),
        warming_field: Some(("dynamic_listeners", "DynamicListener")),
        key: "listener",
    },
    Section {
        resource: "envoy.config.route.v3.RouteConfiguration",
        dump: "RoutesConfigDump",
        static_field: ("static_route_configs", "StaticRouteConfig"),
        active_field: ("dynamic_route_configs", "DynamicRouteConfig"),
        warming_field: None,
        key: "route_config",
    },
    Section {
        resource: "envoy.extensions.transport_sockets.tls.v3.Secret",
        dump: "SecretsConfigDump",
        static_field: ("static_secrets", "StaticSecret"),
        active_field: ("dynamic_active_secrets", "DynamicSecret"),
        warming_field: Some(("dynamic_warming_secrets", "DynamicSecret")),
        key: "secret",
    },
    Section {
        resource: "envoy.config.core.v3.TypedExtensionConfig",
        dump: "EcdsConfigDump",
        // None can be static.
        static_field: ("ecds_filters", "EcdsFilterConfig"),
        active_field: ("ecds_filters", "EcdsFilterConfig"),
        warming_field: None,
        key: "ecds_filter",
    },
];

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
const EXTENSION: &str = "envoy.config.core.v3.TypedExtensionConfig";
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

/// Renders a dump. Loads the descriptors for as long as it runs.
pub(super) fn config_dump(dumped: &Dumped, parameters: &Parameters) -> Reply {
    let names = match parameters.get("name_regex").map(Regex::new).transpose() {
        Ok(names) => names,
        Err(error) => {
            return Reply::bad_request(format!("Error while parsing name_regex: {error}\n"));
        }
    };
    let schema = match Schema::load() {
        Ok(schema) => schema,
        Err(error) => {
            return Reply::with(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
    };
    let printer = Printer { schema };
    let with_endpoints = parameters.has("include_eds");
    let mut configs = Vec::new();
    if let Some((bytes, at)) = &dumped.bootstrap {
        let mut bootstrap = printer.message("envoy.config.bootstrap.v3.Bootstrap", bytes);
        if let Some(bootstrap) = bootstrap.as_object_mut() {
            bootstrap.remove("@type");
        }
        configs.push(json!({
            "@type": dump_type("BootstrapConfigDump"),
            "bootstrap": bootstrap,
            "last_updated": timestamp(*at),
        }));
    }
    for section in SECTIONS {
        let is_shown = match section.resource {
            ENDPOINTS => with_endpoints,
            // As in Envoy, where nothing takes one there is no dump of them.
            EXTENSION => dumped.resources.iter().any(|entry| holds(entry, EXTENSION)),
            _ => true,
        };
        if is_shown {
            configs.push(printer.section(section, dumped, names.as_ref()));
        }
    }

    let mask: Option<Vec<&str>> = parameters.get("mask").map(|mask| mask.split(',').collect());
    match (parameters.get("resource"), mask) {
        (None, None) => Reply::json(&json!({"configs": configs})),
        (None, Some(paths)) => {
            let masked = configs.into_iter().filter_map(|config| apply_mask(config, &paths));
            let masked: Vec<Json> = masked.collect();
            if masked.is_empty() {
                return Reply::bad_request(format!(
                    "FieldMask {} could not be successfully applied to any configs.\n",
                    paths.join(",")
                ));
            }
            Reply::json(&json!({"configs": masked}))
        }
        (Some(resource), mask) => one_resource(&configs, resource, mask.as_deref()),
    }
}

/// `?resource=`: the elements of one repeated field.
fn one_resource(configs: &[Json], resource: &str, mask: Option<&[&str]>) -> Reply {
    if resource == "bootstrap" {
        return Reply::bad_request(
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field\n",
        );
    }
    let section = SECTIONS.iter().find_map(|section| {
        let fields =
            [Some(section.static_field), Some(section.active_field), section.warming_field];
        let field = fields.into_iter().flatten().find(|(field, _)| *field == resource)?;
        Some((section, field.1))
    });
    let Some((section, element)) = section else {
        return Reply::with(
            StatusCode::NOT_FOUND,
            format!("{resource} not found in config dump\n"),
        );
    };
    let element_type = dump_type(&format!("{}.{element}", section.dump));
    let elements = configs.iter().filter_map(|config| config.get(resource)?.as_array()).flatten();
    let has_elements = elements.clone().next().is_some();
    let elements: Vec<Json> = elements
        .filter_map(|element| {
            let mut element = element.clone();
            if let Some(element) = element.as_object_mut() {
                element.insert("@type".to_owned(), json!(element_type));
            }
            match mask {
                Some(paths) => apply_mask(element, paths),
                None => Some(element),
            }
        })
        .collect();
    if let (true, Some(paths)) = (elements.is_empty() && has_elements, mask) {
        let paths = paths.join(",");
        let reason = format!("FieldMask {paths} could not be successfully used.\n");
        return Reply::bad_request(reason);
    }
    match elements.is_empty() {
        true => Reply::json(&json!({})),
        false => Reply::json(&json!({"configs": elements})),
    }
}

fn holds(entry: &DumpEntry, message: &str) -> bool {
    any::message_name(&entry.type_url) == message
}

fn dump_type(name: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{name}")
}

struct Printer {
    schema: Schema,
}

impl Printer {
    fn section(&self, section: &Section, dumped: &Dumped, names: Option<&Regex>) -> Json {
        let mut dump = Map::new();
        dump.insert("@type".to_owned(), json!(dump_type(section.dump)));
        let wanted = dumped.resources.iter().filter(|entry| {
            holds(entry, section.resource) && names.is_none_or(|names| names.is_match(&entry.name))
        });
        for entry in wanted {
            let field = match entry.state {
                ResourceState::Static => section.static_field,
                ResourceState::Active => section.active_field,
                ResourceState::Warming => section.warming_field.unwrap_or(section.active_field),
            };
            let element = self.element(section, entry);
            let list = dump.entry(field.0).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(element);
            }
        }
        Json::Object(dump)
    }

    fn element(&self, section: &Section, entry: &DumpEntry) -> Json {
        let mut state = Map::new();
        if entry.state != ResourceState::Static {
            state.insert("version_info".to_owned(), json!(entry.version));
        }
        if !entry.bytes.is_empty() {
            let message = self.message(section.resource, &entry.bytes);
            state.insert(section.key.to_owned(), message);
            state.insert("last_updated".to_owned(), json!(timestamp(entry.last_updated)));
        }
        let error = entry.error.as_ref().map(|error| {
            let mut failure = json!({
                "last_update_attempt": timestamp(error.last_update_attempt),
                "details": error.details,
                "version_info": error.version,
            });
            if let Some(failure) = failure.as_object_mut()
                && !error.failed_configuration.is_empty()
            {
                let message = self.message(section.resource, &error.failed_configuration);
                failure.insert("failed_configuration".to_owned(), message);
            }
            failure
        });

        // A discovered listener is wrapped: it may be in effect and warming at once.
        if section.resource == LISTENER && entry.state != ResourceState::Static {
            let mut element = Map::new();
            element.insert("name".to_owned(), json!(&*entry.name));
            if !entry.bytes.is_empty() {
                let key = match entry.state {
                    ResourceState::Warming => "warming_state",
                    _ => "active_state",
                };
                element.insert(key.to_owned(), Json::Object(state));
            }
            if let Some(error) = error {
                element.insert("error_state".to_owned(), error);
            }
            return Json::Object(element);
        }
        if section.resource == SECRET {
            state.insert("name".to_owned(), json!(&*entry.name));
        }
        if let Some(error) = error {
            state.insert("error_state".to_owned(), error);
        }
        Json::Object(state)
    }

    /// A message with its `@type`, redacted. What cannot be printed (it holds a message that we have no descriptor for) is
    /// named and left out, for nobody could say what in it is secret.
    fn message(&self, name: &str, bytes: &[u8]) -> Json {
        let mut message = match self.schema.print(name, bytes) {
            Ok(message) => message,
            Err(error) => json!({"not_printable": error.to_string()}),
        };
        redact(&mut message);
        if let Some(message) = message.as_object_mut() {
            message.insert("@type".to_owned(), json!(format!("type.googleapis.com/{name}")));
        }
        message
    }
}

/// Takes out what Envoy's protos mark as sensitive: private keys, passwords, session ticket keys, generic secrets. Returns
/// whether there was anything.
pub(super) fn redact(value: &mut Json) -> bool {
    match value {
        Json::Object(fields) => fields.iter_mut().fold(false, |any, (key, field)| {
            let taken = match key.as_str() {
                "private_key" | "password" | "pkcs12" | "keys" | "secret" | "secrets"
                | "inline_private_key" | "hmac_secret" | "token_secret" => blank(field),
                _ => redact(field),
            };
            any | taken
        }),
        Json::Array(items) => items.iter_mut().fold(false, |any, item| any | redact(item)),
        _ => false,
    }
}

/// Replaces every text in a value. Returns whether there was one.
fn blank(value: &mut Json) -> bool {
    match value {
        Json::Object(fields) => fields.iter_mut().fold(false, |any, (key, field)| {
            let is_bytes = key == "inline_bytes" && field.is_string();
            let taken = match is_bytes {
                true => {
                    *field = json!(REDACTED_BYTES);
                    true
                }
                false => blank(field),
            };
            any | taken
        }),
        Json::Array(items) => items.iter_mut().fold(false, |any, item| any | blank(item)),
        Json::String(text) => {
            *text = REDACTED.to_owned();
            true
        }
        _ => false,
    }
}

/// Keeps only what the paths name; `None` if that is nothing. `@type` stays wherever something stays.
fn apply_mask(value: Json, paths: &[&str]) -> Option<Json> {
    let Json::Object(fields) = value else { return None };
    let mut kept = Map::new();
    for (key, field) in fields {
        if key == "@type" {
            kept.insert(key, field);
            continue;
        }
        if paths.contains(&key.as_str()) {
            kept.insert(key, field);
            continue;
        }
        let prefix = format!("{key}.");
        let below: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix(&prefix)).collect();
        if !below.is_empty()
            && let Some(masked) = apply_mask(field, &below)
        {
            kept.insert(key, masked);
        }
    }
    kept.keys().any(|key| key != "@type").then_some(Json::Object(kept))
}

fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339_millis(u64::try_from(since.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_redacted_wherever_it_stands() {
        let mut value = json!({"a": [{"tls_certificate": {
            "certificate_chain": {"filename": "/c.pem"},
            "private_key": {"filename": "/k.pem"},
            "password": {"inline_bytes": "c2VjcmV0"},
        }}], "session_ticket_keys": {"keys": [{"inline_string": "x"}]}});
        redact(&mut value);
        assert_eq!(
            value,
            json!({"a": [{"tls_certificate": {
                "certificate_chain": {"filename": "/c.pem"},
                "private_key": {"filename": "[redacted]"},
                "password": {"inline_bytes": "W3JlZGFjdGVkXQ=="},
            }}], "session_ticket_keys": {"keys": [{"inline_string": "[redacted]"}]}})
        );
    }

    #[test]
    fn a_mask_keeps_what_its_paths_name_and_the_types() {
        let value = json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": 2}, "d": 3});
        let masked = apply_mask(value.clone(), &["a.b"]).unwrap();
        assert_eq!(masked, json!({"@type": "t", "a": {"@type": "u", "b": 1}}));
        assert_eq!(apply_mask(value, &["x"]), None);
    }
}
