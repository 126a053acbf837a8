//! Clusters: their endpoints, and how one is chosen.
//!
//! Reading order:
//! - [`endpoint`]: one place to connect to, the same object across every update that keeps its address and transport;
//! - [`host_set`]: the endpoints of a cluster by priority and health, prepared for choosing; immutable, swapped whole;
//! - [`load_balancer`]: how one is chosen;
//! - [`latency`]: how long endpoints take to answer;
//! - [`load_report`]: what endpoints report of their own load, and the weights that follow;
//! - [`circuit_breaker`], [`outlier_detection`], [`health_check`]: what limits, ejects, and asks endpoints how they are;
//!   [`event_log`]: what of it is written down;
//! - [`cluster`]: all of it together, what a request sees; [`table`]: all clusters by id; [`aggregate`]: several as one;
//! - [`manager`]: the control thread's side, which keeps identity over updates; [`dns`] feeds it.

pub(crate) mod aggregate;
pub(crate) mod circuit_breaker;
#[allow(clippy::module_inception)] // it holds the type of that name
pub(crate) mod cluster;
pub(crate) mod dns;
pub(crate) mod endpoint;
pub(crate) mod event_log;
pub(crate) mod health_check;
pub(crate) mod host_set;
pub(crate) mod latency;
pub(crate) mod load_balancer;
pub(crate) mod load_report;
pub(crate) mod manager;
pub(crate) mod original_dst;
pub(crate) mod outlier_detection;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use circuit_breaker::Breaker;
pub(crate) use cluster::{Cluster, ClusterId, RoutingPriority};
pub(crate) use endpoint::{Endpoint, EndpointId, Health};
pub(crate) use event_log::EventLog;
pub(crate) use load_balancer::hashing::address_hash;
pub(crate) use load_balancer::{Context, NamedHosts};
pub(crate) use load_report::LoadReport;
pub(crate) use manager::Manager;
pub(crate) use outlier_detection::Outcome;
pub(crate) use table::ClusterTable;
