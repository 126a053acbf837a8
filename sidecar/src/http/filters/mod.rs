//! HTTP filters: what looks at a request between its route and its endpoint. One file a filter.
//!
//! A connection manager has the filters of its configuration in their order, and no others: what is not configured costs
//! nothing.

pub(crate) mod rbac;

use std::sync::Arc;

use super::connection_manager::Connection;
use super::local_reply::LocalReply;
use super::matching::RequestView;
use crate::config;
use crate::config::http_connection_manager::HttpFilter;
use crate::config::route::FilterOverrides;

/// What a filter sees of a request.
pub(crate) struct FilterInput<'a> {
    pub(crate) request: RequestView<'a>,
    pub(crate) connection: &'a Connection,
    /// The client, which is not the peer where trusted proxies stand in between.
    pub(crate) client: std::net::IpAddr,
    /// Overrides, the most specific first: weighted cluster, route, virtual host.
    pub(crate) overrides: [Option<&'a FilterOverrides>; 3],
}

/// A filter of a connection manager.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// `envoy.filters.http.rbac`
    Rbac {
        /// Key of overrides.
        name: Arc<str>,
        config: Arc<config::rbac::Rbac>,
    },
}

impl Filter {
    pub(crate) fn build(config: &HttpFilter) -> Self {
        match config {
            HttpFilter::Rbac { name, config } => {
                Self::Rbac { name: Arc::clone(name), config: Arc::clone(config) }
            }
        }
    }

    /// Lets the request pass, or answers it.
    pub(crate) fn run(&self, input: &FilterInput<'_>) -> Result<(), Box<LocalReply>> {
        match self {
            Self::Rbac { name, config } => rbac::run(name, config, input),
        }
    }
}
