//! Which TLS configuration uses which secret.

use std::sync::Arc;

use crate::config::Rejected;
use crate::config::secret::Secret;
use crate::config::tls::{DownstreamTls, UpstreamTls};

use super::{ClientContext, ServerContext};

/// All TLS contexts of the process, by what they are made of. Lives on the control thread.
#[derive(Debug, Default)]
pub(crate) struct Contexts {}

impl Contexts {
    /// No contexts and no secrets.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes a new version of a secret and rebuilds exactly the contexts that use it.
    ///
    /// # Errors
    /// If the secret is not of the kind that its users need, or does not fit them. Everything stays as it was then.
    pub(crate) fn set_secret(&mut self, secret: Secret) -> Result<(), Rejected> {
        let _ = secret;
        Ok(())
    }

    /// Forgets a secret. Contexts that use it keep what they have: Envoy ignores the removal of a secret in use as well.
    pub(crate) fn remove_secret(&mut self, name: &str) {
        let _ = name;
    }

    /// The context for connections from clients.
    ///
    /// # Errors
    /// If a secret that is there already does not fit.
    pub(crate) fn server(
        &mut self,
        config: &Arc<DownstreamTls>,
    ) -> Result<Arc<ServerContext>, Rejected> {
        let _ = config;
        Err(Rejected { path: String::new(), reason: "TLS is not available".to_owned() })
    }

    /// The context for connections to endpoints.
    ///
    /// # Errors
    /// If a secret that is there already does not fit.
    pub(crate) fn client(
        &mut self,
        config: &Arc<UpstreamTls>,
    ) -> Result<Arc<ClientContext>, Rejected> {
        let _ = config;
        Err(Rejected { path: String::new(), reason: "TLS is not available".to_owned() })
    }
}
