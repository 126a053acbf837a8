//! A body that is decompressed on its way.
//!
//! What cannot be decompressed, or would become much more than is to be expected, ends the body where it is: whoever waits
//! for it must not take a part for the whole.

use std::io::{self, Write};
use std::sync::Arc;

use brotli::DecompressorWriter;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use zlib_rs::{Inflate, InflateFlush, Status};
use zstd::stream::write::Decoder as ZstdWriter;

use crate::config::decompressor::{Coding, Decompressor};
use crate::http::body::BodyError;
use crate::stats::{DecompressionCells, Sharded};

/// Room that the library is given at a time, and most bytes that it is given.
const ROOM: usize = 4096;

/// Most bytes that may become of one.
const MAX_RATIO: u64 = 100;

/// A decompressor at work.
pub(crate) struct Decompression {
    decoder: Decoder,
    config: Arc<Decompressor>,
    stats: Arc<Sharded<DecompressionCells>>,
    taken: u64,
    given: u64,
}

enum Decoder {
    Gzip(Box<Inflate>),
    // Large, and as rare as the others.
    Brotli(Box<DecompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdWriter<'static, Vec<u8>>>),
    /// All is said.
    Ended,
}

impl Decompression {
    /// Of a new body.
    pub(crate) fn new(
        config: &Arc<Decompressor>,
        stats: &Arc<Sharded<DecompressionCells>>,
    ) -> Result<Self, BodyError> {
        let decoder = match &config.coding {
            // zlib's way to say that the frame is gzip's.
            Coding::Gzip { window_bits, .. } => {
                Decoder::Gzip(Box::new(Inflate::new(true, window_bits + 16)))
            }
            Coding::Brotli => Decoder::Brotli(Box::new(DecompressorWriter::new(Vec::new(), ROOM))),
            Coding::Zstd(dictionary) => {
                let writer = ZstdWriter::with_dictionary(Vec::new(), dictionary).map_err(failed)?;
                Decoder::Zstd(Box::new(writer))
            }
        };
        let (config, stats) = (Arc::clone(config), Arc::clone(stats));
        Ok(Self { decoder, config, stats, taken: 0, given: 0 })
    }

    pub(super) fn data(&mut self, piece: &[u8]) -> Result<Bytes, BodyError> {
        let mut all = Vec::new();
        for piece in piece.chunks(ROOM) {
            self.taken += piece.len() as u64;
            let most = self.most();
            let made = self.decoder.data(piece, most.saturating_sub(self.given)).map_err(failed)?;
            self.given += made.len() as u64;
            if self.given > most {
                return Err(BodyError::Coding("decompressed: it becomes too large"));
            }
            all.extend_from_slice(&made);
        }
        let stats = self.stats.local();
        stats.total_compressed_bytes.add(piece.len() as u64);
        stats.total_uncompressed_bytes.add(all.len() as u64);
        Ok(all.into())
    }

    /// Most bytes that may have become of what was taken.
    fn most(&self) -> u64 {
        let ratio = match self.config.coding {
            Coding::Gzip { max_ratio, .. } => max_ratio.into(),
            Coding::Brotli | Coding::Zstd(_) => MAX_RATIO,
        };
        self.taken.saturating_mul(ratio)
    }

    /// Says in the trailers what became of what.
    pub(super) fn end(&mut self, trailers: &mut HeaderMap) -> Result<Bytes, BodyError> {
        let made = match std::mem::replace(&mut self.decoder, Decoder::Ended) {
            Decoder::Brotli(writer) => writer.into_inner().unwrap_or_else(|rest| rest),
            Decoder::Zstd(mut writer) => {
                writer.flush().map_err(failed)?;
                writer.into_inner()
            }
            Decoder::Gzip(_) | Decoder::Ended => Vec::new(),
        };
        self.given += made.len() as u64;
        self.stats.local().total_uncompressed_bytes.add(made.len() as u64);
        trailers.append(self.config.compressed_bytes.clone(), HeaderValue::from(self.taken));
        trailers.append(self.config.uncompressed_bytes.clone(), HeaderValue::from(self.given));
        Ok(made.into())
    }
}

impl Decoder {
    /// What becomes of a piece; `most`: of more nothing is to be made.
    fn data(&mut self, piece: &[u8], most: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(inflate) => run(inflate, piece, most),
            Self::Brotli(writer) => {
                writer.write_all(piece).map(|()| std::mem::take(writer.get_mut()))
            }
            Self::Zstd(writer) => {
                writer.write_all(piece)?;
                writer.flush()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Ended => Ok(Vec::new()),
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(_: io::Error) -> BodyError {
    BodyError::Coding("decompressed")
}

/// Runs the inflater until it has taken all of the input. What comes behind the end is passed over.
fn run(inflate: &mut Inflate, mut input: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let filled = out.len();
        out.resize(filled + ROOM, 0);
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(input, out.get_mut(filled..).unwrap_or_default(), InflateFlush::NoFlush)
            .map_err(|error| io::Error::other(error.as_str()))?;
        let read = usize::try_from(inflate.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(inflate.total_out() - written).unwrap_or(0);
        input = input.get(read..).unwrap_or_default();
        out.truncate(filled + written);
        let stuck = read == 0 && written == 0;
        let all = written < ROOM && input.is_empty();
        if status == Status::StreamEnd || all || stuck || out.len() as u64 > most {
            return Ok(out);
        }
    }
}
