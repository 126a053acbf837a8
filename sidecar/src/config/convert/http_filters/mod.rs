//! HTTP filters, one file a filter: what stands in a connection manager, and what stands in a route.

pub(super) mod buffer;
pub(super) mod compressor;
pub(super) mod cors;
pub(super) mod csrf;
pub(super) mod decompressor;
pub(super) mod ext_authz;
pub(super) mod fault;
pub(super) mod grpc_stats;
pub(super) mod header_mutation;
pub(super) mod health_check;
pub(super) mod jwt_authn;
pub(super) mod local_ratelimit;
pub(super) mod on_demand;
pub(super) mod ratelimit;
