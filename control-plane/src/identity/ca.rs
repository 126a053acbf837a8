//! The certificate authority: a root that signs only the issuing certificate, which signs leaves. Both with their keys are
//! kept in the store, whose files only their owner can read.

use crate::identity::csr::PublicKey;
use crate::identity::spiffe::{control_plane_id, instance_name, workload_id};
use crate::store::{Records, Store, StoreError, records};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

const TABLE: &str = "ca";
const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOT_LIFE: Duration = Duration::from_secs(3650 * DAY.as_secs());
const ISSUING_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// Life of the control plane's own certificate.
const SERVER_LIFE: Duration = DAY;
/// At most so much a leaf is valid before it was made, for clocks that are late.
const MAX_BACKDATE: Duration = Duration::from_secs(30);

/// Why the certificate authority could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key or certificate could not be made, or what was kept does not parse.
    #[error("certificate authority: {0}")]
    Crypto(#[from] rcgen::Error),
    /// A kept certificate does not parse.
    #[error("certificate authority: the kept {0} does not parse")]
    Kept(&'static str),
}

/// A certificate with its chain, as it is handed out.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Leaf first, then the issuing certificate; not the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its only URI.
    pub spiffe_id: String,
    /// Validity begins.
    pub not_before: SystemTime,
    /// Validity ends.
    pub not_after: SystemTime,
}

/// The authority. Signing needs no I/O.
pub struct CertificateAuthority {
    root: CertificateDer<'static>,
    root_issuer: Issuer<'static, KeyPair>,
    pin: String,
    issuing: ArcSwap<Issuing>,
}

struct Issuing {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl CertificateAuthority {
    /// Opens the authority of this store, which is made if there is none. Blocks until it is durable.
    ///
    /// # Errors
    /// If the store fails, or holds what does not parse.
    pub fn open(store: &dyn Store, now: SystemTime) -> Result<Self, CaError> {
        let (root, root_key) =
            records(store, |records| load_or_make(records, "root", || certificate_authority(now)))?;
        let root_issuer = issuer(&root, &root_key, "root")?;
        let issuing = records(store, |records| {
            load_or_make(records, "issuing", || issuing_certificate(&root_issuer, now))
        })?;
        let authority = Self {
            pin: pin(root_issuer.key()),
            root,
            root_issuer,
            issuing: ArcSwap::from_pointee(Issuing::new(issuing)?),
        };
        authority.renew_if_due(store, now)?;
        Ok(authority)
    }

    /// Replaces the issuing certificate when half of its life is over. Leaves that the old one signed stay valid. Blocks
    /// until the new one is durable. Returns whether there was anything to do.
    ///
    /// # Errors
    /// If the store fails.
    pub fn renew_if_due(&self, store: &dyn Store, now: SystemTime) -> Result<bool, CaError> {
        let current = self.issuing.load();
        let half = current.not_after.duration_since(current.not_before).unwrap_or_default() / 2;
        if now < current.not_before + half {
            return Ok(false);
        }
        let made = issuing_certificate(&self.root_issuer, now)?;
        records(store, |records| keep(records, "issuing", &made).map_err(CaError::from))?;
        self.issuing.store(Arc::new(Issuing::new(made)?));
        Ok(true)
    }

    /// Every root that is trusted now.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// SHA-256 of the root's SubjectPublicKeyInfo in base64url without padding: what a join token pins.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// A certificate for an instance of a service, with this key.
    ///
    /// # Errors
    /// If it cannot be signed, e.g. because a name is not ASCII.
    pub(crate) fn workload(
        &self,
        trust_domain: &str,
        service: &str,
        instance: &str,
        key: &PublicKey,
        life: Duration,
        now: SystemTime,
    ) -> Result<Leaf, CaError> {
        let id = workload_id(trust_domain, service);
        let dns = SanType::DnsName(instance_name(service, instance).try_into()?);
        self.sign(id, vec![dns], key.key(), life, now)
    }

    /// Key and certificate of an instance made here, for tests and tools: a sidecar's key never leaves the sidecar.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn mint(
        &self,
        trust_domain: &str,
        service: &str,
        instance: &str,
        life: Duration,
    ) -> Result<(Leaf, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate()?;
        let id = workload_id(trust_domain, service);
        let dns = SanType::DnsName(instance_name(service, instance).try_into()?);
        let leaf = self.sign(id, vec![dns], &key, life, SystemTime::now())?;
        Ok((leaf, private_key(&key)))
    }

    /// Key and certificate of the control plane.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn server(
        &self,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<(Leaf, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate()?;
        let leaf = self.sign(control_plane_id(trust_domain), Vec::new(), &key, SERVER_LIFE, now)?;
        Ok((leaf, private_key(&key)))
    }

    fn sign(
        &self,
        id: String,
        other_names: Vec<SanType>,
        key: &impl PublicKeyData,
        life: Duration,
        now: SystemTime,
    ) -> Result<Leaf, CaError> {
        let issuing = self.issuing.load();
        let not_before = now - MAX_BACKDATE.min(life / 2);
        let not_after = (now + life).min(issuing.not_after);
        let mut params = CertificateParams::default();
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.subject_alt_names.extend(other_names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &issuing.issuer)?;
        let chain = vec![certificate.der().clone(), issuing.certificate.clone()];
        Ok(Leaf { chain, spiffe_id: id, not_before, not_after })
    }
}

impl Issuing {
    fn new((certificate, key): (CertificateDer<'static>, Vec<u8>)) -> Result<Self, CaError> {
        let issuer = issuer(&certificate, &key, "issuing certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|_| CaError::Kept("issuing certificate"))?;
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.to_datetime().into(), validity.not_after.to_datetime().into());
        Ok(Self { certificate, issuer, not_before, not_after })
    }
}

/// A certificate and its key, PKCS #8 in DER.
type Pair = (CertificateDer<'static>, Vec<u8>);

fn load_or_make(
    records: &mut dyn Records,
    name: &str,
    make: impl FnOnce() -> Result<Pair, CaError>,
) -> Result<Pair, CaError> {
    let certificate = records.get(TABLE, name)?;
    let key = records.get(TABLE, &format!("{name}-key"))?;
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Ok((certificate.into(), key));
    }
    let made = make()?;
    keep(records, name, &made)?;
    Ok(made)
}

fn keep(
    records: &mut dyn Records,
    name: &str,
    (certificate, key): &Pair,
) -> Result<(), StoreError> {
    records.put(TABLE, name, certificate)?;
    records.put(TABLE, &format!("{name}-key"), key)
}

fn issuer(
    certificate: &CertificateDer<'_>,
    key: &[u8],
    what: &'static str,
) -> Result<Issuer<'static, KeyPair>, CaError> {
    let key = KeyPair::try_from(key).map_err(|_| CaError::Kept(what))?;
    Issuer::from_ca_cert_der(certificate, key).map_err(|_| CaError::Kept(what))
}

fn certificate_authority(now: SystemTime) -> Result<Pair, CaError> {
    let key = KeyPair::generate()?;
    let certificate = ca_params("Outrigger root", ROOT_LIFE, 1, now).self_signed(&key)?;
    Ok((certificate.der().clone(), key.serialize_der()))
}

fn issuing_certificate(root: &Issuer<'_, KeyPair>, now: SystemTime) -> Result<Pair, CaError> {
    let key = KeyPair::generate()?;
    let mut params = ca_params("Outrigger issuing", ISSUING_LIFE, 0, now);
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, root)?;
    Ok((certificate.der().clone(), key.serialize_der()))
}

fn ca_params(name: &str, life: Duration, depth: u8, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(now - MAX_BACKDATE);
    params.not_after = OffsetDateTime::from(now + life);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn pin(key: &KeyPair) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info()))
}

fn private_key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::spiffe::PeerIdentity;
    use crate::store::EmbeddedStore;
    use std::time::UNIX_EPOCH;

    /// Seconds, as certificates know no parts of them.
    fn now() -> SystemTime {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        UNIX_EPOCH + Duration::from_secs(now.as_secs())
    }

    fn key() -> PublicKey {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        PublicKey::from_csr(csr.der()).unwrap()
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let store = EmbeddedStore::open(directory.path()).unwrap();
            CertificateAuthority::open(&store, now()).unwrap()
        };
        let first = open();
        let second = open();
        assert_eq!(first.pin(), second.pin());
        assert_eq!(first.roots(), second.roots());
        assert_eq!(first.issuing.load().certificate, second.issuing.load().certificate);
    }

    #[test]
    fn a_leaf_names_service_and_instance_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let ca = CertificateAuthority::open(&store, now()).unwrap();
        let life = Duration::from_secs(10);
        let leaf = ca.workload("td", "api", "api-1", &key(), life, now()).unwrap();
        assert_eq!(leaf.spiffe_id, "spiffe://td/ns/default/svc/api");
        assert_eq!(leaf.not_after.duration_since(leaf.not_before).unwrap().as_secs(), 15);
        let peer = PeerIdentity::from_certificate(&leaf.chain[0]).unwrap();
        assert_eq!((&*peer.service, &*peer.instance), ("api", "api-1"));
        assert_eq!(peer.expires, leaf.not_after);
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(!parsed.is_ca());
    }

    #[test]
    fn the_issuing_certificate_is_replaced_at_half_its_life_and_leaves_do_not_outlive_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let ca = CertificateAuthority::open(&store, now()).unwrap();
        let first = ca.issuing.load().certificate.clone();
        assert!(!ca.renew_if_due(&store, now()).unwrap());
        let late = now() + ISSUING_LIFE / 2 + DAY;
        assert!(ca.renew_if_due(&store, late).unwrap());
        assert_ne!(ca.issuing.load().certificate, first);
        let leaf = ca.workload("td", "a", "a", &key(), ROOT_LIFE, now()).unwrap();
        assert_eq!(leaf.not_after, ca.issuing.load().not_after);
    }

    #[test]
    fn the_pin_is_the_hash_of_the_public_key_in_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let ca = CertificateAuthority::open(&store, now()).unwrap();
        let roots = ca.roots();
        let (_, root) = x509_parser::parse_x509_certificate(&roots[0]).unwrap();
        let hash = Sha256::digest(root.public_key().raw);
        assert_eq!(ca.pin(), URL_SAFE_NO_PAD.encode(hash));
    }
}
