//! Statistics: cells that workers write without a lock, named as Envoy names them.
//!
//! A cell belongs to one thread. Every scope (a cluster, a listener, an HTTP connection manager …) has a struct of
//! cells, and one copy of that struct for each thread that uses it ([`Sharded`]); a scrape adds the copies up. So the
//! request path pays a plain load and store for a count, and nothing else.
//!
//! Reading order: [`cell`] (counter, gauge, response codes), [`histogram`], [`sharded`], [`scope`] (what a scope is
//! called), [`cells`] (every struct of cells), [`derived`] (what is worked out of them), [`grpc`] (calls by method),
//! [`registry`] (the scopes that are alive), then the ways to print them: [`render`] (text and JSON), [`prometheus`].

pub(crate) mod cell;
pub(crate) mod cells;
mod derived;
mod grpc;
pub(crate) mod histogram;
pub(crate) mod prometheus;
pub(crate) mod registry;
pub(crate) mod render;
pub(crate) mod scope;
pub(crate) mod settings;
pub(crate) mod sharded;
#[cfg(test)]
mod tests;

pub(crate) use cell::{Counter, Gauge};
pub(crate) use cells::{AcceptEncodingCells, CompressionCells, RateLimitServiceCells};
pub(crate) use cells::{
    ClusterCells, ClusterManagerCells, ClusterUpdateCells, ConnectionLimitCells, ControlPlaneCells,
    CorsCells, CsrfCells, DecompressionCells, DnsCells, EndpointCells, ExtAuthzCells,
    ExtensionCells, FaultCells, FilesystemCells, HealthCheckCells, HealthFilterCells, HttpCells,
    HttpInspectorCells, HttpListenerCells, JwtCells, ListenerCells, ListenerManagerCells,
    ListenerWorkerCells, NetworkRateLimitCells, OutlierCells, ProxyProtocolCells,
    ProxyProtocolErrorCells, RateLimitCells, RbacCells, RbacShadowCells, RuntimeCells,
    RuntimeUpdateCells, ServerCells, SetMetadataCells, SubscriptionCells, TcpCells, TlsCells,
    TlsInspectorCells,
};
pub(crate) use cells::{GrpcLogCells, LoadReporterCells, TracerCells, TracingCells};
pub(crate) use grpc::GrpcMethodCells;
pub(crate) use registry::{NamedAs, NamedText, Registry};
pub(crate) use scope::Scope;
pub(crate) use sharded::{Sharded, set_shard};
