//! Certificate authority, join tokens, certificate requests.
//!
//! Reading order:
//! - `spiffe`: the names in certificates.
//! - `ca`: root and issuing certificate; leaves signed by it.
//! - `csr`: what of a certificate request counts.
//! - `tokens`: join tokens, of which only a hash is kept.
//! - `service`: Join and Renew.
//! - `tls`: the TLS side of the discovery port, and who is at the other end.

mod ca;
mod csr;
mod service;
mod spiffe;
mod tls;
mod tokens;

pub use ca::{CaError, CertificateAuthority, Leaf};
pub use spiffe::{control_plane_id, workload_id};
pub use tls::TlsError;
pub(crate) use tokens::{Tokens, joined_services};

pub(crate) use service::IdentityService;
pub(crate) use spiffe::PeerIdentity;
pub(crate) use tls::{MeshIncoming, PeerInfo, ServerIdentity, server_config};
