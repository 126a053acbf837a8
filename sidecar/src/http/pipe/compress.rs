//! A body that is compressed on its way.

use std::io::{self, Write};
use std::sync::Arc;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use bytes::Bytes;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Method, Status, Strategy};
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdWriter;
use zstd::zstd_safe;

use crate::config::compressor::{Brotli, BrotliMode, Codec, Gzip, GzipStrategy, Zstd};
use crate::http::body::BodyError;
use crate::stats::{CompressionCells, Sharded};

/// Room that the library is given at a time.
const ROOM: usize = 4096;

/// A compressor at work.
pub(crate) struct Compression {
    encoder: Encoder,
    stats: Arc<Sharded<CompressionCells>>,
}

enum Encoder {
    Gzip(Deflate),
    // Large, and as rare as the others.
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdWriter<'static, Vec<u8>>),
    /// All is said.
    Ended,
}

impl Compression {
    /// Of a new body.
    pub(crate) fn new(
        codec: &Codec,
        stats: &Arc<Sharded<CompressionCells>>,
    ) -> Result<Self, BodyError> {
        let encoder = match codec {
            Codec::Gzip(settings) => Encoder::Gzip(deflate(*settings)),
            Codec::Brotli(settings) => {
                let writer = CompressorWriter::with_params(Vec::new(), ROOM, &of(*settings));
                Encoder::Brotli(Box::new(writer))
            }
            Codec::Zstd(settings) => Encoder::Zstd(zstandard(settings).map_err(failed)?),
        };
        Ok(Self { encoder, stats: Arc::clone(stats) })
    }

    pub(super) fn data(&mut self, piece: &[u8]) -> Result<Bytes, BodyError> {
        self.stats.local().total_uncompressed_bytes.add(piece.len() as u64);
        let made = match &mut self.encoder {
            Encoder::Gzip(deflate) => run(deflate, piece, DeflateFlush::NoFlush),
            Encoder::Brotli(writer) => {
                writer.write_all(piece).map(|()| std::mem::take(writer.get_mut()))
            }
            Encoder::Zstd(writer) => {
                writer.write_all(piece).map(|()| std::mem::take(writer.get_mut()))
            }
            Encoder::Ended => Ok(Vec::new()),
        };
        self.counted(made)
    }

    pub(super) fn flush(&mut self) -> Result<Bytes, BodyError> {
        let made = match &mut self.encoder {
            Encoder::Gzip(deflate) => run(deflate, &[], DeflateFlush::SyncFlush),
            Encoder::Brotli(writer) => writer.flush().map(|()| std::mem::take(writer.get_mut())),
            Encoder::Zstd(writer) => writer.flush().map(|()| std::mem::take(writer.get_mut())),
            Encoder::Ended => Ok(Vec::new()),
        };
        self.counted(made)
    }

    pub(super) fn end(&mut self) -> Result<Bytes, BodyError> {
        let made = match std::mem::replace(&mut self.encoder, Encoder::Ended) {
            Encoder::Gzip(mut deflate) => run(&mut deflate, &[], DeflateFlush::Finish),
            Encoder::Brotli(writer) => Ok(writer.into_inner()),
            Encoder::Zstd(writer) => writer.finish(),
            Encoder::Ended => Ok(Vec::new()),
        };
        self.counted(made)
    }

    fn counted(&self, made: io::Result<Vec<u8>>) -> Result<Bytes, BodyError> {
        let made = made.map_err(failed)?;
        self.stats.local().total_compressed_bytes.add(made.len() as u64);
        Ok(made.into())
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(_: io::Error) -> BodyError {
    BodyError::Coding("compressed")
}

fn deflate(settings: Gzip) -> Deflate {
    let strategy = match settings.strategy {
        GzipStrategy::Default => Strategy::Default,
        GzipStrategy::Filtered => Strategy::Filtered,
        GzipStrategy::HuffmanOnly => Strategy::HuffmanOnly,
        GzipStrategy::Rle => Strategy::Rle,
        GzipStrategy::Fixed => Strategy::Fixed,
    };
    Deflate::new_with_config(DeflateConfig {
        level: settings.level.into(),
        method: Method::Deflated,
        // zlib's way to say that the frame is gzip's.
        window_bits: i32::from(settings.window_bits) + 16,
        mem_level: settings.memory.into(),
        strategy,
    })
}

/// Runs the deflater until it has taken all of the input and given out all that it has to.
fn run(deflate: &mut Deflate, mut input: &[u8], flush: DeflateFlush) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let filled = out.len();
        out.resize(filled + ROOM, 0);
        let (read, written) = (deflate.total_in(), deflate.total_out());
        let status = deflate
            .compress(input, out.get_mut(filled..).unwrap_or_default(), flush)
            .map_err(|error| io::Error::other(error.as_str()))?;
        let read = usize::try_from(deflate.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(deflate.total_out() - written).unwrap_or(0);
        input = input.get(read..).unwrap_or_default();
        out.truncate(filled + written);
        // Where there is room left, there was nothing more to give.
        if status == Status::StreamEnd || (written < ROOM && input.is_empty()) {
            return Ok(out);
        }
    }
}

fn of(settings: Brotli) -> BrotliEncoderParams {
    BrotliEncoderParams {
        quality: settings.quality.into(),
        mode: match settings.mode {
            BrotliMode::Generic => BrotliEncoderMode::BROTLI_MODE_GENERIC,
            BrotliMode::Text => BrotliEncoderMode::BROTLI_MODE_TEXT,
            BrotliMode::Font => BrotliEncoderMode::BROTLI_MODE_FONT,
        },
        lgwin: settings.window_bits.into(),
        lgblock: settings.block_bits.into(),
        disable_literal_context_modeling: settings.no_literal_context.into(),
        ..BrotliEncoderParams::default()
    }
}

fn zstandard(settings: &Zstd) -> io::Result<ZstdWriter<'static, Vec<u8>>> {
    use zstd_safe::Strategy;
    let level = settings.level.into();
    let mut writer = ZstdWriter::with_dictionary(Vec::new(), level, &settings.dictionary)?;
    writer.set_parameter(CParameter::ChecksumFlag(settings.checksum))?;
    let strategy = match settings.strategy {
        1 => Some(Strategy::ZSTD_fast),
        2 => Some(Strategy::ZSTD_dfast),
        3 => Some(Strategy::ZSTD_greedy),
        4 => Some(Strategy::ZSTD_lazy),
        5 => Some(Strategy::ZSTD_lazy2),
        6 => Some(Strategy::ZSTD_btlazy2),
        7 => Some(Strategy::ZSTD_btopt),
        8 => Some(Strategy::ZSTD_btultra),
        9 => Some(Strategy::ZSTD_btultra2),
        _ => None,
    };
    if let Some(strategy) = strategy {
        writer.set_parameter(CParameter::Strategy(strategy))?;
    }
    Ok(writer)
}
