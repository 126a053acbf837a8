//! The end of a connection whose client's certificate is revoked while it stands.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::task::JoinHandle;

use super::Chain;
use crate::tls::TlsFacts;

/// Ends a connection when the certificate of its client is revoked.
///
/// A task of its own waits for that: the connection itself looks at one flag, and only if its client has a certificate.
pub(super) struct Revocation(Option<(AbortRegistration, Waiting)>);

/// The task that waits; it ends with the connection.
struct Waiting(JoinHandle<()>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Revocation {
    /// For a connection that a chain has accepted.
    pub(super) fn of(chain: &Chain, tls: Option<&TlsFacts>) -> Self {
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        Self(chain.tls.as_ref().zip(identity).map(|(context, identity)| {
            let (abort, registration) = AbortHandle::new_pair();
            let revoked = Arc::clone(context).revoked(Arc::clone(&identity.chain));
            let client = identity.uri_sans.first().cloned();
            let waiting = tokio::task::spawn_local(async move {
                revoked.await;
                tracing::info!(
                    ?client,
                    "closing a connection: its client's certificate was revoked"
                );
                abort.abort();
            });
            (registration, Waiting(waiting))
        }))
    }

    /// Drives the connection to its end, or to that of its client's certificate.
    pub(super) async fn ends(self, connection: impl Future<Output = ()>) {
        match self.0 {
            None => connection.await,
            Some((registration, _waiting)) => {
                let _ = Abortable::new(connection, registration).await;
            }
        }
    }
}
