//! [`Ledger`]: which certificates were issued to whom, for as long as they are valid. Revocation and the rotation of roots
//! go by it, so it is durable before a certificate is handed out.

use crate::registry::InstanceName;
use crate::store::{Store, StoreError, records};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Of the store: `SERVICE/INSTANCE` to [`Certificates`].
const TABLE: &str = "issued";

/// So many unexpired certificates of one instance are remembered; a sidecar that renews in time has two.
const MOST: usize = 64;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    /// Serial number, in hexadecimal.
    pub(crate) serial: String,
    /// Which issuing certificate signed it, see [`super::CertificateAuthority`].
    pub(crate) issuer: String,
    /// The pin of the root above that.
    pub(crate) root: String,
    /// Milliseconds since the epoch.
    pub(crate) issued_ms: u64,
    /// Milliseconds since the epoch.
    pub(crate) expires_ms: u64,
    /// Whether it is refused since.
    pub(crate) revoked: bool,
}

impl Issued {
    /// End of its validity.
    pub(crate) fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.expires_ms)
    }
}

/// Those of one instance that have not expired, oldest first.
type Certificates = Vec<Issued>;

/// What was issued to whom.
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    instances: Mutex<BTreeMap<InstanceName, Certificates>>,
    /// Serials that are refused.
    refused: ArcSwap<HashSet<String>>,
    changes: watch::Sender<u64>,
}

impl Ledger {
    /// The ledger in a store.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let mut instances = BTreeMap::new();
        for (key, bytes) in records(&*store, |records| records.list(TABLE))? {
            let certificates: Result<Certificates, _> = serde_json::from_slice(&bytes);
            let name = key.split_once('/').map(|(service, instance)| InstanceName {
                service: service.into(),
                instance: instance.into(),
            });
            let (Some(name), Ok(certificates)) = (name, certificates) else {
                let reason = "it is not what was written".to_owned();
                return Err(StoreError::Corrupt { place: format!("{TABLE} {key}"), reason });
            };
            instances.insert(name, certificates);
        }
        let ledger = Self {
            store,
            instances: Mutex::new(instances),
            refused: ArcSwap::default(),
            changes: watch::Sender::new(0),
        };
        ledger.publish(&ledger.lock());
        Ok(ledger)
    }

    /// Remembers a certificate. Blocks until that is durable.
    ///
    /// # Errors
    /// If the store fails: the certificate is not to be handed out then.
    pub(crate) fn record(
        &self,
        name: &InstanceName,
        certificate: Issued,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let mut instances = self.lock();
        let mut certificates = instances.get(name).cloned().unwrap_or_default();
        certificates.retain(|it| it.expires_ms > millis(now));
        if certificates.len() >= MOST {
            // The oldest that is not refused: what is refused must stay so until it expires.
            let oldest = certificates.iter().position(|it| !it.revoked);
            oldest.map(|index| certificates.remove(index));
        }
        certificates.push(certificate);
        let bytes = encoded(&certificates)?;
        records(&*self.store, |records| records.put(TABLE, &key(name), &bytes))?;
        instances.insert(name.clone(), certificates);
        drop(instances);
        self.changed();
        Ok(())
    }

    /// Refuses every certificate of these instances from now on. Blocks until that is durable. Answers with how many
    /// there are of each.
    ///
    /// # Errors
    /// If the store fails; nothing is refused then.
    pub(crate) fn revoke(
        &self,
        names: &[InstanceName],
        now: SystemTime,
    ) -> Result<Vec<(InstanceName, usize)>, StoreError> {
        let mut instances = self.lock();
        let mut after = instances.clone();
        let mut revoked = Vec::new();
        for name in names {
            let Some(certificates) = after.get_mut(name) else { continue };
            certificates.retain(|it| it.expires_ms > millis(now));
            certificates.iter_mut().for_each(|it| it.revoked = true);
            revoked.push((name.clone(), certificates.len()));
        }
        records(&*self.store, |records| {
            for (name, _) in &revoked {
                let certificates = after.get(name).map_or(&[][..], Vec::as_slice);
                records.put(TABLE, &key(name), &encoded(certificates)?)?;
            }
            Ok::<_, StoreError>(())
        })?;
        *instances = after;
        self.publish(&instances);
        drop(instances);
        self.changed();
        Ok(revoked)
    }

    /// Whether a certificate with this serial is refused.
    pub(crate) fn refuses(&self, serial: &str) -> bool {
        self.refused.load().contains(serial)
    }

    /// Every instance with an unexpired certificate, and the newest of these.
    pub(crate) fn newest(&self, now: SystemTime) -> Vec<(InstanceName, Issued)> {
        let instances = self.lock();
        let newest = instances.iter().filter_map(|(name, certificates)| {
            let newest = certificates.last().filter(|it| it.expires_ms > millis(now))?;
            Some((name.clone(), newest.clone()))
        });
        newest.collect()
    }

    /// The certificates that are refused and have not expired, by what issued them.
    pub(crate) fn refused(&self, now: SystemTime) -> BTreeMap<String, Vec<String>> {
        let mut by_issuer: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for certificate in self.lock().values().flatten() {
            if certificate.revoked && certificate.expires_ms > millis(now) {
                by_issuer
                    .entry(certificate.issuer.clone())
                    .or_default()
                    .push(certificate.serial.clone());
            }
        }
        by_issuer
    }

    /// Notified of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Completes when the certificate with this serial is refused.
    pub(crate) async fn until_refused(&self, serial: &str) {
        let mut changes = self.changes();
        while !self.refuses(serial) {
            if changes.changed().await.is_err() {
                // Nobody will refuse it any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn publish(&self, instances: &BTreeMap<InstanceName, Certificates>) {
        let refused = instances.values().flatten().filter(|it| it.revoked);
        self.refused.store(Arc::new(refused.map(|it| it.serial.clone()).collect()));
    }

    fn changed(&self) {
        self.changes.send_modify(|it| *it = it.wrapping_add(1));
    }

    /// What the lock guards is never left half changed.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceName, Certificates>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    since.try_into().unwrap_or(u64::MAX)
}

fn key(name: &InstanceName) -> String {
    format!("{}/{}", name.service, name.instance)
}

fn encoded(certificates: &[Issued]) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(certificates)
        .map_err(|error| StoreError::Corrupt { place: TABLE.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(instance: &str) -> InstanceName {
        InstanceName { service: "api".into(), instance: instance.into() }
    }

    fn issued(serial: &str, now: SystemTime) -> Issued {
        Issued {
            serial: serial.to_owned(),
            issuer: "i".to_owned(),
            root: "r".to_owned(),
            issued_ms: millis(now),
            expires_ms: millis(now + HOUR),
            revoked: false,
        }
    }

    #[test]
    fn what_was_refused_stays_so_over_a_restart_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        let now = SystemTime::now();
        let ledger = Ledger::open(store.clone()).unwrap();
        ledger.record(&name("a"), issued("01", now), now).unwrap();
        ledger.record(&name("a"), issued("02", now + HOUR / 2), now + HOUR / 2).unwrap();
        ledger.record(&name("b"), issued("03", now), now).unwrap();
        assert_eq!(ledger.revoke(&[name("a")], now).unwrap(), [(name("a"), 2)]);
        let again = Ledger::open(store).unwrap();
        for ledger in [&ledger, &again] {
            let refused = ["01", "02", "03"].map(|serial| ledger.refuses(serial));
            assert_eq!(refused, [true, true, false]);
            let serials = |now| ledger.refused(now).remove("i").unwrap_or_default();
            assert_eq!(serials(now), ["01", "02"]);
            assert_eq!(serials(now + HOUR), ["02"]);
        }
    }

    #[test]
    fn a_new_certificate_of_a_revoked_instance_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        let now = SystemTime::now();
        let ledger = Ledger::open(store).unwrap();
        ledger.record(&name("a"), issued("01", now), now).unwrap();
        ledger.revoke(&[name("a")], now).unwrap();
        ledger.record(&name("a"), issued("02", now), now).unwrap();
        assert!(ledger.refuses("01") && !ledger.refuses("02"));
        assert_eq!(ledger.newest(now)[0].1.serial, "02");
        assert_eq!(ledger.newest(now + HOUR), []);
    }
}
