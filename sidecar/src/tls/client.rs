//! TLS towards upstream endpoints.

use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, CommonState, Error as TlsError, SignatureScheme};
use rustls_pki_types::{DnsName, ServerName};

use crate::config::tls::UpstreamTls;

use super::provider::{provider_for, versions};
use super::resumption::{Sessions, SoonestExpiry};
use super::server::identity;
use super::verify::{ServerJudge, Trust};
use super::{Failure, PeerIdentity};

/// An `UpstreamTlsContext` with the current version of its secrets.
#[derive(Debug)]
pub(crate) struct ClientContext {
    pub(super) tls: Arc<UpstreamTls>,
    server_name: ServerName<'static>,
    current: ArcSwapOption<Current>,
}

/// A configuration and the judge in it.
#[derive(Debug)]
struct Current {
    config: Arc<ClientConfig>,
    trust: Option<Arc<Trust>>,
}

impl ClientContext {
    /// A context without secrets: it makes no connection yet.
    pub(super) fn new(tls: Arc<UpstreamTls>) -> Self {
        let configured = tls.sni.as_deref().and_then(dns_name);
        let server_name = configured.unwrap_or_else(no_name);
        Self { tls, server_name, current: ArcSwapOption::empty() }
    }

    /// What to connect with; `None` while a secret is missing.
    pub(crate) fn config(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        Some((self.configuration()?, self.server_name.clone()))
    }

    /// As [`ClientContext::config`], with the server name taken from a request's host (`auto_sni`) where it can be one.
    pub(crate) fn config_for_host(
        &self,
        host: &str,
    ) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let name = dns_name(without_port(host)).unwrap_or_else(|| self.server_name.clone());
        Some((self.configuration()?, name))
    }

    fn configuration(&self) -> Option<Arc<ClientConfig>> {
        self.current.load().as_ref().map(|current| Arc::clone(&current.config))
    }

    /// Whether every secret is there.
    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// Who the server of an established connection is.
    ///
    /// # Errors
    /// If the session was resumed and its certificate has expired since. Sessions are given up before that, so this is
    /// the second line of defence.
    pub(crate) fn peer(&self, connection: &CommonState) -> Result<Option<PeerIdentity>, Failure> {
        let current = self.current.load();
        let trust = current.as_ref().and_then(|current| current.trust.as_deref());
        identity(connection, trust)
    }

    /// Takes a certificate of our own and a trust. Sessions that began with others are over: a resumed one would
    /// present the old certificate, or skip the new verification.
    ///
    /// # Errors
    /// If the library refuses the configuration.
    pub(super) fn set(
        &self,
        certificate: Option<Arc<CertifiedKey>>,
        trust: Option<Arc<Trust>>,
    ) -> Result<(), TlsError> {
        let UpstreamTls { common, sni: _, max_session_keys, fingerprint: _ } = &*self.tls;
        let expiry =
            trust.as_ref().map_or_else(|| Arc::new(SoonestExpiry::new()), |trust| trust.expiry());
        let mut config = ClientConfig::builder_with_provider(provider_for(common))
            .with_protocol_versions(versions(common.versions))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerJudge(trust.clone())))
            .with_client_cert_resolver(Arc::new(OneCertificate(certificate)));
        config.alpn_protocols = common.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = match *max_session_keys {
            0 => Resumption::disabled(),
            most => Resumption::store(Arc::new(Sessions::new(most as usize, expiry))),
        };
        let config = Arc::new(config);
        self.current.store(Some(Arc::new(Current { config, trust })));
        Ok(())
    }
}

fn dns_name(name: &str) -> Option<ServerName<'static>> {
    DnsName::try_from(name.to_owned()).ok().map(ServerName::DnsName)
}

/// The library wants a name for every connection. An address is never sent; who the server has to be is judged by
/// the configured matchers, not by this.
fn no_name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED))
}

/// The host of an authority. An IPv6 address in brackets is no DNS name either way.
fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Shows one certificate, or none, to whoever asks and can check its kind.
#[derive(Debug)]
struct OneCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.clone().filter(|certificate| certificate.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
