//! Join and Renew. The names in a certificate come from the token or from the certificate before, never from the request.

use crate::identity::ca::{CertificateAuthority, Leaf};
use crate::identity::csr::PublicKey;
use crate::identity::issued::Ledger;
use crate::identity::tls::PeerInfo;
use crate::identity::tokens::{TokenError, Tokens};
use crate::model::Config;
use crate::registry::InstanceName;
use outrigger_proto::identity::v1::identity_server::Identity;
use outrigger_proto::identity::v1::{Credentials, JoinRequest, RenewRequest};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The gRPC service of identities.
pub(crate) struct IdentityService {
    pub(crate) authority: Arc<CertificateAuthority>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) config: watch::Receiver<Config>,
    /// What was issued to whom.
    pub(crate) ledger: Arc<Ledger>,
}

/// What a client with such a certificate is told.
pub(crate) const REVOKED: &str =
    "the certificate was revoked; join again with a new token (`outrigger token create`)";

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Credentials>, Status> {
        let peer = PeerInfo::of(request.extensions());
        if !peer.encrypted() {
            return Err(Status::failed_precondition("identities are issued over TLS only"));
        }
        let JoinRequest { token, csr_der, instance } = request.into_inner();
        // What is wrong with the request must not cost a use of the token.
        let key = public_key(&csr_der)?;
        if !is_dns_label(&instance) {
            return Err(Status::invalid_argument(format!(
                "instance: {instance:?} is not a DNS label (a-z, 0-9 and -, up to 63 characters)"
            )));
        }
        let tokens = self.tokens.clone();
        let redeemed =
            tokio::task::spawn_blocking(move || tokens.redeem(&token, SystemTime::now()));
        let redeemed = redeemed.await.map_err(|error| Status::internal(error.to_string()))?;
        let service = redeemed.map_err(|error| {
            tracing::warn!(%error, instance, "refused a join");
            match error {
                TokenError::Malformed => Status::invalid_argument(format!("token: {error}")),
                TokenError::Store(_) => Status::unavailable(error.to_string()),
                _ => Status::unauthenticated(error.to_string()),
            }
        })?;
        self.issue(&service, &instance, &key).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Credentials>, Status> {
        let identity = PeerInfo::of(request.extensions()).identity()?;
        if self.ledger.refuses(&identity.serial) {
            return Err(Status::permission_denied(REVOKED));
        }
        let key = public_key(&request.get_ref().csr_der)?;
        self.issue(&identity.service, &identity.instance, &key).await.map(Response::new)
    }
}

impl IdentityService {
    async fn issue(
        &self,
        service: &str,
        instance: &str,
        key: &PublicKey,
    ) -> Result<Credentials, Status> {
        let mesh = self.config.borrow().mesh().clone();
        let (domain, life) = (&mesh.trust_domain, mesh.leaf_ttl);
        let now = SystemTime::now();
        let leaf = self.authority.workload(domain, service, instance, key, life, now);
        let leaf = leaf.map_err(|error| Status::internal(error.to_string()))?;
        let name = InstanceName { service: service.into(), instance: instance.into() };
        let Leaf { chain, spiffe_id, not_before, not_after, issued } = leaf;
        let ledger = self.ledger.clone();
        let recorded = tokio::task::spawn_blocking(move || ledger.record(&name, issued, now));
        let recorded = recorded.await.map_err(|error| Status::internal(error.to_string()))?;
        recorded.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Credentials {
            certificate_chain_der: chain.iter().map(|it| it.to_vec()).collect(),
            trust_bundle_der: self.authority.roots().iter().map(|it| it.to_vec()).collect(),
            spiffe_id,
            service: service.to_owned(),
            instance: instance.to_owned(),
            not_before: seconds(not_before),
            not_after: seconds(not_after),
        })
    }
}

fn public_key(csr: &[u8]) -> Result<PublicKey, Status> {
    PublicKey::from_csr(csr).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    since.try_into().unwrap_or(i64::MAX)
}

fn is_dns_label(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| letter(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| letter(*byte))
        && bytes.last().is_some_and(|byte| letter(*byte))
}
