//! The certificate authority: a root that signs only the issuing certificate, which signs leaves. All with their keys are
//! kept in the store, whose files only their owner can read.
//!
//! While the root is rotated there are two: `root` is the one above the issuing certificate, `other` the one that is about
//! to take its place, or that it took the place of. Which step is due when, `rotation` decides.

use crate::identity::csr::PublicKey;
use crate::identity::issued::{Issued, millis};
use crate::identity::spiffe::{control_plane_id, hexadecimal, instance_name, workload_id};
use crate::store::{Records, Store, StoreError, records};
use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use tokio::sync::watch;

const TABLE: &str = "ca";
const ROOT: &str = "root";
const OTHER: &str = "other-root";
const ISSUING: &str = "issuing";
const ROTATION: &str = "rotation";
/// Issuing certificates of before, each with its key: what they signed may have to be revoked.
const EARLIER: &str = "ca-earlier";
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
    /// The system gives no random numbers.
    #[error("certificate authority: the system gives no random numbers")]
    Random,
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
    /// As it is remembered.
    pub(crate) issued: Issued,
}

/// What peers are verified by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The trusted roots, PEM one after the other.
    pub(crate) roots: Arc<str>,
    /// Revocation lists of every issuing certificate, PEM one after the other; empty while nothing is revoked.
    pub(crate) revoked: Arc<str>,
}

/// How far the rotation of the root has come. The steps are the only ones there are, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RotationStep {
    /// The new root is handed out beside the old one; the old one signs.
    Trusting,
    /// The new root signs; the old one is still trusted.
    Issuing,
}

/// A rotation of the root under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotation {
    pub(crate) step: RotationStep,
    /// When the step began, milliseconds since the epoch.
    pub(crate) since_ms: u64,
}

/// The authority. Signing needs no I/O.
pub struct CertificateAuthority {
    state: ArcSwap<State>,
    /// From the reading of the state to its replacement.
    changing: Mutex<()>,
    trust: watch::Sender<Arc<Trust>>,
}

#[derive(Clone)]
struct State {
    /// Signs the issuing certificate.
    root: Arc<Root>,
    /// Trusted too, while the root is rotated.
    other: Option<Arc<Root>>,
    issuing: Arc<Issuing>,
    earlier: Vec<Arc<Issuing>>,
    rotation: Option<Rotation>,
}

struct Root {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
    pin: String,
    not_after: SystemTime,
}

struct Issuing {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
    /// Hash of its key.
    id: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl CertificateAuthority {
    /// Opens the authority of this store, which is made if there is none. Blocks until it is durable.
    ///
    /// # Errors
    /// If the store fails, or holds what does not parse.
    pub fn open(store: &dyn Store, now: SystemTime) -> Result<Self, CaError> {
        let state = records(store, |records| {
            let root = match load(records, TABLE, ROOT)? {
                Some(root) => root,
                None => made(records, ROOT, certificate_authority(now)?)?,
            };
            let root = Root::new(root)?;
            let issuing = match load(records, TABLE, ISSUING)? {
                Some(issuing) => issuing,
                None => made(records, ISSUING, issuing_certificate(&root.issuer, now)?)?,
            };
            let other = load(records, TABLE, OTHER)?.map(Root::new).transpose()?;
            let mut earlier = Vec::new();
            for (name, _) in records.list(EARLIER)? {
                if !name.ends_with("-key")
                    && let Some(pair) = load(records, EARLIER, &name)?
                {
                    earlier.push(Arc::new(Issuing::new(pair)?));
                }
            }
            let rotation = records.get(TABLE, ROTATION)?;
            let rotation = rotation.map(|bytes| serde_json::from_slice(&bytes)).transpose();
            Ok::<_, CaError>(State {
                root: Arc::new(root),
                other: other.map(Arc::new),
                issuing: Arc::new(Issuing::new(issuing)?),
                earlier,
                rotation: rotation.map_err(|_| CaError::Kept("rotation"))?,
            })
        })?;
        let authority = Self {
            state: ArcSwap::from_pointee(state),
            changing: Mutex::new(()),
            trust: watch::Sender::new(Arc::default()),
        };
        authority.renew_if_due(store, now)?;
        authority.publish(&BTreeMap::new(), now)?;
        Ok(authority)
    }

    /// Replaces the issuing certificate when half of its life is over. Leaves that the old one signed stay valid. Blocks
    /// until the new one is durable. Returns whether there was anything to do.
    ///
    /// # Errors
    /// If the store fails.
    pub fn renew_if_due(&self, store: &dyn Store, now: SystemTime) -> Result<bool, CaError> {
        let _turn = self.turn();
        let state = self.state.load_full();
        let current = &state.issuing;
        let half = current.not_after.duration_since(current.not_before).unwrap_or_default() / 2;
        if now < current.not_before + half {
            return Ok(false);
        }
        let next = state.with_issuing_under(state.root.clone(), now)?;
        records(store, |records| next.keep(records))?;
        self.state.store(Arc::new(next));
        Ok(true)
    }

    /// Begins to rotate the root, unless that is under way. Blocks until that is durable.
    ///
    /// # Errors
    /// If the store fails; nothing has begun then.
    pub(crate) fn begin_rotation(&self, store: &dyn Store, now: SystemTime) -> Result<(), CaError> {
        let _turn = self.turn();
        let state = self.state.load_full();
        if state.rotation.is_some() {
            return Ok(());
        }
        let mut next = State::clone(&state);
        next.other = Some(Arc::new(Root::new(certificate_authority(now)?)?));
        next.rotation = Some(Rotation { step: RotationStep::Trusting, since_ms: millis(now) });
        self.take(store, next)
    }

    /// Goes from this step to the next one, unless another step is due. Blocks until that is durable.
    ///
    /// # Errors
    /// If the store fails; the step stays then.
    pub(crate) fn finish_step(
        &self,
        store: &dyn Store,
        step: RotationStep,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let _turn = self.turn();
        let state = self.state.load_full();
        let (Some(rotation), Some(other)) = (state.rotation, state.other.clone()) else {
            return Ok(());
        };
        if rotation.step != step {
            return Ok(());
        }
        let next = match step {
            RotationStep::Trusting => {
                let mut next = state.with_issuing_under(other, now)?;
                next.other = Some(state.root.clone());
                next.rotation =
                    Some(Rotation { step: RotationStep::Issuing, since_ms: millis(now) });
                next
            }
            RotationStep::Issuing => {
                let mut next = State::clone(&state);
                (next.other, next.rotation) = (None, None);
                next
            }
        };
        self.take(store, next)
    }

    fn take(&self, store: &dyn Store, next: State) -> Result<(), CaError> {
        records(store, |records| next.keep(records))?;
        let revoked = self.trust.borrow().revoked.clone();
        let roots = next.roots_pem();
        self.state.store(Arc::new(next));
        self.trust.send_replace(Arc::new(Trust { roots: roots.into(), revoked }));
        Ok(())
    }

    /// Publishes these serials, by the id of what issued them, as revoked.
    ///
    /// # Errors
    /// If a list cannot be signed.
    pub(crate) fn publish(
        &self,
        serials: &BTreeMap<String, Vec<String>>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let _turn = self.turn();
        let state = self.state.load_full();
        let mut revoked = String::new();
        if !serials.is_empty() {
            // A list of each: without one, the status of what it issued would be unknown.
            for issuing in std::iter::once(&state.issuing).chain(&state.earlier) {
                if issuing.not_after > now {
                    let of = serials.get(&issuing.id).map_or(&[][..], Vec::as_slice);
                    revoked.push_str(&issuing.revocation_list(of, now)?);
                }
            }
        }
        let trust = Arc::new(Trust { roots: state.roots_pem().into(), revoked: revoked.into() });
        self.trust.send_if_modified(|current| {
            let differs = *current != trust;
            if differs {
                *current = trust;
            }
            differs
        });
        Ok(())
    }

    /// What peers are verified by, as it changes.
    pub(crate) fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// The rotation under way.
    pub(crate) fn rotation(&self) -> Option<Rotation> {
        self.state.load().rotation
    }

    /// Every root that is trusted now, the one that signs first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.state.load().roots().map(|root| root.pair.0.clone()).collect()
    }

    /// Pin and end of every root that is trusted now, the one that signs first.
    pub(crate) fn root_ends(&self) -> Vec<(String, SystemTime)> {
        self.state.load().roots().map(|root| (root.pin.clone(), root.not_after)).collect()
    }

    /// End of the issuing certificate.
    pub(crate) fn issuing_ends(&self) -> SystemTime {
        self.state.load().issuing.not_after
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the root that signs, in base64url without padding: what a join token pins.
    pub fn pin(&self) -> String {
        self.state.load().root.pin.clone()
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
        let state = self.state.load();
        let issuing = &state.issuing;
        let not_before = now - MAX_BACKDATE.min(life / 2);
        let not_after = (now + life).min(issuing.not_after);
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
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
        let chain = vec![certificate.der().clone(), issuing.pair.0.clone()];
        let issued = Issued {
            serial: hexadecimal(&serial),
            issuer: issuing.id.clone(),
            root: state.root.pin.clone(),
            issued_ms: millis(now),
            expires_ms: millis(not_after),
            revoked: false,
        };
        Ok(Leaf { chain, spiffe_id: id, not_before, not_after, issued })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn roots(&self) -> impl Iterator<Item = &Arc<Root>> {
        std::iter::once(&self.root).chain(&self.other)
    }

    fn roots_pem(&self) -> String {
        self.roots().map(|root| pem("CERTIFICATE", &root.pair.0)).collect()
    }

    /// With a new issuing certificate, signed by this root; the one until now is an earlier one.
    fn with_issuing_under(&self, root: Arc<Root>, now: SystemTime) -> Result<Self, CaError> {
        let issuing = Issuing::new(issuing_certificate(&root.issuer, now)?)?;
        let mut earlier = vec![self.issuing.clone()];
        earlier.extend(self.earlier.iter().filter(|it| it.not_after > now).cloned());
        let (other, rotation) = (self.other.clone(), self.rotation);
        Ok(Self { root, other, issuing: Arc::new(issuing), earlier, rotation })
    }

    fn keep(&self, records: &mut dyn Records) -> Result<(), CaError> {
        keep(records, TABLE, ROOT, &self.root.pair)?;
        keep(records, TABLE, ISSUING, &self.issuing.pair)?;
        match &self.other {
            Some(other) => keep(records, TABLE, OTHER, &other.pair)?,
            None => forget(records, TABLE, OTHER)?,
        }
        match &self.rotation {
            Some(rotation) => {
                let bytes = serde_json::to_vec(rotation).map_err(|_| CaError::Kept("rotation"))?;
                records.put(TABLE, ROTATION, &bytes)?;
            }
            None => drop(records.remove(TABLE, ROTATION)?),
        }
        for (name, _) in records.list(EARLIER)? {
            records.remove(EARLIER, &name)?;
        }
        for earlier in &self.earlier {
            keep(records, EARLIER, &earlier.id, &earlier.pair)?;
        }
        Ok(())
    }
}

impl Root {
    fn new(pair: Pair) -> Result<Self, CaError> {
        let issuer = issuer(&pair.0, &pair.1, "root")?;
        let (_, not_after) = validity(&pair.0, "root")?;
        Ok(Self { pin: pin(issuer.key()), issuer, not_after, pair })
    }
}

impl Issuing {
    fn new(pair: Pair) -> Result<Self, CaError> {
        const WHAT: &str = "issuing certificate";
        let issuer = issuer(&pair.0, &pair.1, WHAT)?;
        let (not_before, not_after) = validity(&pair.0, WHAT)?;
        Ok(Self { id: pin(issuer.key()), issuer, not_before, not_after, pair })
    }

    /// A list of what this one issued and is refused. It is good for as long as the issuing certificate: whoever has it
    /// gets the next one as soon as there is one.
    fn revocation_list(&self, serials: &[String], now: SystemTime) -> Result<String, CaError> {
        let mut revoked_certs = Vec::with_capacity(serials.len());
        for serial in serials {
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes(serial)),
                revocation_time: now.into(),
                reason_code: Some(RevocationReason::PrivilegeWithdrawn),
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: (now - MAX_BACKDATE).into(),
            next_update: self.not_after.into(),
            crl_number: SerialNumber::from(millis(now)),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(pem("X509 CRL", list.signed_by(&self.issuer)?.der()))
    }
}

/// Beginning and end.
fn validity(der: &[u8], what: &'static str) -> Result<(SystemTime, SystemTime), CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| CaError::Kept(what))?;
    let validity = parsed.validity();
    Ok((validity.not_before.to_datetime().into(), validity.not_after.to_datetime().into()))
}

/// 128 random bits, positive as an integer, and without a zero at its beginning.
fn serial() -> Result<[u8; 16], CaError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| CaError::Random)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// Of what [`hexadecimal`] wrote.
fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.filter_map(byte).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// A certificate and its key, PKCS #8 in DER.
type Pair = (CertificateDer<'static>, Vec<u8>);

fn load(records: &dyn Records, table: &str, name: &str) -> Result<Option<Pair>, StoreError> {
    let certificate = records.get(table, name)?;
    let key = records.get(table, &format!("{name}-key"))?;
    Ok(certificate.zip(key).map(|(certificate, key)| (certificate.into(), key)))
}

fn made(records: &mut dyn Records, name: &str, pair: Pair) -> Result<Pair, StoreError> {
    keep(records, TABLE, name, &pair)?;
    Ok(pair)
}

fn keep(
    records: &mut dyn Records,
    table: &str,
    name: &str,
    (certificate, key): &Pair,
) -> Result<(), StoreError> {
    records.put(table, name, certificate)?;
    records.put(table, &format!("{name}-key"), key)
}

fn forget(records: &mut dyn Records, table: &str, name: &str) -> Result<(), StoreError> {
    records.remove(table, name)?;
    records.remove(table, &format!("{name}-key"))?;
    Ok(())
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
        assert_eq!(first.state.load().issuing.pair, second.state.load().issuing.pair);
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
        let first = ca.state.load().issuing.pair.clone();
        assert!(!ca.renew_if_due(&store, now()).unwrap());
        let late = now() + ISSUING_LIFE / 2 + DAY;
        assert!(ca.renew_if_due(&store, late).unwrap());
        assert_ne!(ca.state.load().issuing.pair, first);
        let leaf = ca.workload("td", "a", "a", &key(), ROOT_LIFE, now()).unwrap();
        assert_eq!(leaf.not_after, ca.issuing_ends());
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

    #[test]
    fn a_rotation_is_where_it_was_after_a_restart_at_every_step() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let reopened = || CertificateAuthority::open(&store, now()).unwrap();
        let old = reopened().pin();
        reopened().begin_rotation(&store, now()).unwrap();
        let ca = reopened();
        let new = ca.root_ends()[1].0.clone();
        assert_eq!((ca.pin(), ca.roots().len()), (old.clone(), 2));
        ca.begin_rotation(&store, now()).unwrap();
        assert_eq!(ca.root_ends()[1].0, new, "a rotation under way is not begun again");
        ca.finish_step(&store, RotationStep::Issuing, now()).unwrap();
        assert_eq!(ca.pin(), old, "no step is left out");
        ca.finish_step(&store, RotationStep::Trusting, now()).unwrap();
        let ca = reopened();
        assert_eq!((ca.pin(), ca.root_ends()[1].0.clone()), (new.clone(), old));
        let leaf = ca.workload("td", "a", "a", &key(), DAY, now()).unwrap();
        assert_eq!(leaf.issued.root, new);
        assert_eq!(ca.rotation().unwrap().step, RotationStep::Issuing);
        ca.finish_step(&store, RotationStep::Issuing, now()).unwrap();
        let ca = reopened();
        assert_eq!((ca.pin(), ca.roots().len(), ca.rotation()), (new, 1, None));
    }

    #[test]
    fn revocation_lists_name_what_is_revoked_and_there_is_one_of_each_issuer() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let ca = CertificateAuthority::open(&store, now()).unwrap();
        assert_eq!(&*ca.trust().borrow().revoked, "");
        let first = ca.workload("td", "a", "a", &key(), DAY, now()).unwrap().issued;
        ca.renew_if_due(&store, now() + ISSUING_LIFE / 2 + DAY).unwrap();
        let revoked = BTreeMap::from([(first.issuer.clone(), vec![first.serial.clone()])]);
        ca.publish(&revoked, now()).unwrap();
        let text = ca.trust().borrow().revoked.clone();
        let lists: Vec<_> = x509_parser::pem::Pem::iter_from_buffer(text.as_bytes())
            .map(|pem| pem.unwrap())
            .map(|pem| {
                let (_, list) = x509_parser::parse_x509_crl(&pem.contents).unwrap();
                list.iter_revoked_certificates()
                    .map(|it| hexadecimal(&it.user_certificate.to_bytes_be()))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(lists, [vec![], vec![first.serial]]);
    }
}
