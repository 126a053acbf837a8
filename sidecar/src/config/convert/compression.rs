//! Libraries that compress, `envoy.compression.*.compressor`.

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::extensions::compression::brotli::compressor::v3 as brotli;
use outrigger_proto::envoy::extensions::compression::gzip::compressor::v3 as gzip;
use outrigger_proto::envoy::extensions::compression::zstd::compressor::v3 as zstd;
use outrigger_proto::google::protobuf::UInt32Value;

use crate::config::Problems;
use crate::config::compressor::{Brotli, BrotliMode, Codec, Gzip, GzipStrategy, Zstd};

use super::common::{enumeration, number, number_in, required, text, unknown_type, unpack};
use super::data_source;

const GZIP: &str = "envoy.extensions.compression.gzip.compressor.v3.Gzip";
const BROTLI: &str = "envoy.extensions.compression.brotli.compressor.v3.Brotli";
const ZSTD: &str = "envoy.extensions.compression.zstd.compressor.v3.Zstd";

/// The highest level of Zstandard, which is what a higher one means.
const MAX_ZSTD_LEVEL: u32 = 22;

/// How its statistics call a library.
pub(super) fn stat_prefix(codec: &Codec) -> &'static str {
    match codec {
        Codec::Gzip(_) => "gzip",
        Codec::Brotli(_) => "brotli",
        Codec::Zstd(_) => "zstd",
    }
}

/// A library, by the name that it has in this place.
pub(super) fn compressor(
    problems: &mut Problems,
    proto: TypedExtensionConfig,
) -> Option<(String, Codec)> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let name = text(problems, "name", name);
    let config = required(problems, "typed_config", typed_config)?;
    let codec = problems.field("typed_config", |problems| {
        if any::holds::<gzip::Gzip>(&config) {
            let proto = unpack(problems, &config)?;
            Some(Codec::Gzip(of_gzip(problems, proto)))
        } else if any::holds::<brotli::Brotli>(&config) {
            let proto = unpack(problems, &config)?;
            Some(Codec::Brotli(of_brotli(problems, proto)))
        } else if any::holds::<zstd::Zstd>(&config) {
            let proto = unpack(problems, &config)?;
            Some(Codec::Zstd(of_zstd(problems, proto)?))
        } else {
            unknown_type(problems, &config, &[GZIP, BROTLI, ZSTD]);
            None
        }
    })?;
    Some((name, codec))
}

/// How much the library gives out at a time: here it gives out what there is. Only its range is checked.
fn chunk_size(problems: &mut Problems, value: Option<UInt32Value>) {
    number_in(problems, "chunk_size", value, 4096..=65_536);
}

/// A small number that has to lie in `range` where it is set.
fn small(
    problems: &mut Problems,
    name: &str,
    value: Option<UInt32Value>,
    range: std::ops::RangeInclusive<u32>,
    default: u8,
) -> u8 {
    let value = number_in(problems, name, value, range);
    value.and_then(|value| u8::try_from(value).ok()).unwrap_or(default)
}

fn of_gzip(problems: &mut Problems, proto: gzip::Gzip) -> Gzip {
    use gzip::gzip::{CompressionLevel, CompressionStrategy};
    let gzip::Gzip {
        memory_level,
        compression_level,
        compression_strategy,
        window_bits,
        chunk_size: chunk,
    } = proto;
    chunk_size(problems, chunk);
    let level = match enumeration(problems, "compression_level", compression_level) {
        None | Some(CompressionLevel::DefaultCompression) => 6,
        Some(level) => u8::try_from(i32::from(level)).unwrap_or(6),
    };
    let strategy = match enumeration(problems, "compression_strategy", compression_strategy) {
        None | Some(CompressionStrategy::DefaultStrategy) => GzipStrategy::Default,
        Some(CompressionStrategy::Filtered) => GzipStrategy::Filtered,
        Some(CompressionStrategy::HuffmanOnly) => GzipStrategy::HuffmanOnly,
        Some(CompressionStrategy::Rle) => GzipStrategy::Rle,
        Some(CompressionStrategy::Fixed) => GzipStrategy::Fixed,
    };
    Gzip {
        level,
        memory: small(problems, "memory_level", memory_level, 1..=9, 5),
        strategy,
        window_bits: small(problems, "window_bits", window_bits, 9..=15, 12),
    }
}

fn of_brotli(problems: &mut Problems, proto: brotli::Brotli) -> Brotli {
    use brotli::brotli::EncoderMode;
    let brotli::Brotli {
        quality,
        encoder_mode,
        window_bits,
        input_block_bits,
        chunk_size: chunk,
        disable_literal_context_modeling,
    } = proto;
    chunk_size(problems, chunk);
    let mode = match enumeration(problems, "encoder_mode", encoder_mode) {
        None | Some(EncoderMode::Default | EncoderMode::Generic) => BrotliMode::Generic,
        Some(EncoderMode::Text) => BrotliMode::Text,
        Some(EncoderMode::Font) => BrotliMode::Font,
    };
    Brotli {
        quality: small(problems, "quality", quality, 0..=11, 3),
        mode,
        window_bits: small(problems, "window_bits", window_bits, 10..=24, 18),
        block_bits: small(problems, "input_block_bits", input_block_bits, 16..=24, 24),
        no_literal_context: disable_literal_context_modeling,
    }
}

fn of_zstd(problems: &mut Problems, proto: zstd::Zstd) -> Option<Zstd> {
    use zstd::zstd::Strategy;
    let zstd::Zstd { compression_level, enable_checksum, strategy, dictionary, chunk_size: chunk } =
        proto;
    chunk_size(problems, chunk);
    // As in Envoy 0 is the default.
    let level = number(compression_level).filter(|level| *level > 0).unwrap_or(3);
    let strategy = enumeration(problems, "strategy", strategy).unwrap_or(Strategy::Default);
    let dictionary = match dictionary {
        None => Vec::new(),
        Some(source) => {
            problems.field("dictionary", |problems| data_source::read(problems, source))?
        }
    };
    Some(Zstd {
        level: u8::try_from(level.min(MAX_ZSTD_LEVEL)).unwrap_or(3),
        checksum: enable_checksum,
        strategy: u8::try_from(i32::from(strategy)).unwrap_or(0),
        dictionary: dictionary.into(),
    })
}
