//! Kind `Mesh`: the defaults of the whole mesh.

use super::duration;
use super::object::Labels;
use serde::Serialize;
use std::time::Duration;

/// The name of the one Mesh object.
pub const NAME: &str = "default";

/// The defaults of the whole mesh. There is one, named `default`; while it was never applied, [`Mesh::default`] is in
/// force.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// Always [`NAME`].
    #[serde(skip)]
    pub name: String,
    /// Labels of the object.
    #[serde(skip)]
    pub labels: Labels,
    /// The SPIFFE trust domain: lower-case letters, digits, `.`, `-` and `_`.
    pub trust_domain: String,
    /// Whether callers without a certificate of the mesh are served.
    pub mtls: MtlsMode,
    /// What happens to a request that no Policy names.
    pub default_action: Action,
    /// What happens to requests for hosts the mesh does not know.
    pub outbound: OutboundMode,
    /// Life of a workload certificate, from ten seconds up.
    #[serde(serialize_with = "duration::serialize")]
    pub leaf_ttl: Duration,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            labels: Labels::new(),
            trust_domain: "outrigger.local".to_owned(),
            mtls: MtlsMode::Strict,
            default_action: Action::Allow,
            outbound: OutboundMode::Passthrough,
            leaf_ttl: Duration::from_secs(24 * 3600),
        }
    }
}

/// Whether callers without a certificate of the mesh are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MtlsMode {
    /// Only callers with a certificate of the mesh are served.
    Strict,
    /// Plaintext callers are served too.
    Permissive,
}

/// A verdict on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is served.
    Allow,
    /// It is refused with status 403.
    Deny,
}

/// What happens to requests for hosts the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboundMode {
    /// They go where they were going.
    Passthrough,
    /// They are refused.
    RegistryOnly,
}
