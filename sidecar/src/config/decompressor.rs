//! Decompression of bodies: the filter, and the libraries.

use std::sync::Arc;

use http::HeaderName;

use super::runtime::RuntimeFlag;

/// A validated `envoy.extensions.filters.http.decompressor.v3.Decompressor`.
#[derive(Debug, Clone)]
pub struct Decompressor {
    /// `NAME.LIBRARY`: what its statistics stand under, below `http.STAT_PREFIX.decompressor`.
    pub library: Arc<str>,
    /// How bodies are compressed.
    pub coding: Coding,
    /// Bodies of requests.
    pub request: Unpacked,
    /// Bodies of responses.
    pub response: Unpacked,
    /// Endpoints are told that responses may be compressed so. Default true.
    pub advertise: bool,
    /// Trailer that says how long a body was.
    pub compressed_bytes: HeaderName,
    /// Trailer that says how long it has become.
    pub uncompressed_bytes: HeaderName,
}

/// Which bodies of one direction are decompressed.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Whether any are. Default true.
    pub enabled: RuntimeFlag,
    /// Also those that nobody is to change (`no-transform`). Default false.
    pub ignore_no_transform: bool,
}

/// A library with its settings.
#[derive(Debug, Clone)]
pub enum Coding {
    /// `gzip`
    Gzip {
        /// 9 to 15. Default 15.
        window_bits: u8,
        /// Most bytes that may become of one.
        max_ratio: u32,
    },
    /// `br`
    Brotli,
    /// `zstd`; the dictionary may be empty.
    Zstd(Arc<[u8]>),
}

impl Coding {
    /// As it stands in `content-encoding`.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli => "br",
            Self::Zstd(_) => "zstd",
        }
    }
}
