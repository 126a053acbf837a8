//! Certificate authority, join tokens, certificate requests.
//!
//! Reading order:
//! - `spiffe`: the names in certificates.
//! - `ca`: root and issuing certificate; leaves and revocation lists signed by it.
//! - `issued`: what was issued to whom, and what of it is refused since.
//! - `rotation`: a new root in steps; `admin`: what the API asks of all this.
//! - `csr`: what of a certificate request counts.
//! - `tokens`: join tokens, of which only a hash is kept; `token_files`, those that are kept in files.
//! - `service`: Join and Renew.
//! - `tls`: the TLS side of the discovery port, and who is at the other end.

mod admin;
mod ca;
mod csr;
mod issued;
mod rotation;
mod service;
mod spiffe;
mod tls;
pub(crate) mod token_files;
mod tokens;

pub use ca::{CaError, CertificateAuthority, Leaf, RotationStep};
pub use spiffe::{control_plane_id, workload_id};
pub use tls::TlsError;
pub(crate) use tokens::{Tokens, joined_services};

pub(crate) use admin::Administration;
pub(crate) use ca::Trust;
pub(crate) use issued::{Ledger, millis};
pub(crate) use rotation::Progress;
pub(crate) use service::{IdentityService, REVOKED};
pub(crate) use spiffe::PeerIdentity;
pub(crate) use tls::{MeshIncoming, PeerInfo, ServerIdentity, following};
