//! What a log may say of a connection to an endpoint.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls_pki_types::CertificateDer;

use crate::cluster::Endpoint;
use crate::config::address::Address;
use crate::tls::{self, PeerIdentity};
use crate::transport::Transport;

/// What a log may say of a connection to an endpoint.
pub(crate) struct ConnectionFacts {
    /// Unique among the connections to endpoints.
    pub(crate) id: u64,
    /// Our address, which a Unix domain socket does not have, and the endpoint's; `None` if the connection was gone at once.
    pub(crate) addresses: Option<(Option<SocketAddr>, Address)>,
    /// Under TLS.
    pub(crate) tls: Option<TlsFacts>,
}

/// What was negotiated with an endpoint.
pub(crate) struct TlsFacts {
    /// `TLSv1.3`
    pub(crate) version: &'static str,
    /// In OpenSSL's names.
    pub(crate) cipher: Option<Box<str>>,
    /// Of the key exchange; `X25519`
    pub(crate) group: Option<Box<str>>,
    chain: Vec<CertificateDer<'static>>,
    peer: OnceCell<Option<PeerIdentity>>,
}

impl TlsFacts {
    /// What the endpoint's certificate says. It is read when a log first asks.
    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.get_or_init(|| PeerIdentity::of(&self.chain, true)).as_ref()
    }
}

impl ConnectionFacts {
    /// What is to be known of a connection that is up.
    pub(crate) fn of(transport: &Transport, endpoint: &Endpoint) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let tcp = transport.socket().tcp();
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            addresses: match &endpoint.address {
                Address::Ip(_) => {
                    let remote = tcp.peer_addr().ok().map(Address::Ip);
                    tcp.local_addr().ok().map(Some).zip(remote)
                }
                pipe @ Address::Pipe(_) => Some((None, pipe.clone())),
            },
            tls: transport.tls_state().map(|state| TlsFacts {
                version: tls::version_name(state.protocol_version()),
                cipher: state.negotiated_cipher_suite().map(|it| tls::cipher_name(it.suite())),
                group: state.negotiated_key_exchange_group().map(|it| tls::group_name(it.name())),
                chain: state.peer_certificates().unwrap_or_default().to_vec(),
                peer: OnceCell::new(),
            }),
        }
    }
}
