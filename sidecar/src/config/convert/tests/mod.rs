//! The conversion as a whole: one bootstrap that uses most of what is supported ([`harness`] reads it from `base.yaml`),
//! and tests that change one field of it.

mod accepted;
mod asking;
mod compression;
mod connections;
mod constraints;
mod discovered;
mod ext_authz;
mod grpc_access_log;
mod grpc_stats;
mod harmless;
mod harness;
mod health_checks;
mod http1;
mod jwt_authn;
mod load_balancing;
mod meshes;
mod otel_access_log;
mod properties;
mod rate_limits;
mod rbac_matchers;
mod redirecting;
mod refused;
mod secrets;
mod stats_config;
mod tracing;
mod typed_struct;
mod unsupported;
