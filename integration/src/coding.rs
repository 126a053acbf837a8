//! Bodies that were compressed, made readable.

use std::io::Read;

/// The body, or `None` if it is not what `content-encoding` says.
pub fn decode(coding: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).ok()?,
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain).ok()?,
        "zstd" => zstd::stream::read::Decoder::new(bytes).ok()?.read_to_end(&mut plain).ok()?,
        _ => return None,
    };
    Some(plain)
}
