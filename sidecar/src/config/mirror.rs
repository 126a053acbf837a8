//! Copies of requests for other clusters.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::http_filters::HeaderOperation;
use super::runtime::RuntimeFraction;

/// A validated `RequestMirrorPolicy`.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where copies go.
    pub cluster: MirrorCluster,
    /// Of which requests there are copies. Default all.
    pub share: Option<RuntimeFraction>,
    /// `-shadow` is appended to the `Host` of a copy. Default true.
    pub append_suffix: bool,
    /// `Host` of a copy, instead of the request's.
    pub host: Option<HeaderValue>,
    /// Done to the headers of a copy, in order.
    pub mutations: Vec<HeaderOperation>,
}

/// The cluster of a mirror.
#[derive(Debug, Clone)]
pub enum MirrorCluster {
    /// This one.
    Cluster(Arc<str>),
    /// The one that this header of the request names.
    Header(HeaderName),
}
