//! Kind `Gateway`: a door into the mesh. A sidecar whose service has the name of a Gateway is that gateway.

use super::object::Labels;
use serde::Serialize;

/// A door into the mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// A DNS label.
    #[serde(skip)]
    pub name: String,
    /// Labels of the object.
    #[serde(skip)]
    pub labels: Labels,
    /// At least one; names and ports are unique.
    pub listeners: Vec<GatewayListener>,
}

/// A port that is open to the outside.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayListener {
    /// A DNS label.
    pub name: String,
    /// 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: GatewayProtocol,
    /// Only requests for this host are routed: a name, `*.suffix`, or `*` (when absent) for any.
    pub hostname: String,
}

/// What is spoken on a gateway's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayProtocol {
    /// HTTP/1.1 and HTTP/2 without TLS.
    Http,
}
