//! What runs in containers beside applications.
//!
//! - [`pause`]: owns a network that application and sidecar share; [`healthcheck`]: tells the engine that a sidecar is ready.
//! - [`run`]: sidecar and application in one container; [`install`]: how the binary gets there.

pub(crate) mod healthcheck;
pub(crate) mod install;
pub(crate) mod pause;
pub(crate) mod run;
