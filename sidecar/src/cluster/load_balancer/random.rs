//! At random, every endpoint as likely as any other. Weights do not count, as in Envoy.

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;

/// Any one.
pub(super) fn pick(list: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    fastrand::choice(list)
}
