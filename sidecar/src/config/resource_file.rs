//! A file of resources (`path_config_source`): an `envoy.service.discovery.v3.DiscoveryResponse` in YAML or JSON.

use std::path::Path;

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use outrigger_proto::envoy::service::discovery::v3::{DiscoveryResponse, Resource};
use outrigger_proto::envoy::service::runtime::v3::Runtime;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::{Document, JsonError, Problem, Schema, parse_document};
use prost::Name;

use super::bootstrap::{ConfigError, Located};
use super::problem::Rejected;

/// What is in a file.
#[derive(Debug, Clone)]
pub struct ResourceFile {
    /// The message. Every resource in it is of the type that was asked for, and can be converted.
    pub response: DiscoveryResponse,
    /// Fields that do not exist: they are passed over, as in Envoy, but somebody should know.
    pub unknown: Vec<Located>,
}

/// Reads a file. One bad resource makes the whole file bad: whoever writes one sees all of it.
///
/// With `deny_unknown_fields` a field that does not exist makes the file bad too.
///
/// # Errors
/// With everything that is wrong, each with its line and field.
pub fn read(
    path: &Path,
    type_url: &str,
    deny_unknown_fields: bool,
) -> Result<ResourceFile, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let origin = path.display().to_string();
    let broken = |source| ConfigError::Text { origin: origin.clone(), source };
    let document = parse_document(&text).map_err(broken)?;
    let schema = Schema::load().map_err(broken)?;
    let located = |document: &Document, path: String, reason: String| Located {
        origin: origin.clone(),
        position: document.positions.of(&path),
        problem: Rejected { path, reason },
    };
    let of_mapping = |problems: Vec<Problem>| -> Vec<Located> {
        problems
            .into_iter()
            .map(|Problem { path, reason }| located(&document, path, reason))
            .collect()
    };
    let value = document.value.clone();
    let (mut response, unknown): (DiscoveryResponse, _) =
        match schema.read_value(value.clone(), true) {
            Ok(response) => (response, Vec::new()),
            Err(JsonError::Mapping(problems)) if deny_unknown_fields => {
                return Err(ConfigError::Rejected(of_mapping(problems)));
            }
            Err(JsonError::Mapping(unknown)) => match schema.read_value(value, false) {
                Ok(response) => (response, of_mapping(unknown)),
                Err(JsonError::Mapping(problems)) => {
                    return Err(ConfigError::Rejected(of_mapping(problems)));
                }
                Err(error) => return Err(broken(error)),
            },
            Err(error) => return Err(broken(error)),
        };
    type_url.clone_into(&mut response.type_url);
    let mut problems = Vec::new();
    for (index, body) in response.resources.iter().enumerate() {
        for Rejected { path, reason } in
            check(body, type_url, deny_unknown_fields).err().into_iter().flatten()
        {
            let separator = if path.is_empty() { "" } else { "." };
            problems.push(located(
                &document,
                format!("resources[{index}]{separator}{path}"),
                reason,
            ));
        }
    }
    if problems.is_empty() {
        Ok(ResourceFile { response, unknown })
    } else {
        problems.sort_by_key(|located| located.position.map(|at| (at.line, at.column)));
        Err(ConfigError::Rejected(problems))
    }
}

/// Whether a resource is of this type and can be converted.
fn check(body: &Any, type_url: &str, deny_unknown_fields: bool) -> Result<(), Vec<Rejected>> {
    if any::holds::<Resource>(body) {
        let Resource { resource, .. } = unpack(body)?;
        let inner = resource.map_or(Ok(()), |inner| check(&inner, type_url, deny_unknown_fields));
        return inner.map_err(|rejected| {
            let deeper = |Rejected { path, reason }| {
                let separator = if path.is_empty() { "" } else { "." };
                Rejected { path: format!("resource{separator}{path}"), reason }
            };
            rejected.into_iter().map(deeper).collect()
        });
    }
    if any::message_name(&body.type_url) != any::message_name(type_url) {
        let (wanted, found) = (any::message_name(type_url), any::message_name(&body.type_url));
        return Err(vec![Rejected {
            path: "@type".to_owned(),
            reason: format!("is a {found}: this file is for {wanted}"),
        }]);
    }
    let body = &*super::typed_struct::resolve(body, deny_unknown_fields)?;
    if any::holds::<Listener>(body) {
        super::listener::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<RouteConfiguration>(body) {
        super::route::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<Cluster>(body) {
        super::cluster::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<ClusterLoadAssignment>(body) {
        super::endpoint::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<Secret>(body) {
        super::secret::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<TypedExtensionConfig>(body) {
        super::extension::from_proto(unpack(body)?).map(drop)
    } else if any::holds::<Runtime>(body) {
        super::runtime::from_proto(unpack(body)?).map(drop)
    } else {
        Ok(())
    }
}

fn unpack<M: Name + Default>(body: &Any) -> Result<M, Vec<Rejected>> {
    any::unpack(body)
        .map_err(|error| vec![Rejected { path: String::new(), reason: error.to_string() }])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use outrigger_proto::any::type_url;

    use super::*;

    const GOOD: &str = "version_info: '1'
resources:
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: api
  connect_timeout: 1s
";

    fn read_text(text: &str) -> Result<ResourceFile, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let read = read(file.path(), &type_url::<Cluster>(), false);
        read.map_err(|error| error.to_string().replace(&*file.path().to_string_lossy(), "FILE"))
    }

    #[test]
    fn a_file_has_a_version_and_resources() {
        let ResourceFile { response, unknown } = read_text(GOOD).unwrap();
        assert_eq!((&*response.version_info, response.resources.len()), ("1", 1));
        assert_eq!(response.type_url, type_url::<Cluster>());
        assert!(unknown.is_empty());
    }

    #[test]
    fn a_bad_field_is_named_with_its_line() {
        let error = read_text(&GOOD.replace("1s", "-1s")).unwrap_err();
        assert_eq!(error, "FILE:5:20: resources[0].connect_timeout: must not be negative");
    }

    #[test]
    fn a_resource_of_another_type_is_refused() {
        let error = read_text(
            &GOOD
                .replace("config.cluster.v3.Cluster", "config.route.v3.RouteConfiguration")
                .replace("  connect_timeout: 1s\n", ""),
        )
        .unwrap_err();
        assert!(error.contains("FILE:3:") && error.contains("this file is for"), "{error}");
    }

    #[test]
    fn a_field_that_does_not_exist_is_passed_over_and_reported() {
        let file = read_text(&GOOD.replace("connect_timeout", "connect_timeuot")).unwrap();
        assert_eq!(file.response.resources.len(), 1);
        assert!(file.unknown[0].to_string().contains(":5:"), "{:?}", file.unknown);
    }

    #[test]
    fn half_a_file_is_no_file() {
        assert!(read_text("version_info: [").unwrap_err().starts_with("FILE"));
        assert!(read_text("resources: {}").is_err());
    }
}
