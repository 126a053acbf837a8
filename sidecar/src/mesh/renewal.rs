//! The next certificate in time: at half of the current one's life or when the control plane asks for it, with a new key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::identity::v1::RenewRequest;
use outrigger_proto::identity::v1::identity_client::IdentityClient;
use tokio::sync::{Notify, mpsc};

use super::identity::{Identity, IdentityStore};
use super::{Error, join};
use crate::config::secret::Secret;
use crate::xds::ControlPlane;

/// Renewals are spread by so much of a life, to either side, so that sidecars that joined together do not come together.
const JITTER: f64 = 0.1;
/// Shortest pause between two attempts.
const MIN_RETRY: Duration = Duration::from_millis(500);
/// Longest pause between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Renews for as long as somebody takes the secrets, and at once when `renew_now` is told.
pub(super) async fn run(
    mut identity: Identity,
    store: IdentityStore,
    control_plane: ControlPlane,
    renew_now: Arc<Notify>,
    secrets: mpsc::UnboundedSender<Secret>,
) {
    loop {
        let wait = until_renewal(&identity, SystemTime::now(), fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = renew_now.notified() => {}
            () = secrets.closed() => return,
        }
        let mut pause = MIN_RETRY;
        identity = loop {
            match Box::pin(renew(&identity, &store, &control_plane, &secrets)).await {
                Ok(next) => break next,
                Err(error) => {
                    let left = identity.not_after().duration_since(SystemTime::now());
                    match left {
                        Ok(left) => {
                            tracing::warn!(%error, expires_in = ?left, "cannot renew the certificate yet")
                        }
                        Err(_) => tracing::error!(
                            %error,
                            "the certificate has expired and cannot be renewed: peers refuse this sidecar"
                        ),
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
                () = secrets.closed() => return,
            }
            pause = (pause * 2).min(longest_pause(&identity));
        };
    }
}

async fn renew(
    identity: &Identity,
    store: &IdentityStore,
    control_plane: &ControlPlane,
    secrets: &mpsc::UnboundedSender<Secret>,
) -> Result<Identity, Error> {
    let (key, csr_der) = join::request()?;
    let channel = control_plane.connect(None).await?;
    let issued = IdentityClient::new(channel)
        .renew(RenewRequest { csr_der })
        .await
        .map_err(|status| join::refused(&status))?
        .into_inner();
    let next = Identity::new(&identity.control_plane, &identity.trust_domain, issued, &key);
    // Checked before it is kept: what cannot be used must not take the place of what can.
    let renewed = next.secrets()?;
    if let Err(error) = store.save(&next) {
        // It still serves; only a restart would have to use the older one.
        tracing::warn!(%error, "the renewed identity is in use, but could not be kept");
    }
    for secret in renewed {
        // Nobody takes it any more only when the process ends.
        let _ = secrets.send(secret);
    }
    tracing::info!(spiffe_id = next.spiffe_id, "renewed the certificate");
    Ok(next)
}

/// From `now` to half of the life, moved by up to [`JITTER`] of it; `random` is in `0..1`.
fn until_renewal(identity: &Identity, now: SystemTime, random: f64) -> Duration {
    let (from, to) = (identity.not_before(), identity.not_after());
    let life = to.duration_since(from).unwrap_or_default();
    let at = from + life.mul_f64(0.5 + JITTER * (2.0 * random - 1.0));
    at.duration_since(now).unwrap_or_default()
}

/// Several attempts have to fit into what is left at half of a life.
fn longest_pause(identity: &Identity) -> Duration {
    let life = identity.not_after().duration_since(identity.not_before()).unwrap_or_default();
    (life / 20).clamp(MIN_RETRY, MAX_RETRY)
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::issued;
    use super::*;

    #[test]
    fn a_certificate_is_renewed_about_half_way_through_its_life() {
        let identity = issued(Duration::from_secs(1000));
        let at = |random| until_renewal(&identity, identity.not_before(), random).as_secs();
        assert_eq!(at(0.5), 500);
        assert_eq!((at(0.0), at(1.0)), (400, 600));
        let late = identity.not_before() + Duration::from_secs(900);
        assert_eq!(until_renewal(&identity, late, 0.5), Duration::ZERO);
    }

    #[test]
    fn attempts_come_often_enough_for_a_short_life_and_not_too_often_for_a_long_one() {
        assert_eq!(longest_pause(&issued(Duration::from_secs(10))), MIN_RETRY);
        assert_eq!(longest_pause(&issued(Duration::from_secs(86_400))), MAX_RETRY);
    }
}
