//! Connections to endpoints, kept by each worker for itself.
//!
//! Reading order: [`pool`] (where a request gets a connection and where it goes back), [`h1`] and [`h2`] (what a
//! connection is in each version of HTTP), [`connect`] (how one is made), [`facts`] (what a log may say of it), [`failure`] (what can go wrong, and whether a
//! retry is safe).

pub(crate) mod connect;
mod facts;
pub(crate) mod failure;
pub(crate) mod h1;
pub(crate) mod h2;
mod happy_eyeballs;
pub(crate) mod pool;

pub(crate) use facts::ConnectionFacts;
pub(crate) use failure::Failure;
pub(crate) use pool::{Acquired, Client, Pool, Pools, Protocol};

/// What a request carries; the layer above says which type that is.
pub(crate) trait RequestBody:
    http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
    + Unpin
    + 'static
{
}

impl<B> RequestBody for B where
    B: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + 'static
{
}
