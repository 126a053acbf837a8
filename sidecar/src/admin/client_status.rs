//! The client status discovery service (CSDS), `envoy.service.status.v3.ClientStatusDiscoveryService`: what a control plane
//! sent, whether it was accepted, and what of it is still asked for, in one message for tools that speak gRPC.
//!
//! It is served by HTTP/2 at the address of the admin interface, in the form that gRPC's own clients use (gRFC A40):
//! `generic_xds_configs` with a `client_status` for each resource. A resource that warms is shown as it will be, for it was
//! accepted; what was refused keeps the accepted version beside the error. Secrets are redacted as in `/config_dump`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream;
use http::{Request, Response};
use hyper::body::Incoming;
use outrigger_proto::any;
use outrigger_proto::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use outrigger_proto::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use outrigger_proto::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse,
};
use outrigger_proto::google::protobuf::{Any, Timestamp};
use outrigger_proto::json::Schema;
use prost::Message;
use tonic::body::Body;
use tonic::{Status, Streaming};
use tower_service::Service as _;

use super::config_dump::redact;
use super::query::{DumpEntry, Dumped, Missing, Query, ResourceState};
use super::server::{Admin, ask};

const PATH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/";

/// Whether a path is a method of the service.
pub(super) fn is_asked_for(path: &str) -> bool {
    path.starts_with(PATH)
}

/// Answers a method of the service.
pub(super) async fn answer(admin: &Arc<Admin>, request: Request<Incoming>) -> Response<Body> {
    let service = Service { admin: Arc::clone(admin) };
    match ClientStatusDiscoveryServiceServer::new(service).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[derive(Clone)]
struct Service {
    admin: Arc<Admin>,
}

type Responses =
    Pin<Box<dyn futures_util::Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Service {
    type StreamClientStatusStream = Responses;

    /// One response for each request.
    async fn stream_client_status(
        &self,
        request: tonic::Request<Streaming<ClientStatusRequest>>,
    ) -> Result<tonic::Response<Responses>, Status> {
        let responses = stream::try_unfold(
            (self.clone(), request.into_inner()),
            |(service, mut requests)| async {
                match requests.message().await? {
                    None => Ok(None),
                    Some(request) => {
                        let response = service.status(request).await?;
                        Ok(Some((response, (service, requests))))
                    }
                }
            },
        );
        Ok(tonic::Response::new(Box::pin(responses)))
    }

    async fn fetch_client_status(
        &self,
        request: tonic::Request<ClientStatusRequest>,
    ) -> Result<tonic::Response<ClientStatusResponse>, Status> {
        Ok(tonic::Response::new(self.status(request.into_inner()).await?))
    }
}

impl Service {
    async fn status(&self, request: ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        // Who asks does not matter.
        let ClientStatusRequest { node_matchers, node: _, exclude_resource_contents } = request;
        if !node_matchers.is_empty() {
            let reason = "node_matchers are not supported: there is one node here";
            return Err(Status::invalid_argument(reason));
        }
        let Ok(dumped) = ask(&self.admin, Query::ConfigDump).await else {
            return Err(Status::unavailable("the server is shutting down"));
        };
        let node = self.admin.info.node.clone();
        let render = move || response(&node, dumped, exclude_resource_contents);
        tokio::task::spawn_blocking(render)
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    }
}

/// The response, of an encoded node and what is in effect. Loads the descriptors for as long as it runs.
fn response(
    node: &[u8],
    dumped: Dumped,
    exclude_contents: bool,
) -> Result<ClientStatusResponse, Status> {
    let schema = Schema::load().map_err(|error| Status::internal(error.to_string()))?;
    let Dumped { bootstrap: _, resources, missing } = dumped;
    let mut configs: Vec<GenericXdsConfig> = Vec::with_capacity(resources.len() + missing.len());
    for entry in resources {
        // What warms comes behind what it is to replace.
        let is_replaced = entry.state == ResourceState::Warming
            && configs.last().is_some_and(|last| {
                last.type_url == entry.type_url
                    && *last.name == *entry.name
                    && !last.is_static_resource
            });
        if is_replaced {
            configs.pop();
        }
        configs.push(known(&schema, entry, exclude_contents));
    }
    configs.extend(missing.into_iter().map(|Missing { type_url, name, does_not_exist }| {
        let status = match does_not_exist {
            true => ClientResourceStatus::DoesNotExist,
            false => ClientResourceStatus::Requested,
        };
        GenericXdsConfig {
            type_url,
            name: name.to_string(),
            client_status: status.into(),
            ..GenericXdsConfig::default()
        }
    }));
    // It was encoded by us.
    let node = Node::decode(node).unwrap_or_default();
    let config =
        ClientConfig { node: Some(node), generic_xds_configs: configs, ..ClientConfig::default() };
    Ok(ClientStatusResponse { config: vec![config] })
}

fn known(schema: &Schema, entry: DumpEntry, exclude_contents: bool) -> GenericXdsConfig {
    let DumpEntry { type_url, name, state, version, last_updated, bytes, error } = entry;
    let contents = |bytes: &[u8]| match exclude_contents || bytes.is_empty() {
        true => None,
        false => redacted(schema, &type_url, bytes),
    };
    let is_static = state == ResourceState::Static;
    let status = match (is_static, &error) {
        (true, _) => ClientResourceStatus::Unknown,
        (false, None) => ClientResourceStatus::Acked,
        (false, Some(_)) => ClientResourceStatus::Nacked,
    };
    let error_state = error.map(|error| UpdateFailureState {
        failed_configuration: contents(&error.failed_configuration),
        last_update_attempt: Some(timestamp(error.last_update_attempt)),
        details: error.details,
        version_info: error.version,
    });
    GenericXdsConfig {
        xds_config: contents(&bytes),
        last_updated: (!bytes.is_empty()).then(|| timestamp(last_updated)),
        name: name.to_string(),
        version_info: version,
        client_status: status.into(),
        error_state,
        is_static_resource: is_static,
        type_url,
        ..GenericXdsConfig::default()
    }
}

/// A resource without what is secret in it. `None` if it cannot be printed (it holds a message that we have no descriptor
/// for), for nobody could say what in it is secret.
fn redacted(schema: &Schema, type_url: &str, bytes: &[u8]) -> Option<Any> {
    let message = any::message_name(type_url);
    let mut printed = schema.print(message, bytes).ok()?;
    let value = match redact(&mut printed) {
        true => schema.encode(message, printed).ok()?,
        false => bytes.to_vec(),
    };
    Some(Any { type_url: type_url.to_owned(), value })
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrigger_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
    use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::{
        Secret, TlsCertificate, secret,
    };

    use super::*;
    use crate::admin::DumpError;

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

    fn entry(name: &str, state: ResourceState, version: &str) -> DumpEntry {
        let mut bytes = vec![0x0a, u8::try_from(name.len()).unwrap()]; // field 1, a string: the name
        bytes.extend_from_slice(name.as_bytes());
        DumpEntry {
            type_url: CLUSTER.to_owned(),
            name: name.into(),
            state,
            version: version.to_owned(),
            last_updated: UNIX_EPOCH + Duration::from_secs(7),
            bytes: bytes.into(),
            error: None,
        }
    }

    fn configs(resources: Vec<DumpEntry>, exclude_contents: bool) -> Vec<GenericXdsConfig> {
        let missing = |name: &str, does_not_exist| Missing {
            type_url: CLUSTER.to_owned(),
            name: name.into(),
            does_not_exist,
        };
        let missing = vec![missing("asked", false), missing("nowhere", true)];
        let dumped = Dumped { bootstrap: None, resources, missing };
        // Field 1, a string of 2 bytes: the id.
        let mut response = response(b"\x0a\x02n1", dumped, exclude_contents).unwrap();
        assert_eq!(response.config.len(), 1);
        let config = response.config.remove(0);
        assert_eq!(config.node.unwrap().id, "n1");
        config.generic_xds_configs
    }

    #[test]
    fn each_resource_has_a_status_and_is_shown_once() {
        let refused = |bytes: &[u8]| DumpEntry {
            bytes: bytes.to_vec().into(),
            error: Some(DumpError {
                failed_configuration: b"\x0a\x03bad".to_vec().into(),
                last_update_attempt: UNIX_EPOCH + Duration::from_secs(9),
                details: "lb_policy: no".to_owned(),
                version: "3".to_owned(),
            }),
            ..entry("bad", ResourceState::Active, "2")
        };
        let shown = configs(
            vec![
                entry("same", ResourceState::Static, ""),
                entry("same", ResourceState::Active, "1"),
                entry("same", ResourceState::Warming, "2"),
                refused(b"\x0a\x03bad"),
                refused(b""),
            ],
            false,
        );
        let seen: Vec<_> = shown
            .iter()
            .map(|it| {
                let status = ClientResourceStatus::try_from(it.client_status).unwrap();
                (it.name.as_str(), it.version_info.as_str(), status, it.xds_config.is_some())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("same", "", ClientResourceStatus::Unknown, true),
                ("same", "2", ClientResourceStatus::Acked, true),
                ("bad", "2", ClientResourceStatus::Nacked, true),
                ("bad", "2", ClientResourceStatus::Nacked, false),
                ("asked", "", ClientResourceStatus::Requested, false),
                ("nowhere", "", ClientResourceStatus::DoesNotExist, false),
            ]
        );
        assert!(shown[0].is_static_resource && !shown[1].is_static_resource);
        assert_eq!(shown[1].last_updated.unwrap().seconds, 7);
        let error = shown[2].error_state.as_ref().unwrap();
        assert_eq!((error.details.as_str(), error.version_info.as_str()), ("lb_policy: no", "3"));
        assert_eq!(error.failed_configuration.as_ref().unwrap().value, b"\x0a\x03bad");
        assert_eq!(shown[3].last_updated, None, "nothing was ever accepted");
    }

    #[test]
    fn contents_are_left_out_where_that_is_asked_for() {
        let shown = configs(vec![entry("a", ResourceState::Active, "1")], true);
        assert_eq!(shown[0].xds_config, None);
        assert_eq!(shown[0].version_info, "1");
    }

    #[test]
    fn private_keys_are_not_shown() {
        let text = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.to_owned())),
                ..DataSource::default()
            })
        };
        let secret = Secret {
            name: "id".to_owned(),
            r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: text("public"),
                private_key: text("private"),
                ..TlsCertificate::default()
            })),
        };
        let entry = DumpEntry {
            type_url: SECRET.to_owned(),
            bytes: secret.encode_to_vec().into(),
            ..entry("id", ResourceState::Active, "1")
        };
        let shown = configs(vec![entry], false);
        let shown: Secret = any::unpack(shown[0].xds_config.as_ref().unwrap()).unwrap();
        let Some(secret::Type::TlsCertificate(shown)) = shown.r#type else { panic!("{shown:?}") };
        assert_eq!(shown.certificate_chain, text("public"));
        assert_eq!(shown.private_key, text("[redacted]"));
    }
}
