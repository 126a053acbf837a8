//! JSON Web Tokens (RFC 7519) and the keys that they are signed with (RFC 7517), without any I/O.
//!
//! A key is bound to the algorithms of its kind: what a token says of its algorithm never makes an RSA key a shared
//! secret, and `none` is no algorithm. What is refused, and in which words, is Envoy's.
//!
//! Reading order: [`status`] (why a token is refused), [`token`] (what stands in it), [`jwks`] (keys and signatures).

mod jwks;
mod status;
#[cfg(test)]
mod tests;
mod token;

pub use jwks::Jwks;
pub(crate) use status::Status;
pub(crate) use token::Token;
