//! What goes over a stream, of either variant, and what a response says.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_proto::google::protobuf::Any;

use crate::xds::Refusal;

/// A request of either variant, without the node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// State of the world.
    StateOfTheWorld(DiscoveryRequest),
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
}

/// A response of either variant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Response {
    /// State of the world.
    StateOfTheWorld(DiscoveryResponse),
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
}

impl Response {
    /// Which type it is about.
    pub(crate) fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(response) => &response.type_url,
            Self::Delta(response) => &response.type_url,
        }
    }

    /// Who answered, if the server says so (`control_plane.identifier`).
    pub(crate) fn control_plane(&self) -> Option<&str> {
        let control_plane = match self {
            Self::StateOfTheWorld(response) => &response.control_plane,
            Self::Delta(response) => &response.control_plane,
        };
        control_plane.as_ref().map(|control_plane| control_plane.identifier.as_str())
    }
}

/// A response taken apart: what is to be applied.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Update {
    /// Resources that we asked for, each name once.
    pub(crate) resources: Vec<Incoming>,
    /// Names that do not exist, or not any more. For listeners and clusters: removed. For other types: never known, or
    /// no longer known to the server; what uses them decides what that means.
    pub(crate) removed: Vec<Arc<str>>,
    /// Resources that cannot even be read.
    pub(crate) refused: Vec<Refusal>,
    /// Why the response as a whole is refused; nothing else is in here then.
    pub(crate) malformed: Option<String>,
    /// Version of the response.
    pub(crate) version: String,
    pub(super) nonce: String,
}

/// One resource of a response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Other names of it, by which it may have been asked for. Of virtual hosts only.
    pub(crate) aliases: Vec<Arc<str>>,
    /// Its version; in the state-of-the-world variant that of the response, unless it has its own.
    pub(crate) version: String,
    /// The resource; `None` is a heartbeat: what we have stays as it is.
    pub(crate) body: Option<Any>,
    /// How long it lives unless it is sent again, or a heartbeat; `None`: for ever.
    pub(crate) ttl: Option<Duration>,
}
