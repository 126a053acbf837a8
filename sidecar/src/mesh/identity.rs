//! The identity of this instance, and the one file it is kept in.
//!
//! Everything is in a single file, so that a crash leaves either the old identity or the new one, never a certificate
//! without its key. The file is written beside its place, synced, and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrigger_proto::identity::v1::Credentials;
use serde::{Deserialize, Serialize};

use super::{Error, IDENTITY, TRUST};
use crate::config::secret::{self, Secret};

const FILE: &str = "identity.json";

/// Who this instance is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// `HOST:PORT` of discovery.
    pub(super) control_plane: String,
    pub(super) trust_domain: String,
    pub(super) service: String,
    pub(super) instance: String,
    pub(super) spiffe_id: String,
    /// Seconds since the Unix epoch.
    not_before: i64,
    not_after: i64,
    /// PEM, leaf first.
    certificate_chain: String,
    /// PEM.
    private_key: String,
    /// PEM.
    trust_bundle: String,
}

impl Identity {
    /// From what was issued for a key.
    pub(super) fn new(
        control_plane: &str,
        trust_domain: &str,
        issued: Credentials,
        key: &rcgen::KeyPair,
    ) -> Self {
        let Credentials {
            certificate_chain_der,
            trust_bundle_der,
            spiffe_id,
            service,
            instance,
            not_before,
            not_after,
        } = issued;
        Self {
            control_plane: control_plane.to_owned(),
            trust_domain: trust_domain.to_owned(),
            service,
            instance,
            spiffe_id,
            not_before,
            not_after,
            certificate_chain: pem(&certificate_chain_der),
            private_key: key.serialize_pem(),
            trust_bundle: pem(&trust_bundle_der),
        }
    }

    /// The secrets of this identity, checked as any other secret: the key belongs to the certificate.
    pub(super) fn secrets(&self) -> Result<Vec<Secret>, Error> {
        let protos = self.secret_protos().into_iter();
        protos.map(|proto| Ok(secret::from_proto(proto)?)).collect()
    }

    /// The secrets as they would stand in a bootstrap.
    pub(super) fn secret_protos(&self) -> Vec<tls::Secret> {
        let inline = |text: &String| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.clone())),
                ..DataSource::default()
            })
        };
        let certificate = tls::TlsCertificate {
            certificate_chain: inline(&self.certificate_chain),
            private_key: inline(&self.private_key),
            ..tls::TlsCertificate::default()
        };
        let trust = tls::CertificateValidationContext {
            trusted_ca: inline(&self.trust_bundle),
            ..tls::CertificateValidationContext::default()
        };
        let secrets = [
            (IDENTITY, tls::secret::Type::TlsCertificate(certificate)),
            (TRUST, tls::secret::Type::ValidationContext(trust)),
        ];
        let named =
            |(name, value): (&str, _)| tls::Secret { name: name.to_owned(), r#type: Some(value) };
        secrets.into_iter().map(named).collect()
    }

    /// Start of validity.
    pub(super) fn not_before(&self) -> SystemTime {
        time(self.not_before)
    }

    /// End of validity.
    pub(super) fn not_after(&self) -> SystemTime {
        time(self.not_after)
    }
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Where the identity is kept: a folder of its own, or nowhere.
pub(super) struct IdentityStore {
    folder: Option<PathBuf>,
}

impl IdentityStore {
    /// Makes the folder if it is missing, for this user only.
    pub(super) fn open(folder: Option<PathBuf>) -> Result<Self, Error> {
        if let Some(path) = &folder {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| Error::File { action: "create", path: path.clone(), source })?;
        }
        Ok(Self { folder })
    }

    /// The file, if there is a folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(FILE))
    }

    /// The identity of an earlier start.
    pub(super) fn load(&self) -> Result<Option<Identity>, Error> {
        let Some(path) = self.path() else { return Ok(None) };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { action: "read", path, source }),
        };
        let bad = |reason: String| Error::BadIdentity { path: path.clone(), reason };
        let mode = fs::metadata(&path).map(|it| it.permissions().mode()).unwrap_or_default();
        if mode & 0o077 != 0 {
            return Err(bad(format!(
                "it holds a private key, but others may read it (mode {:o})",
                mode & 0o777
            )));
        }
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        identity.secrets().map_err(|error| bad(error.to_string()))?;
        Ok(Some(identity))
    }

    /// Keeps an identity, in place of the one before.
    pub(super) fn save(&self, identity: &Identity) -> Result<(), Error> {
        let Some(path) = self.path() else { return Ok(()) };
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(identity)?;
            replace(&path, &text)
        };
        write().map_err(|source| Error::File { action: "write", path: path.clone(), source })
    }
}

/// Replaces a file whole, so that a crash at any moment leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As an authority would issue it.
    pub(in crate::mesh) fn issued(life: Duration) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let id = "spiffe://outrigger.local/ns/default/svc/api";
        params.subject_alt_names.push(rcgen::SanType::URI(id.try_into().unwrap()));
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let credentials = Credentials {
            certificate_chain_der: vec![certificate.clone()],
            trust_bundle_der: vec![certificate],
            spiffe_id: id.to_owned(),
            service: "api".to_owned(),
            instance: "api-1".to_owned(),
            not_before: now as i64,
            not_after: (now + life.as_secs()) as i64,
        };
        Identity::new("127.0.0.1:7701", "outrigger.local", credentials, &key)
    }

    #[test]
    fn an_identity_survives_a_restart_in_a_file_of_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let identity = issued(Duration::from_secs(60));
        IdentityStore::open(Some(path.clone())).unwrap().save(&identity).unwrap();
        let store = IdentityStore::open(Some(path)).unwrap();
        assert!(store.load().unwrap() == Some(identity));
        let mode = fs::metadata(store.path().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(Some(folder.path().to_owned())).unwrap();
        store.save(&issued(Duration::from_secs(60))).unwrap();
        let path = store.path().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = store.load().err().unwrap().to_string();
        assert!(error.contains("others may read it (mode 644)"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named_and_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(Some(folder.path().to_owned())).unwrap();
        replace(&store.path().unwrap(), b"{\"control_plane\":").unwrap();
        let error = store.load().err().unwrap().to_string();
        assert!(error.contains("identity.json"), "{error}");
    }

    #[test]
    fn the_secrets_of_an_identity_are_its_certificate_and_the_roots() {
        let names: Vec<_> = issued(Duration::from_secs(60))
            .secrets()
            .unwrap()
            .into_iter()
            .map(|secret| secret.name.to_string())
            .collect();
        assert_eq!(names, [IDENTITY, TRUST]);
    }
}
