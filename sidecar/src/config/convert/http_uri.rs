//! `HttpUri`: what is asked for, and of which cluster.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::http_uri::HttpUpstreamType;

use crate::config::Problems;

use super::common::{duration, required, text};

/// A validated `HttpUri`.
pub(super) struct Target {
    /// Path and query.
    pub(super) path: Uri,
    /// `Host`.
    pub(super) host: HeaderValue,
    pub(super) cluster: Arc<str>,
    pub(super) timeout: Duration,
}

/// The message; the collector stands where it is.
pub(super) fn convert(problems: &mut Problems, proto: core::HttpUri) -> Option<Target> {
    let core::HttpUri { uri, timeout, http_upstream_type } = proto;
    let parsed = target(&uri);
    if parsed.is_none() {
        problems.reject_field("uri", format!("{uri:?} is not an http or https URL"));
    }
    let cluster = match http_upstream_type {
        Some(HttpUpstreamType::Cluster(cluster)) => text(problems, "cluster", cluster),
        None => {
            problems.reject_field("cluster", "required");
            return None;
        }
    };
    let timeout = required(problems, "timeout", timeout)?;
    let timeout = duration(problems, "timeout", Some(timeout))?;
    let (path, host) = parsed?;
    Some(Target { path, host, cluster: cluster.into(), timeout })
}

/// Path and host of a URL. As in Envoy it need not have a scheme.
fn target(uri: &str) -> Option<(Uri, HeaderValue)> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if host.is_empty() {
        return None;
    }
    let path = match path {
        "" => "/".to_owned(),
        path if path.starts_with('?') => format!("/{path}"),
        path => path.to_owned(),
    };
    let path = PathAndQuery::try_from(path).ok()?;
    Some((Uri::from(path), HeaderValue::from_str(host).ok()?))
}
