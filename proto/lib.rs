//! Wire types of Outrigger.
//!
//! # Layout
//! - [`envoy`], [`xds_core`], [`udpa`], [`google`]: Envoy's xDS v3 messages and services, from the `envoy-types` package.
//! - [`identity`], [`registry`]: our own protocols between sidecar and control plane (`proto/outrigger`).
//! - [`load_balancing`]: load balancing policies that Envoy does not have.
//! - [`demo`]: the gRPC service that the demo's applications speak.
//! - [`json`]: YAML and JSON files in the canonical protobuf mapping, read into Envoy's messages and printed from them.
//! - [`any`]: packing and unpacking of `google.protobuf.Any` by message name.
//!
//! This package holds the one heavy dependency (Envoy's generated types) so that it is built once.

pub mod any;
pub mod json;

pub use envoy_types::pb::opentelemetry::proto as opentelemetry;
pub use envoy_types::pb::xds as xds_core;
pub use envoy_types::pb::{envoy, google, udpa};

/// How a sidecar gets its X.509 identity.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod identity {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("outrigger.identity.v1");
    }
}

/// The live side of the mesh: leases, draining, observations.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod registry {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("outrigger.registry.v1");
    }
}

/// The gRPC service of the demo's innermost application.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod demo {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("outrigger.demo.v1");
    }
}

/// Load balancing policies that Envoy does not have.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod load_balancing {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("outrigger.load_balancing.v1");

        impl prost::Name for PeakEwma {
            const NAME: &'static str = "PeakEwma";
            const PACKAGE: &'static str = "outrigger.load_balancing.v1";
        }
    }
}
