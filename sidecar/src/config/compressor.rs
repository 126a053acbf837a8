//! Compression of bodies: the filter, what a route says about it, and the libraries.

use std::sync::Arc;

use super::matcher::StringMatcher;
use super::runtime::RuntimeFlag;

/// A validated `envoy.extensions.filters.http.compressor.v3.Compressor`.
#[derive(Debug, Clone)]
pub struct Compressor {
    /// `NAME.LIBRARY`: what its statistics stand under, below `http.STAT_PREFIX.compressor`.
    pub library: Arc<str>,
    /// How bodies are compressed.
    pub codec: Codec,
    /// Bodies of requests; `None`: they are left as they are.
    pub request: Option<Direction>,
    /// Bodies of responses.
    pub response: ResponseDirection,
    /// Of several compressors that a client likes equally, this one.
    pub choose_first: bool,
}

/// Which bodies of one direction are compressed.
#[derive(Debug, Clone)]
pub struct Direction {
    /// Whether any are. Default true.
    pub enabled: RuntimeFlag,
    /// Least `content-length`, in bytes; a body without one is long enough. Default 30.
    pub min_length: u32,
    /// Of which types; a body without a type is of all of them.
    pub types: ContentTypes,
}

/// Types of bodies, without their parameters.
#[derive(Debug, Clone)]
pub enum ContentTypes {
    /// One of these, in any case.
    Named(Box<[Box<str>]>),
    /// Whatever one of these takes.
    Matching(Vec<StringMatcher>),
}

/// What is particular to responses.
#[derive(Debug, Clone)]
pub struct ResponseDirection {
    /// Which are compressed.
    pub common: Direction,
    /// Statistics stand directly under the library's: the direction is not configured by a message of its own.
    pub legacy_statistics: bool,
    /// A response with an `etag` is left as it is.
    pub disable_on_etag: bool,
    /// A strong `etag` is made a weak one, instead of being removed. Goes before `disable_on_etag`.
    pub weaken_etag: bool,
    /// Endpoints do not learn what the client accepts.
    pub remove_accept_encoding: bool,
    /// Responses with these codes are left as they are.
    pub uncompressible: Box<[u16]>,
    /// Says in `x-envoy-compression-status` what was done, or why not.
    pub status_header: bool,
}

/// A validated `CompressorPerRoute`.
#[derive(Debug, Clone)]
pub struct CompressorPerRoute {
    /// Whether responses are compressed, if the route says so.
    pub enabled: Option<bool>,
    /// In the place of [`ResponseDirection::remove_accept_encoding`].
    pub remove_accept_encoding: Option<bool>,
    /// In the place of [`Compressor::codec`].
    pub codec: Option<Codec>,
}

/// A library with its settings.
#[derive(Debug, Clone)]
pub enum Codec {
    /// `gzip`
    Gzip(Gzip),
    /// `br`
    Brotli(Brotli),
    /// `zstd`
    Zstd(Zstd),
}

impl Codec {
    /// As `content-encoding` names it.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Gzip(_) => "gzip",
            Self::Brotli(_) => "br",
            Self::Zstd(_) => "zstd",
        }
    }
}

/// Settings of zlib.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gzip {
    /// 1 (fast) to 9 (small). Default 6.
    pub level: u8,
    /// 1 (little memory) to 9. Default 5.
    pub memory: u8,
    /// How it looks for what repeats.
    pub strategy: GzipStrategy,
    /// Logarithm of the window's size, 9 to 15. Default 12: 4 KiB.
    pub window_bits: u8,
}

/// zlib's strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // zlib's manual, deflateInit2
pub enum GzipStrategy {
    Default,
    Filtered,
    HuffmanOnly,
    Rle,
    Fixed,
}

/// Settings of Brotli.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brotli {
    /// 0 (fast) to 11 (small). Default 3.
    pub quality: u8,
    /// What the body is like.
    pub mode: BrotliMode,
    /// Logarithm of the window's size, 10 to 24. Default 18.
    pub window_bits: u8,
    /// Logarithm of the input block's size, 16 to 24. Default 24.
    pub block_bits: u8,
    /// Quicker to read, and larger.
    pub no_literal_context: bool,
}

/// What Brotli is to expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Brotli's manual, BrotliEncoderMode
pub enum BrotliMode {
    Generic,
    Text,
    Font,
}

/// Settings of Zstandard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zstd {
    /// 1 (fast) to 22 (small). Default 3.
    pub level: u8,
    /// Its checksum follows the content.
    pub checksum: bool,
    /// Number of the strategy, 1 to 9; 0: what the level says.
    pub strategy: u8,
    /// What both sides know beforehand; empty: nothing.
    pub dictionary: Arc<[u8]>,
}
