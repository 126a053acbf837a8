//! Bodies in pieces, with pauses between them.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::task::Waker;

use http::{HeaderName, HeaderValue};

use super::*;
use crate::config::compressor::{Brotli, BrotliMode, Codec, Gzip, GzipStrategy, Zstd};
use crate::config::decompressor::{Coding, Decompressor, Unpacked};
use crate::stats::{CompressionCells, Sharded};

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

fn codecs() -> [Codec; 3] {
    [
        Codec::Gzip(Gzip { level: 6, memory: 5, strategy: GzipStrategy::Default, window_bits: 12 }),
        Codec::Brotli(Brotli {
            quality: 3,
            mode: BrotliMode::Generic,
            window_bits: 18,
            block_bits: 24,
            no_literal_context: false,
        }),
        Codec::Zstd(Zstd { level: 3, checksum: true, strategy: 0, dictionary: Arc::default() }),
    ]
}

fn pipe(codec: &Codec) -> (Pipe, Arc<Sharded<CompressionCells>>) {
    let stats = Arc::new(Sharded::new(1));
    let mut pipe = Pipe::default();
    let compression = Compression::new(codec, &stats).expect("valid settings");
    pipe.push(Stage::Compress(Box::new(compression)));
    (pipe, stats)
}

/// As much of a body as can be read of what has come.
fn readable(codec: &Codec, bytes: &[u8]) -> String {
    let mut reader: Box<dyn Read> = match codec {
        Codec::Gzip(_) => {
            let mut inflate = zlib_rs::Inflate::new(true, 15 + 16);
            let mut out = vec![0; 1 << 20];
            inflate
                .decompress(bytes, &mut out, zlib_rs::InflateFlush::SyncFlush)
                .expect("well-formed");
            out.truncate(usize::try_from(inflate.total_out()).expect("small"));
            return String::from_utf8(out).expect("text");
        }
        Codec::Brotli(_) => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Codec::Zstd(_) => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a reader")),
    };
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    // An error: there is no end yet.
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(text).expect("text")
}

fn data(text: &str) -> Polled {
    Poll::Ready(Some(Ok(Frame::data(Bytes::from(text.to_owned())))))
}

fn poll(pipe: &mut Pipe, source: &mut VecDeque<Polled>) -> Polled {
    let mut cx = Context::from_waker(Waker::noop());
    pipe.poll_frame(&mut cx, |_| source.pop_front().expect("nobody asks beyond the end"))
}

#[test]
fn what_was_kept_is_sent_as_soon_as_nothing_more_comes_for_now() {
    for codec in codecs() {
        let (mut pipe, _) = pipe(&codec);
        let mut source: VecDeque<Polled> = [
            data("one "),
            data("two "),
            Poll::Pending,
            Poll::Pending,
            data("three"),
            Poll::Ready(None),
        ]
        .into();
        let mut got = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = poll(&mut pipe, &mut source) {
            got.extend_from_slice(&frame.into_data().expect("data"));
        }
        assert_eq!(readable(&codec, &got), "one two ", "{codec:?}");
        assert!(source.len() == 2 && !pipe.is_done(true), "the second pause is passed on");
        while let Poll::Ready(Some(Ok(frame))) = poll(&mut pipe, &mut source) {
            got.extend_from_slice(&frame.into_data().expect("data"));
            if pipe.is_done(true) {
                break;
            }
        }
        assert_eq!(readable(&codec, &got), "one two three", "{codec:?}");
        assert!(pipe.is_done(true));
    }
}

#[test]
fn trailers_come_behind_all_that_was_kept() {
    for codec in codecs() {
        let (mut pipe, stats) = pipe(&codec);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("1"));
        let end = Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        let mut source: VecDeque<Polled> = [data("a body"), end].into();
        let Poll::Ready(Some(Ok(frame))) = poll(&mut pipe, &mut source) else { panic!("data") };
        let bytes = frame.into_data().expect("data");
        assert_eq!(readable(&codec, &bytes), "a body");
        assert!(!pipe.is_done(true));
        let Poll::Ready(Some(Ok(frame))) = poll(&mut pipe, &mut source) else { panic!("trailers") };
        assert_eq!(frame.into_trailers().expect("trailers"), trailers);
        assert!(pipe.is_done(true));
        assert!(matches!(poll(&mut pipe, &mut source), Poll::Ready(None)));
        assert_eq!(stats.local().total_uncompressed_bytes.value(), 6);
        assert_eq!(stats.local().total_compressed_bytes.value(), bytes.len() as u64);
    }
}

#[test]
fn a_body_that_is_there_as_a_whole_is_compressed_as_a_whole() {
    for codec in codecs() {
        let (pipe, _) = pipe(&codec);
        let text = "many words, many words, ".repeat(10_000);
        let (bytes, _) = pipe.whole(Bytes::from(text.clone()), None).expect("compressed");
        assert!(bytes.len() < text.len() / 20, "{codec:?}: {} bytes", bytes.len());
        assert_eq!(readable(&codec, &bytes), text);
    }
}

#[test]
fn an_error_of_the_source_ends_the_body_where_it_is() {
    let (mut pipe, _) = pipe(&codecs()[0]);
    let mut source: VecDeque<Polled> =
        [data("a"), Poll::Ready(Some(Err(BodyError::Truncated)))].into();
    assert!(matches!(poll(&mut pipe, &mut source), Poll::Ready(Some(Err(BodyError::Truncated)))));
    assert!(!pipe.is_done(true));
}

fn unpacking(coding: Coding) -> Pipe {
    let direction = || Unpacked { enabled: true.into(), ignore_no_transform: false };
    let config = Arc::new(Decompressor {
        library: "lib".into(),
        coding,
        request: direction(),
        response: direction(),
        advertise: true,
        compressed_bytes: HeaderName::from_static("x-compressed"),
        uncompressed_bytes: HeaderName::from_static("x-uncompressed"),
    });
    let stats = Arc::new(Sharded::new(1));
    let mut pipe = Pipe::default();
    let decompression = Decompression::new(&config, &stats).expect("valid settings");
    pipe.push(Stage::Decompress(Box::new(decompression)));
    pipe
}

fn codings() -> [Coding; 3] {
    [Coding::Gzip { window_bits: 15, max_ratio: 100 }, Coding::Brotli, Coding::Zstd(Arc::default())]
}

#[test]
fn what_was_compressed_comes_out_as_it_was_and_trailers_say_its_length() {
    for (codec, coding) in codecs().iter().zip(codings()) {
        let text: String = (0..5000).map(|number| format!("{number} ")).collect();
        let (compressed, _) = pipe(codec).0.whole(Bytes::from(text.clone()), None).expect("packed");
        let (plain, trailers) = unpacking(coding).whole(compressed.clone(), None).expect("plain");
        assert_eq!(plain, text.as_bytes(), "{codec:?}");
        let trailers = trailers.expect("trailers");
        assert_eq!(trailers["x-compressed"], HeaderValue::from(compressed.len()));
        assert_eq!(trailers["x-uncompressed"], HeaderValue::from(text.len()));
    }
}

#[test]
fn a_body_that_becomes_much_larger_than_it_was_is_broken_off() {
    for (codec, coding) in codecs().iter().zip(codings()) {
        let zeros = Bytes::from(vec![0; 50 << 20]);
        let (compressed, _) = pipe(codec).0.whole(zeros, None).expect("packed");
        let made = unpacking(coding).whole(compressed, None);
        assert!(matches!(made, Err(BodyError::Coding(_))), "{codec:?}");
    }
}
