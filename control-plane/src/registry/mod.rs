//! Live sidecars: leases, draining, and what they observe of each other.
//!
//! Reading order:
//! - `instance`: a sidecar as it introduced itself.
//! - `live`: [`Registry`], the instances that are connected; fencing.
//! - `attach`: the service behind a sidecar's stream.
//! - `remembered`: who was attached, kept over a restart of the control plane.

mod attach;
mod instance;
mod live;
mod remembered;

pub(crate) use attach::{AttachService, EndpointsTaken, LEASE};
pub(crate) use instance::{AppPort, Instance, InstanceName, Needs};
pub(crate) use live::{Live, Observation, Registry};
pub(crate) use remembered::Remembered;
