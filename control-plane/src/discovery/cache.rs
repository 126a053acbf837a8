//! What can be served: resources encoded once, and the view of them that one kind of client has.

use crate::discovery::resource_type::ResourceType;
use crate::model::Kind;
use bytes::Bytes;
use outrigger_proto::any;
use prost::{Message, Name};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// A mesh object by kind and name.
pub(crate) type ObjectName = (Kind, Arc<str>);

/// A resource, encoded once and shared by every stream that serves it.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Unique within its type and view.
    pub(crate) name: Arc<str>,
    /// Hash of the content, so the same after a restart.
    pub(crate) version: Arc<str>,
    /// Whether it belongs to the answer of a wildcard subscription. The listeners of gRPC clients do not.
    pub(crate) in_wildcard: bool,
    /// The mesh objects that it was made of, for their status.
    pub(crate) origins: Box<[ObjectName]>,
    /// An encoded `envoy.service.discovery.v3.Resource`; its last field is the `Any`.
    delta: Bytes,
    /// The encoded `google.protobuf.Any` within `delta`.
    any: Bytes,
}

impl Resource {
    /// Encodes a message. Map fields with more than one entry must not occur in it: their order on the wire, and so the
    /// version, would be random.
    pub(crate) fn new<M: Name>(name: &str, message: &M, origins: Vec<ObjectName>) -> Self {
        let any = any::pack(message).encode_to_vec();
        let version = content_hash(&any);
        let head = outrigger_proto::envoy::service::discovery::v3::Resource {
            name: name.to_owned(),
            version: version.clone(),
            ..Default::default()
        };
        let mut delta = head.encode_to_vec();
        put_bytes_field(2, &any, &mut delta);
        let delta = Bytes::from(delta);
        let any = delta.slice(delta.len() - any.len()..);
        Self {
            name: name.into(),
            version: version.into(),
            in_wildcard: true,
            origins: origins.into(),
            delta,
            any,
        }
    }

    /// The same, served only to clients that ask for it by name.
    pub(crate) fn by_name_only(mut self) -> Self {
        self.in_wildcard = false;
        self
    }

    /// Whether the other one is the same to clients and in status.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
            && self.in_wildcard == other.in_wildcard
            && self.origins == other.origins
    }

    /// As it stands in a delta response.
    pub(crate) fn as_delta(&self) -> &Bytes {
        &self.delta
    }

    /// As it stands in a state-of-the-world response.
    pub(crate) fn as_any(&self) -> &Bytes {
        &self.any
    }
}

/// Appends a length-delimited field (wire type 2) to an encoded message.
pub(crate) fn put_bytes_field(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// 128 bits of SHA-256, in hexadecimal.
pub(crate) fn content_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text = String::with_capacity(32);
    for byte in digest.iter().take(16) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Resources of one type by name.
pub(crate) type ResourceMap = BTreeMap<Arc<str>, Arc<Resource>>;

/// Names without their value being known yet.
pub(crate) type Names = BTreeSet<Arc<str>>;

/// The resources of one type in a view.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeView {
    /// `version_info` of a state-of-the-world response, `system_version_info` of a delta one.
    pub(crate) version: Arc<str>,
    /// What exists. The same pointer as in the view before if nothing changed, `held` included.
    pub(crate) resources: Arc<ResourceMap>,
    /// What is not known yet: neither sent nor reported as removed, whoever asks.
    pub(crate) held: Arc<Names>,
}

/// Everything that one kind of client can be served.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Revision of the configuration that it was made of.
    pub(crate) revision: u64,
    /// Version of the registry that it was made of.
    pub(crate) live: u64,
    /// By [`ResourceType::index`].
    pub(crate) types: [TypeView; 5],
}

impl View {
    /// The resources of a type.
    pub(crate) fn of(&self, kind: ResourceType) -> &TypeView {
        &self.types[kind.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_proto::envoy::config::cluster::v3::Cluster;
    use outrigger_proto::envoy::service::discovery::v3::Resource as Wire;
    use outrigger_proto::google::protobuf::Any;

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.to_owned(), ..Default::default() }
    }

    #[test]
    fn a_resource_is_encoded_once_for_both_protocol_variants() {
        let resource = Resource::new("a", &cluster("a"), Vec::new());
        let delta = Wire::decode(resource.as_delta().clone()).unwrap();
        let any = Any::decode(resource.as_any().clone()).unwrap();
        assert_eq!(delta.name, "a");
        assert_eq!(delta.version, &*resource.version);
        assert_eq!(delta.resource, Some(any.clone()));
        assert_eq!(any.type_url, ResourceType::Cluster.url());
        assert_eq!(Cluster::decode(any.value.as_slice()).unwrap(), cluster("a"));
    }

    #[test]
    fn the_version_is_a_function_of_the_content() {
        let version = |name| Resource::new("x", &cluster(name), Vec::new()).version;
        assert_eq!(version("a"), version("a"));
        assert_ne!(version("a"), version("b"));
    }

    #[test]
    fn type_urls_are_those_of_the_messages() {
        use outrigger_proto::envoy::config::{endpoint, listener, route};
        use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
        assert_eq!(ResourceType::Secret.url(), any::type_url::<Secret>());
        assert_eq!(ResourceType::Cluster.url(), any::type_url::<Cluster>());
        let url = any::type_url::<endpoint::v3::ClusterLoadAssignment>();
        assert_eq!(ResourceType::from_url(&url), Some(ResourceType::Endpoint));
        let url = any::type_url::<listener::v3::Listener>();
        assert_eq!(ResourceType::from_url(&url), Some(ResourceType::Listener));
        let url = any::type_url::<route::v3::RouteConfiguration>();
        assert_eq!(ResourceType::from_url(&url), Some(ResourceType::Route));
        assert_eq!(ResourceType::from_url("type.googleapis.com/x"), None);
    }
}
