//! TLS of both sides: configurations built once for each version of their secrets, and how peers are verified.
//!
//! Reading order: [`contexts`] (which configuration uses which secret, and what is rebuilt when one changes),
//! [`server`] and [`client`] (what a connection takes), [`verify`] (is this peer who it has to be), [`identity`]
//! (who it is), [`failure`] (why a handshake failed, for counters and logs).

mod client;
mod contexts;
mod failure;
mod identity;
mod server;

pub(crate) use client::ClientContext;
pub(crate) use contexts::Contexts;
pub(crate) use failure::{Failure, FailureKind};
pub(crate) use identity::PeerIdentity;
pub(crate) use server::ServerContext;
