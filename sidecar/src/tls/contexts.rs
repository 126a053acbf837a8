//! Which TLS configuration uses which secret.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::config::Rejected;
use crate::config::secret::{CertificateSource, Secret, SecretValue, ValidationContext};
use crate::config::tls::{CommonTls, DownstreamTls, UpstreamTls, Validation};

use super::verify::{Roots, Trust};
use super::{ClientContext, ServerContext};

/// All TLS contexts of the process, by what they are made of. Lives on the control thread.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    secrets: HashMap<Arc<str>, Stored>,
    servers: HashMap<u64, Weak<ServerContext>>,
    clients: HashMap<u64, Weak<ClientContext>>,
}

/// The certificates of one TLS context, each with the name of the secret it came in, or `<inline>`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateSet {
    /// Trusted roots.
    pub(crate) ca_cert: Vec<(String, CertificateDer<'static>)>,
    /// Our own certificates, without their issuers.
    pub(crate) cert_chain: Vec<(String, CertificateDer<'static>)>,
}

impl CertificateSet {
    fn places(&self) -> impl Iterator<Item = &str> {
        self.cert_chain.iter().chain(&self.ca_cert).map(|(place, _)| place.as_str())
    }
}

/// A secret that is there.
#[derive(Debug, Clone)]
enum Stored {
    Certificate(Arc<CertifiedKey>),
    Validation { context: Arc<ValidationContext>, roots: Arc<Roots>, fingerprint: String },
}

/// What a context's parts come to with the secrets that are there.
enum Resolved<T> {
    Ready(T),
    Missing,
}

impl Contexts {
    /// No contexts and no secrets.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes a new version of a secret and brings exactly the contexts up to date that use it.
    ///
    /// # Errors
    /// If the secret is not of the kind that its users need, or does not fit them. Everything stays as it was then.
    pub(crate) fn set_secret(&mut self, secret: Secret) -> Result<(), Rejected> {
        let Secret { name, value } = secret;
        let stored = Stored::new(value)?;
        let old = self.secrets.insert(Arc::clone(&name), stored.clone());
        if old.as_ref().is_some_and(|old| stored.is_same(old)) {
            // A stream that reconnects sends everything again. Nothing changed, so no session ends.
            return Ok(());
        }
        self.update_users(&name).inspect_err(|_| {
            match old {
                Some(old) => self.secrets.insert(name, old),
                None => self.secrets.remove(&name),
            };
        })
    }

    /// Forgets a secret. Contexts that use it keep what they have, as in Envoy.
    pub(crate) fn remove_secret(&mut self, name: &str) {
        self.secrets.remove(name);
    }

    /// The context for connections from clients. Equal configurations share one.
    ///
    /// # Errors
    /// If a secret that is there does not fit.
    pub(crate) fn server(
        &mut self,
        config: &Arc<DownstreamTls>,
    ) -> Result<Arc<ServerContext>, Rejected> {
        if let Some(known) = self.servers.get(&config.fingerprint).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let context = Arc::new(ServerContext::new(Arc::clone(config)));
        let certificates = self.certificates(&config.common)?;
        let trust = self.trust(&config.common)?;
        fill_server(&context, certificates, trust)?;
        drop_dead(&mut self.servers);
        self.servers.insert(config.fingerprint, Arc::downgrade(&context));
        Ok(context)
    }

    /// The context for connections to endpoints. Equal configurations share one.
    ///
    /// # Errors
    /// If a secret that is there does not fit.
    pub(crate) fn client(
        &mut self,
        config: &Arc<UpstreamTls>,
    ) -> Result<Arc<ClientContext>, Rejected> {
        if let Some(known) = self.clients.get(&config.fingerprint).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let context = Arc::new(ClientContext::new(Arc::clone(config)));
        let certificates = self.certificates(&config.common)?;
        let trust = self.trust(&config.common)?;
        fill_client(&context, certificates, trust)?;
        drop_dead(&mut self.clients);
        self.clients.insert(config.fingerprint, Arc::downgrade(&context));
        Ok(context)
    }

    /// The certificates of each context that somebody uses, in the order of their secrets' names.
    pub(crate) fn in_use(&self) -> Vec<CertificateSet> {
        let servers = self.servers.values().filter_map(Weak::upgrade);
        let servers = servers.map(|context| self.set_of(&context.tls.common));
        let clients = self.clients.values().filter_map(Weak::upgrade);
        let clients = clients.map(|context| self.set_of(&context.tls.common));
        let mut sets: Vec<CertificateSet> = servers.chain(clients).collect();
        sets.sort_by(|a, b| a.places().cmp(b.places()));
        sets
    }

    fn set_of(&self, common: &CommonTls) -> CertificateSet {
        const INLINE: &str = "<inline>";
        let mut set = CertificateSet::default();
        let mut own = |place: &str, key: &CertifiedKey| {
            set.cert_chain.extend(key.cert.first().map(|leaf| (place.to_owned(), leaf.clone())));
        };
        for source in &common.certificates {
            match source {
                CertificateSource::Inline(key) => own(INLINE, key),
                CertificateSource::Secret(secret) => {
                    if let Some(Stored::Certificate(key)) = self.secrets.get(&secret.name) {
                        own(&secret.name, key);
                    }
                }
            }
        }
        let mut trusted = |place: &str, context: &ValidationContext| {
            set.ca_cert.extend(context.roots.iter().map(|root| (place.to_owned(), root.clone())));
        };
        let secret = match &common.validation {
            Validation::None => None,
            Validation::Inline(context) => {
                trusted(INLINE, context);
                None
            }
            Validation::Combined { default, secret } => {
                trusted(INLINE, default);
                Some(secret)
            }
            Validation::Secret(secret) => Some(secret),
        };
        if let Some(secret) = secret
            && let Some(Stored::Validation { context, .. }) = self.secrets.get(&secret.name)
        {
            trusted(&secret.name, context);
        }
        set
    }

    /// First everything that can fail, for all users; then the changes.
    fn update_users(&self, name: &str) -> Result<(), Rejected> {
        let servers = self.servers.values().filter_map(Weak::upgrade);
        let servers: Vec<_> = servers.filter(|context| uses(&context.tls.common, name)).collect();
        let clients = self.clients.values().filter_map(Weak::upgrade);
        let clients: Vec<_> = clients.filter(|context| uses(&context.tls.common, name)).collect();
        let commons = servers.iter().map(|context| &context.tls.common);
        let commons = commons.chain(clients.iter().map(|context| &context.tls.common));
        let resolved = commons
            .map(|common| Ok((self.certificates(common)?, self.trust(common)?)))
            .collect::<Result<Vec<_>, Rejected>>()?;
        let mut resolved = resolved.into_iter();
        for (context, (certificates, trust)) in servers.iter().zip(&mut resolved) {
            fill_server(context, certificates, trust)?;
        }
        for (context, (certificates, trust)) in clients.iter().zip(&mut resolved) {
            fill_client(context, certificates, trust)?;
        }
        Ok(())
    }

    /// Our own certificates.
    fn certificates(
        &self,
        common: &CommonTls,
    ) -> Result<Resolved<Vec<Arc<CertifiedKey>>>, Rejected> {
        let mut certificates = Vec::with_capacity(common.certificates.len());
        for source in &common.certificates {
            match source {
                CertificateSource::Inline(key) => certificates.push(Arc::clone(key)),
                CertificateSource::Secret(secret) => match self.secrets.get(&secret.name) {
                    Some(Stored::Certificate(key)) => certificates.push(Arc::clone(key)),
                    Some(Stored::Validation { .. }) => {
                        return Err(wrong_kind(&secret.name, "tls_certificate"));
                    }
                    None => return Ok(Resolved::Missing),
                },
            }
        }
        Ok(Resolved::Ready(certificates))
    }

    /// How peers are judged.
    fn trust(&self, common: &CommonTls) -> Result<Resolved<Option<Arc<Trust>>>, Rejected> {
        let secret = match &common.validation {
            Validation::None => return Ok(Resolved::Ready(None)),
            Validation::Inline(context) => {
                let roots = Arc::new(Roots::new(context).map_err(unusable)?);
                let trust = Trust::new(roots, ValidationContext::clone(context));
                return Ok(Resolved::Ready(Some(Arc::new(trust))));
            }
            Validation::Secret(secret) | Validation::Combined { secret, .. } => secret,
        };
        let (context, roots) = match self.secrets.get(&secret.name) {
            Some(Stored::Validation { context, roots, .. }) => (context, roots),
            Some(Stored::Certificate(_)) => {
                return Err(wrong_kind(&secret.name, "validation_context"));
            }
            None => return Ok(Resolved::Missing),
        };
        let trust = match &common.validation {
            Validation::Combined { default, .. } => {
                let combined = combine(default, context);
                // What stands in place may bring roots or lists of its own.
                let roots = if default.roots.is_empty() && default.crls.is_empty() {
                    Arc::clone(roots)
                } else {
                    Arc::new(Roots::new(&combined).map_err(unusable)?)
                };
                needs_roots(&secret.name, &combined)?;
                Trust::new(roots, combined)
            }
            _ => {
                needs_roots(&secret.name, context)?;
                Trust::new(Arc::clone(roots), ValidationContext::clone(context))
            }
        };
        Ok(Resolved::Ready(Some(Arc::new(trust))))
    }
}

impl Stored {
    /// Whether another says the same.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // A key belongs to its certificate.
            (Self::Certificate(one), Self::Certificate(other)) => one.cert == other.cert,
            (
                Self::Validation { fingerprint: one, .. },
                Self::Validation { fingerprint: other, .. },
            ) => one == other,
            _ => false,
        }
    }

    fn new(value: SecretValue) -> Result<Self, Rejected> {
        match value {
            SecretValue::Certificate(key) => Ok(Self::Certificate(key)),
            SecretValue::Validation(context) => {
                let roots = Arc::new(Roots::new(&context).map_err(unusable)?);
                // What it is, in words: regexes and parsed certificates have no equality of their own.
                let fingerprint = format!("{context:?}");
                Ok(Self::Validation { context, roots, fingerprint })
            }
        }
    }
}

fn fill_server(
    context: &ServerContext,
    certificates: Resolved<Vec<Arc<CertifiedKey>>>,
    trust: Resolved<Option<Arc<Trust>>>,
) -> Result<(), Rejected> {
    let (Resolved::Ready(certificates), Resolved::Ready(trust)) = (certificates, trust) else {
        return Ok(());
    };
    context.set_certificates(certificates);
    context.set_trust(trust).map_err(|error| refused(&error))
}

fn fill_client(
    context: &ClientContext,
    certificates: Resolved<Vec<Arc<CertifiedKey>>>,
    trust: Resolved<Option<Arc<Trust>>>,
) -> Result<(), Rejected> {
    let (Resolved::Ready(certificates), Resolved::Ready(trust)) = (certificates, trust) else {
        return Ok(());
    };
    let certificate = certificates.into_iter().next();
    context.set(certificate, trust).map_err(|error| refused(&error))
}

fn uses(common: &CommonTls, name: &str) -> bool {
    let certificate = common
        .certificates
        .iter()
        .any(|source| matches!(source, CertificateSource::Secret(secret) if *secret.name == *name));
    let validation = match &common.validation {
        Validation::None | Validation::Inline(_) => false,
        Validation::Secret(secret) | Validation::Combined { secret, .. } => *secret.name == *name,
    };
    certificate || validation
}

/// As protos merge: what the secret sets counts, lists add up.
fn combine(default: &ValidationContext, secret: &ValidationContext) -> ValidationContext {
    let both = |a: &[_], b: &[_]| [a, b].concat();
    ValidationContext {
        roots: if secret.roots.is_empty() { &default.roots } else { &secret.roots }.clone(),
        san_matchers: [&*default.san_matchers, &*secret.san_matchers].concat(),
        certificate_hashes: both(&default.certificate_hashes, &secret.certificate_hashes),
        spki_hashes: both(&default.spki_hashes, &secret.spki_hashes),
        crls: if secret.crls.is_empty() { &default.crls } else { &secret.crls }.clone(),
        only_verify_leaf_crl: default.only_verify_leaf_crl || secret.only_verify_leaf_crl,
        suppress_client_ca_list: default.suppress_client_ca_list || secret.suppress_client_ca_list,
        allow_expired: default.allow_expired || secret.allow_expired,
        accept_untrusted: default.accept_untrusted || secret.accept_untrusted,
    }
}

/// Names in a certificate that no root vouches for prove nothing.
fn needs_roots(secret: &str, context: &ValidationContext) -> Result<(), Rejected> {
    let is_unfounded = !context.san_matchers.is_empty() || !context.crls.is_empty();
    if context.roots.is_empty() && is_unfounded {
        let reason = format!(
            "secret {secret:?} has no trusted_ca, but subject names or revocation lists are to be checked"
        );
        return Err(Rejected { path: "validation_context.trusted_ca".to_owned(), reason });
    }
    Ok(())
}

fn wrong_kind(name: &str, wanted: &str) -> Rejected {
    Rejected {
        path: String::new(),
        reason: format!("secret {name:?} is used as a {wanted}, but is none"),
    }
}

fn unusable(error: webpki::Error) -> Rejected {
    Rejected { path: "validation_context.trusted_ca".to_owned(), reason: error.to_string() }
}

fn refused(error: &rustls::Error) -> Rejected {
    Rejected { path: String::new(), reason: format!("TLS cannot be configured so: {error}") }
}

/// Forgets contexts that no one holds any more, when there may be enough of them to matter.
fn drop_dead<T>(contexts: &mut HashMap<u64, Weak<T>>) {
    if contexts.len() == contexts.capacity() {
        contexts.retain(|_, context| context.strong_count() > 0);
    }
}
