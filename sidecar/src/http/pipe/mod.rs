//! What filters make of a body on its way: each frame goes through the stages of a [`Pipe`], in their order.
//!
//! A stage may keep what it is given. As long as more comes at once nothing is asked back, so that what is compressed is
//! compressed well; as soon as nothing more comes for now, everything that was kept is sent.

mod compress;
mod count;
mod decompress;
mod throttle;

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::body::BodyError;

pub(crate) use compress::Compression;
pub(crate) use count::{Counting, Sent};
pub(crate) use decompress::Decompression;
use throttle::Throttle;

/// Fewer bytes than these are not sent alone as long as more may come at once.
const LEAST: usize = 4096;

/// One thing that is made of a body.
pub(crate) enum Stage {
    Compress(Box<Compression>),
    Decompress(Box<Decompression>),
    /// Only looks at it.
    Count(Box<Counting>),
}

impl Stage {
    /// Whether something else becomes of a body.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Self::Compress(_) | Self::Decompress(_) => true,
            Self::Count(_) => false,
        }
    }

    fn look_at(&mut self, frame: &Frame<Bytes>) {
        let Self::Count(counting) = self else { return };
        if let Some(piece) = frame.data_ref() {
            counting.data(piece);
        } else if let Some(trailers) = frame.trailers_ref() {
            counting.trailers(trailers);
        }
    }

    /// What becomes of a piece. Nothing: it is kept.
    pub(crate) fn data(&mut self, piece: Bytes) -> Result<Bytes, BodyError> {
        match self {
            Self::Compress(compression) => compression.data(&piece),
            Self::Decompress(decompression) => decompression.data(&piece),
            Self::Count(counting) => {
                counting.data(&piece);
                Ok(piece)
            }
        }
    }

    /// What was kept.
    fn flush(&mut self) -> Result<Bytes, BodyError> {
        match self {
            Self::Compress(compression) => compression.flush(),
            // What is decompressed is given out at once.
            Self::Decompress(_) | Self::Count(_) => Ok(Bytes::new()),
        }
    }

    /// What was kept, and what ends the body.
    pub(crate) fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Result<Bytes, BodyError> {
        match self {
            Self::Compress(compression) => compression.end(),
            Self::Decompress(decompression) => decompression.end(trailers.get_or_insert_default()),
            Self::Count(counting) => {
                trailers.iter().for_each(|trailers| counting.trailers(trailers));
                Ok(Bytes::new())
            }
        }
    }
}

/// Stages that a body goes through.
#[derive(Default)]
pub(crate) struct Pipe {
    stages: Vec<Stage>,
    trailers: Option<HeaderMap>,
    /// The body went in to its end.
    ended: bool,
    /// Everything came out.
    done: bool,
    /// Something went in after what came out last.
    keeps: bool,
    /// What came out, and was too little to be sent alone.
    held: Bytes,
    /// What comes out is sent slowly.
    throttle: Option<Box<Throttle>>,
}

impl Pipe {
    /// Adds a stage behind those that there are.
    pub(crate) fn push(&mut self, stage: Stage) {
        self.stages.push(stage);
    }

    /// Lets so many KiB come out in a second.
    pub(crate) fn throttle(&mut self, kib_per_second: u64) {
        self.throttle = Some(Box::new(Throttle::new(kib_per_second)));
    }

    /// Whether something else comes out than went in.
    pub(crate) fn changes(&self) -> bool {
        self.stages.iter().any(Stage::changes)
    }

    /// Nothing more comes out. `ended`: nothing more goes in.
    pub(crate) fn is_done(&self, ended: bool) -> bool {
        let passed = if self.changes() { self.done } else { ended };
        passed && self.throttle.as_ref().is_none_or(|throttle| throttle.is_empty())
    }

    /// The next frame, as the stages make it of what `source` gives.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut throttle) = self.throttle.take() else {
            return self.poll_stages(cx, &mut source);
        };
        let polled = throttle.poll_frame(cx, |cx| self.poll_stages(cx, &mut source));
        self.throttle = Some(throttle);
        polled
    }

    fn poll_stages(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.changes() {
            let polled = std::task::ready!(source(cx));
            if let Some(Ok(frame)) = &polled {
                self.stages.iter_mut().for_each(|stage| stage.look_at(frame));
            }
            return Poll::Ready(polled);
        }
        loop {
            if self.ended {
                let trailers = self.trailers.take();
                self.done = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let polled = source(cx);
            let made = match polled {
                Poll::Pending if !self.keeps => return Poll::Pending,
                Poll::Pending => {
                    self.keeps = false;
                    self.flush()
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.end(),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.keeps = true;
                        self.data(data)
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.end()
                    }
                },
            };
            match made {
                Err(error) => {
                    self.ended = true;
                    self.trailers = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Ok(data) => {
                    let data = joined(std::mem::take(&mut self.held), data);
                    if self.keeps && !self.ended && data.len() < LEAST {
                        // More may come at once.
                        self.held = data;
                    } else if !data.is_empty() {
                        self.done = self.ended && self.trailers.is_none();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    } else if !self.ended && !self.keeps {
                        // The source has promised to wake us.
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// All of a body at once.
    pub(crate) fn whole(
        mut self,
        data: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        self.trailers = trailers;
        let first = self.data(data)?;
        let rest = self.end()?;
        Ok((joined(first, rest), self.trailers))
    }

    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        let mut carried = data;
        for stage in &mut self.stages {
            if carried.is_empty() {
                break;
            }
            carried = stage.data(carried)?;
        }
        Ok(carried)
    }

    fn flush(&mut self) -> Result<Bytes, BodyError> {
        self.drain(Stage::flush)
    }

    fn end(&mut self) -> Result<Bytes, BodyError> {
        self.ended = true;
        let mut trailers = self.trailers.take();
        let data = self.drain(|stage| stage.end(&mut trailers))?;
        self.trailers = trailers;
        Ok(data)
    }

    /// Takes out of each stage what it keeps, through those behind it.
    fn drain(
        &mut self,
        mut of: impl FnMut(&mut Stage) -> Result<Bytes, BodyError>,
    ) -> Result<Bytes, BodyError> {
        let mut carried = Bytes::new();
        for stage in &mut self.stages {
            let first = if carried.is_empty() { carried } else { stage.data(carried)? };
            carried = joined(first, of(stage)?);
        }
        Ok(carried)
    }
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    if second.is_empty() {
        return first;
    }
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(&first);
    both.extend_from_slice(&second);
    both.freeze()
}

#[cfg(test)]
mod tests;
