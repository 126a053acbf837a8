//! Certificates and connections as a log shows them.

use http::Version;

use crate::access_log::{Certificate, LogRecord, UpstreamConnection};
use crate::tls::{PeerIdentity, TlsFacts};
use crate::upstream::ConnectionFacts;

/// What a log may say of a certificate.
pub(crate) fn certificate_of(identity: &PeerIdentity) -> Certificate<'_> {
    Certificate {
        uri_sans: &identity.uri_sans,
        dns_sans: &identity.dns_sans,
        email_sans: &identity.email_sans,
        ip_sans: &identity.ip_sans,
        subject: &identity.subject,
        issuer: &identity.issuer,
        serial: &identity.serial,
        sha256: &identity.sha256,
        not_before: identity.not_before,
        not_after: identity.not_after,
        der: identity.chain.first().map_or(&[], |leaf| leaf.as_ref()),
    }
}

/// Notes what a log may say of TLS with a client.
pub(crate) fn downstream_tls<'a>(record: &mut LogRecord<'a>, tls: &'a TlsFacts) {
    record.downstream_peer = tls.identity.as_ref().map(certificate_of);
    record.downstream_own = tls.own.as_deref().map(certificate_of);
    record.downstream_tls_version = Some(tls.version);
    record.downstream_tls_cipher = tls.cipher.as_deref();
    record.downstream_tls_group = tls.group.as_deref();
}

/// What a log may say of a connection to an endpoint, of HTTP of this version or (`None`) of bytes.
pub(crate) fn upstream_of(
    facts: &ConnectionFacts,
    protocol: Option<Version>,
) -> Option<UpstreamConnection<'_>> {
    let (local, remote) = facts.addresses.as_ref()?;
    let tls = facts.tls.as_ref();
    Some(UpstreamConnection {
        id: facts.id,
        local: *local,
        remote,
        protocol,
        tls_version: tls.map(|tls| tls.version),
        tls_cipher: tls.and_then(|tls| tls.cipher.as_deref()),
        tls_group: tls.and_then(|tls| tls.group.as_deref()),
        peer: tls.and_then(|tls| tls.peer()).map(certificate_of),
    })
}
