//! What the API asks of the live side: `registry` and `discovery` implement [`MeshView`], `identity` implements
//! [`TokenIssuer`]. Neither blocks for longer than a lock is held.

use crate::identity::RotationStep;
use crate::model::endpoint::Locality;
use crate::model::object::Labels;
use crate::model::{Config, Kind};
use serde::{Serialize, Serializer};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// What is going on in the mesh, as acknowledgements and observations say.
pub trait MeshView: Send + Sync + 'static {
    /// Every client of discovery, sidecars and foreign ones, by node; those that left are named for as long as the view
    /// finds them worth it.
    fn sidecars(&self) -> Vec<SidecarStatus>;

    /// Every instance of a service, or of all: those that are connected, and Endpoint objects.
    fn endpoints(&self, service: Option<&str>) -> Vec<EndpointStatus>;

    /// Who serves the object as it has been since `revision`, and who rejected it. `revision` is the one that last
    /// changed it.
    fn object(&self, kind: Kind, name: &str, revision: u64) -> ObjectStatus;

    /// Who has `revision` in effect, of the clients that are connected. A client that the revision does not touch has it
    /// in effect as soon as that is known.
    fn acked(&self, revision: u64) -> Acked;

    /// What `config` in force would change at the clients that are connected. Translates it: not for the threads that
    /// serve others.
    fn effect(&self, config: Config) -> Effect;

    /// Notified whenever one of the answers may have changed, with a number that grows.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// How many clients have a revision in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked {
    /// They have it.
    pub acked: usize,
    /// They are connected.
    pub total: usize,
    /// The others, by node.
    pub laggards: Vec<Laggard>,
}

/// A client that has not a revision in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laggard {
    /// Its node id.
    pub node: String,
    /// Why, in words: no answer yet, or what it rejected.
    pub reason: String,
}

/// What a configuration would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// Connected clients that would be sent something.
    pub changed: usize,
    /// Connected clients.
    pub total: usize,
    /// Those that would be sent something.
    pub sidecars: Vec<SidecarEffect>,
}

/// What would change at one client, in resources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarEffect {
    /// Its node id.
    pub node: String,
    /// Its service.
    pub service: String,
    /// Listeners.
    #[serde(skip_serializing_if = "Difference::is_none")]
    pub listeners: Difference,
    /// Route configurations.
    #[serde(skip_serializing_if = "Difference::is_none")]
    pub routes: Difference,
    /// Clusters.
    #[serde(skip_serializing_if = "Difference::is_none")]
    pub clusters: Difference,
    /// Load assignments.
    #[serde(skip_serializing_if = "Difference::is_none")]
    pub endpoints: Difference,
}

/// Resources of one type that would be other ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// New.
    pub added: usize,
    /// With other content.
    pub changed: usize,
    /// Gone.
    pub removed: usize,
}

impl Difference {
    /// All of them.
    pub fn total(&self) -> usize {
        self.added + self.changed + self.removed
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.total() == 0
    }
}

/// A client of discovery.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// Node id.
    pub node: String,
    /// Its service, from its certificate or (on the insecure port) its node.
    pub service: String,
    /// Its instance.
    pub instance: String,
    /// Whether a stream stands.
    pub connected: bool,
    /// What it is.
    pub client: Client,
    /// The newest revision it has in effect.
    pub revision: u64,
    /// Its listeners.
    pub listeners: TypeStatus,
    /// Its routes.
    pub routes: TypeStatus,
    /// Its clusters.
    pub clusters: TypeStatus,
    /// Its endpoints.
    pub endpoints: TypeStatus,
    /// Its secrets.
    pub secrets: TypeStatus,
    /// When its certificate ends; a client without one has none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub certificate_expires: Option<SystemTime>,
    /// When it was last heard of.
    #[serde(serialize_with = "time")]
    pub last_contact: SystemTime,
}

/// What a client of discovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// A sidecar of ours.
    Outrigger,
    /// Envoy.
    Envoy,
    /// A gRPC library.
    Grpc,
}

/// How a client stands with one resource type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state")]
pub enum TypeStatus {
    /// What was sent was acknowledged, or nothing was asked for.
    #[serde(rename = "ok")]
    Ok,
    /// An answer is awaited.
    #[serde(rename = "pending")]
    Pending,
    /// The last answer was a rejection.
    #[serde(rename = "REJECTED")]
    Rejected {
        /// What the client said.
        reason: String,
    },
}

/// How an object stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// The sum.
    pub state: ObjectState,
    /// Clients that have it in effect.
    pub acked: usize,
    /// Clients that it concerns.
    pub total: usize,
    /// Who rejected what, and what else stands in the way.
    pub problems: Vec<ObjectProblem>,
}

/// How an object stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ObjectState {
    /// Every client that it concerns (perhaps none) has it in effect.
    Accepted,
    /// Every client that it concerns rejected it.
    Rejected,
    /// Some rejected it.
    Partial,
    /// None rejected it, not all have answered.
    Pending,
}

/// Something in the way of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectProblem {
    /// The client.
    pub node: String,
    /// What it said.
    pub reason: String,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Its service.
    pub service: String,
    /// Its name: of the instance, or of the Endpoint object.
    pub instance: String,
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Whether it gets requests.
    pub health: EndpointHealth,
    /// When the last of the callers that ejected it takes it back.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_time")]
    pub ejected_until: Option<SystemTime>,
    /// Why it was ejected, e.g. `consecutive_5xx`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_because: Option<String>,
    /// Its share of the requests among its peers.
    pub weight: u32,
    /// Requests under way, summed over the callers that report.
    pub active_requests: u64,
    /// Where it runs.
    pub locality: Locality,
    /// Labels of the instance.
    pub labels: Labels,
    /// Nodes that report on it.
    pub seen_by: Vec<String>,
}

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointHealth {
    /// It does.
    Healthy,
    /// It does not, of at least one caller: its health checks fail.
    Unhealthy,
    /// It is about to leave.
    Draining,
    /// At least one caller has ejected it.
    Ejected,
}

/// Issues join tokens.
pub trait TokenIssuer: Send + Sync + 'static {
    /// A token that lets `uses` instances of `service` join within `ttl`.
    ///
    /// # Errors
    /// In words, if it could not be recorded.
    fn issue(&self, service: &str, ttl: Duration, uses: u32) -> Result<IssuedToken, String>;
}

/// A join token.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// From then on it is refused.
    pub expires: SystemTime,
}

/// A point in time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let time = OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

fn optional_time<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Identities and the authority behind them. Calls that change something block until it is durable.
pub trait Identities: Send + Sync + 'static {
    /// Every instance that has a certificate which has not expired.
    fn identities(&self) -> Vec<IdentityStatus>;

    /// Refuses the identities that a name means from now on, and closes what they have open: those of a service, or that
    /// of an instance (`INSTANCE` or `INSTANCE.SERVICE`). The join tokens of a service that is revoked are useless too.
    ///
    /// # Errors
    /// See [`RevokeError`].
    fn revoke(&self, name: &str) -> Result<Revoked, RevokeError>;

    /// How the authority stands.
    fn authority(&self) -> AuthorityStatus;

    /// Begins to rotate the root, unless that is under way.
    ///
    /// # Errors
    /// In words, if it could not be recorded.
    fn rotate(&self) -> Result<(), String>;
}

/// An instance with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStatus {
    /// Its service.
    pub service: String,
    /// Its name.
    pub instance: String,
    /// Whether it is attached.
    pub connected: bool,
    /// Serial number of its newest certificate, in hexadecimal.
    pub serial: String,
    /// End of its newest certificate.
    #[serde(serialize_with = "time")]
    pub expires: SystemTime,
    /// Whether it is refused.
    pub revoked: bool,
}

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// Who is refused.
    pub identities: Vec<RevokedIdentity>,
    /// Join tokens that are useless now.
    pub tokens: usize,
}

/// An instance that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedIdentity {
    /// Its service.
    pub service: String,
    /// Its name.
    pub instance: String,
    /// Unexpired certificates that it had.
    pub certificates: usize,
}

/// Why nothing was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeError {
    /// Nobody of this name has a certificate.
    Unknown,
    /// Instances of several services have this name; these are their full ones.
    Ambiguous(Vec<String>),
    /// The store failed.
    Failed(String),
}

/// The certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// The trusted roots, the one that signs first.
    pub roots: Vec<RootStatus>,
    /// End of the certificate that signs leaves.
    #[serde(serialize_with = "time")]
    pub issuing_expires: SystemTime,
    /// The rotation under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
}

/// A trusted root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// SHA-256 of its public key, base64url: what join tokens pin.
    pub pin: String,
    /// Its end.
    #[serde(serialize_with = "time")]
    pub expires: SystemTime,
}

/// A rotation of the root under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// `trusting`: the new root is handed out beside the old one. `issuing`: the new one signs.
    pub step: RotationStep,
    /// When the step began.
    #[serde(serialize_with = "time")]
    pub since: SystemTime,
    /// Members that the step waits for.
    pub waiting_for: Vec<Waiting>,
}

/// A member that a rotation waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its node id.
    pub node: String,
    /// Why.
    pub reason: String,
}
