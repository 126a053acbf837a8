//! HTTP: from a connection to its requests, and from a request to its response.

pub(crate) mod matching;
pub(crate) mod path;
pub(crate) mod timeout;
