//! What a cluster or a listener refers to by name, and how long it waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use crate::config::cluster::{Cluster, Discovery};
use crate::config::http_connection_manager::RouteSource;
use crate::config::listener::{Listener, TerminalFilter};
use crate::config::secret::CertificateSource;
use crate::config::tls::{CommonTls, Validation};

/// Longest wait for a secret (Envoy's default of `initial_fetch_timeout`).
const SECRET_TIMEOUT: Option<Duration> = Some(Duration::from_secs(15));

/// Something that is discovered by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A load assignment.
    Endpoints(Arc<str>),
    /// A route configuration.
    Routes(Arc<str>),
    /// A secret.
    Secret(Arc<str>),
}

impl Need {
    /// Its type.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Endpoints(_) => Kind::Endpoint,
            Self::Routes(_) => Kind::Route,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Self::Endpoints(name) | Self::Routes(name) | Self::Secret(name) => name,
        }
    }
}

/// A configuration that refers to others by name.
pub(crate) trait Needs {
    /// Each need once, with the longest wait for it; `None`: for ever.
    fn needs(&self) -> Vec<(Need, Option<Duration>)>;
}

impl Needs for Cluster {
    fn needs(&self) -> Vec<(Need, Option<Duration>)> {
        let mut needs = Vec::new();
        if let Discovery::Eds { service_name, initial_fetch_timeout } = &self.discovery {
            needs.push((Need::Endpoints(Arc::clone(service_name)), *initial_fetch_timeout));
        }
        let matches = self.transport_socket_matches.iter().map(|other| &other.transport);
        for tls in std::iter::once(&self.transport).chain(matches).flatten() {
            secrets(&tls.common, &mut needs);
        }
        once_each(needs)
    }
}

impl Needs for Listener {
    fn needs(&self) -> Vec<(Need, Option<Duration>)> {
        let mut needs = Vec::new();
        for chain in self.filter_chains.iter().chain(&self.default_filter_chain) {
            if let TerminalFilter::Http(http) = &chain.terminal
                && let RouteSource::Rds { name, initial_fetch_timeout } = &http.routes
            {
                needs.push((Need::Routes(Arc::clone(name)), *initial_fetch_timeout));
            }
            if let Some(tls) = &chain.tls {
                secrets(&tls.common, &mut needs);
            }
        }
        once_each(needs)
    }
}

fn secrets(tls: &CommonTls, needs: &mut Vec<(Need, Option<Duration>)>) {
    let certificates = tls.certificates.iter().filter_map(|certificate| match certificate {
        CertificateSource::Secret(secret) => Some(secret),
        CertificateSource::Inline(_) => None,
    });
    let validation = match &tls.validation {
        Validation::Secret(secret) | Validation::Combined { secret, .. } => Some(secret),
        Validation::None | Validation::Inline(_) => None,
    };
    for secret in certificates.chain(validation).filter(|secret| secret.dynamic) {
        needs.push((Need::Secret(Arc::clone(&secret.name)), SECRET_TIMEOUT));
    }
}

fn once_each(mut needs: Vec<(Need, Option<Duration>)>) -> Vec<(Need, Option<Duration>)> {
    needs.sort_by(|(a, _), (b, _)| a.cmp(b));
    needs.dedup_by(|(other, timeout), (kept, longest)| {
        let same = other == kept;
        if same {
            *longest = longest.zip(*timeout).map(|(a, b)| a.max(b));
        }
        same
    });
    needs
}
