//! What a cluster or a listener refers to by name, and how long it waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use crate::config::cluster::{Cluster, Discovery};
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::http_connection_manager::RouteSource;
use crate::config::http_filters::{FilterKind, HttpFilter};
use crate::config::listener::{Listener, TerminalFilter};
use crate::config::secret::CertificateSource;
use crate::config::tls::{CommonTls, Validation};

/// Something that is discovered by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Need {
    /// Its type: anything but a cluster or listener.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Who is asked for it.
    pub(crate) origin: Origin,
}

impl Need {
    /// What a source is asked for.
    pub(crate) fn new(kind: Kind, name: &Arc<str>, source: &ConfigSource) -> Self {
        Self { kind, name: Arc::clone(name), origin: source.origin.clone() }
    }
}

/// How long the first answer is waited for. Of two waits the longer one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// Not at all: whoever refers to it can do without.
    Not,
    /// So long.
    For(Duration),
    /// For ever.
    Forever,
}

impl From<Option<Duration>> for Wait {
    fn from(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Forever, Self::For)
    }
}

/// A configuration that refers to others by name.
pub(crate) trait Needs {
    /// Each need once, with the longest wait for it.
    fn needs(&self) -> Vec<(Need, Wait)>;
}

impl Needs for Cluster {
    fn needs(&self) -> Vec<(Need, Wait)> {
        let mut needs = Vec::new();
        if let Discovery::Eds { service_name, source } = &self.discovery {
            let need = Need::new(Kind::Endpoint, service_name, source);
            needs.push((need, source.initial_fetch_timeout.into()));
        }
        let matches = self.transport_socket_matches.iter().map(|other| &other.transport);
        for tls in std::iter::once(&self.transport).chain(matches).flatten() {
            secrets(&tls.common, &mut needs);
        }
        once_each(needs)
    }
}

impl Needs for Listener {
    fn needs(&self) -> Vec<(Need, Wait)> {
        let mut needs = Vec::new();
        for chain in self.filter_chains.iter().chain(&self.default_filter_chain) {
            if let TerminalFilter::Http(http) = &chain.terminal {
                if let RouteSource::Rds { name, source } = &http.routes {
                    let need = Need::new(Kind::Route, name, source);
                    needs.push((need, source.initial_fetch_timeout.into()));
                }
                filters(&http.filters, &mut needs);
            }
            if let Some(tls) = &chain.tls {
                secrets(&tls.common, &mut needs);
            }
        }
        once_each(needs)
    }
}

fn filters(filters: &[HttpFilter], needs: &mut Vec<(Need, Wait)>) {
    for filter in filters {
        if let FilterKind::Discovered(discovered) = &filter.kind {
            let need = Need::new(Kind::Extension, &filter.name, &discovered.source);
            let wait = match discovered.without_warming {
                true => Wait::Not,
                false => discovered.source.initial_fetch_timeout.into(),
            };
            needs.push((need, wait));
        }
    }
}

fn secrets(tls: &CommonTls, needs: &mut Vec<(Need, Wait)>) {
    let certificates = tls.certificates.iter().filter_map(|certificate| match certificate {
        CertificateSource::Secret(secret) => Some(secret),
        CertificateSource::Inline(_) => None,
    });
    let validation = match &tls.validation {
        Validation::Secret(secret) | Validation::Combined { secret, .. } => Some(secret),
        Validation::None | Validation::Inline(_) => None,
    };
    for secret in certificates.chain(validation) {
        if let Some(source) = &secret.source {
            let need = Need::new(Kind::Secret, &secret.name, source);
            needs.push((need, source.initial_fetch_timeout.into()));
        }
    }
}

fn once_each(mut needs: Vec<(Need, Wait)>) -> Vec<(Need, Wait)> {
    needs.sort_by(|(a, _), (b, _)| a.cmp(b));
    needs.dedup_by(|(other, wait), (kept, longest)| {
        let same = other == kept;
        if same {
            *longest = (*longest).max(*wait);
        }
        same
    });
    needs
}
