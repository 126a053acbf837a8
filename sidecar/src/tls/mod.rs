//! TLS of both sides: configurations built once for each version of their secrets, and how peers are verified.
//!
//! Reading order: [`contexts`] (which configuration uses which secret, and what is rebuilt when one changes),
//! [`server`] and [`client`] (what a connection takes), [`verify`] (is this peer who it has to be), [`san`] (is a name
//! in its certificate an allowed one), [`certificate`] (what a certificate says), [`identity`] (who the peer is),
//! [`resumption`] (how long a session may be resumed), [`names`] (what was
//! negotiated, in names), [`failure`] (why a handshake failed, for counters and logs).
//!
//! What may be kept when a secret changes:
//! - a new certificate of our own, as server: everything; the next handshake shows it, sessions stay valid;
//! - a new certificate of our own, as client: not the sessions, because a resumed one presents the old certificate;
//! - another trust, on either side: nothing; there is a new configuration with new session keys, so that no session
//!   which began under the old trust is resumed under the new one.
//!
//! Connections that are up stay up in each case.

mod certificate;
mod client;
mod contexts;
mod failure;
mod identity;
mod names;
mod provider;
mod resumption;
mod san;
mod server;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use client::ClientContext;
pub(crate) use contexts::{CertificateSet, Contexts};
pub(crate) use failure::{Failure, FailureKind};
pub(crate) use identity::PeerIdentity;
pub(crate) use names::{TlsFacts, cipher_name, group_name, version_name};
pub(crate) use server::ServerContext;
