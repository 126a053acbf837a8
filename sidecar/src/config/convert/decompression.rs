//! Libraries that decompress, `envoy.compression.*.decompressor`.

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::extensions::compression::brotli::decompressor::v3 as brotli;
use outrigger_proto::envoy::extensions::compression::gzip::decompressor::v3 as gzip;
use outrigger_proto::envoy::extensions::compression::zstd::decompressor::v3 as zstd;

use crate::config::Problems;
use crate::config::decompressor::Coding;

use super::common::{number_in, required, text, unknown_type, unpack};
use super::data_source;

const GZIP: &str = "envoy.extensions.compression.gzip.decompressor.v3.Gzip";
const BROTLI: &str = "envoy.extensions.compression.brotli.decompressor.v3.Brotli";
const ZSTD: &str = "envoy.extensions.compression.zstd.decompressor.v3.Zstd";

/// Most bytes that may become of one where nothing is set.
const MAX_RATIO: u32 = 100;

/// A library, by the name that it has in this place.
pub(super) fn library(
    problems: &mut Problems,
    proto: TypedExtensionConfig,
) -> Option<(String, Coding)> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let name = text(problems, "name", name);
    let config = required(problems, "typed_config", typed_config)?;
    let coding = problems.field("typed_config", |problems| {
        if any::holds::<gzip::Gzip>(&config) {
            let proto = unpack(problems, &config)?;
            Some(of_gzip(problems, proto))
        } else if any::holds::<brotli::Brotli>(&config) {
            let brotli::Brotli {
                disable_ring_buffer_reallocation: _, // how memory is taken; changes no outcome
                chunk_size,
            } = unpack(problems, &config)?;
            number_in(problems, "chunk_size", chunk_size, 4096..=65_536);
            Some(Coding::Brotli)
        } else if any::holds::<zstd::Zstd>(&config) {
            let proto = unpack(problems, &config)?;
            of_zstd(problems, proto)
        } else {
            unknown_type(problems, &config, &[GZIP, BROTLI, ZSTD]);
            None
        }
    })?;
    Some((name, coding))
}

fn of_gzip(problems: &mut Problems, proto: gzip::Gzip) -> Coding {
    let gzip::Gzip { window_bits, chunk_size, max_inflate_ratio } = proto;
    // How much the library gives out at a time: here it gives out what there is.
    number_in(problems, "chunk_size", chunk_size, 4096..=65_536);
    let window_bits = number_in(problems, "window_bits", window_bits, 9..=15);
    let max_ratio = number_in(problems, "max_inflate_ratio", max_inflate_ratio, 1..=1032);
    Coding::Gzip {
        window_bits: window_bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(15),
        max_ratio: max_ratio.unwrap_or(MAX_RATIO),
    }
}

fn of_zstd(problems: &mut Problems, proto: zstd::Zstd) -> Option<Coding> {
    let zstd::Zstd { dictionaries, chunk_size } = proto;
    number_in(problems, "chunk_size", chunk_size, 4096..=65_536);
    problems.unsupported("dictionaries[1]", dictionaries.len() > 1);
    let dictionary = match dictionaries.into_iter().next() {
        None => Vec::new(),
        Some(source) => {
            problems.element("dictionaries", 0, |problems| data_source::read(problems, source))?
        }
    };
    Some(Coding::Zstd(dictionary.into()))
}
