//! Request bodies that can be sent again: what has come so far is kept, up to a limit, while it is sent.
//!
//! The first attempt sends the body as it comes from the client and keeps each piece. Another attempt begins with the
//! pieces that were kept and goes on with what comes after. When more has come than may be kept, everything kept is let
//! go, and there is no other attempt.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::body::{BodyError, Progress, Source, Whole};
use super::failures::broken_request;
use super::filters::Passage;
use super::filters::buffer::Arrival;
use super::pipe::Stage;
use super::router::Refusal;

/// What was read of a body.
pub(crate) struct Filled {
    pub(crate) data: Bytes,
    /// That is all of it.
    pub(crate) ended: bool,
}

/// A client's body with what was kept of it.
pub(crate) struct Kept {
    state: RefCell<State>,
    progress: Rc<Progress>,
    length: Cell<Option<u64>>,
}

struct State {
    incoming: Source,
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: u64,
    limit: u64,
    /// Everything that came is in `pieces`.
    whole: bool,
    /// The attempt that may read on; earlier ones may not.
    attempt: u32,
    ended: bool,
}

impl Kept {
    /// Keeps up to `limit` bytes of a body.
    pub(crate) fn new(incoming: Source, progress: Rc<Progress>, limit: u64) -> Rc<Self> {
        let length = Cell::new(incoming.size_hint(&progress).exact());
        let state = State {
            incoming,
            pieces: Vec::new(),
            trailers: None,
            bytes: 0,
            limit,
            whole: true,
            attempt: 0,
            ended: false,
        };
        Rc::new(Self { state: RefCell::new(state), progress, length })
    }

    /// Reads the body up to so many bytes, or to its end, within the limits of requests that arrive slowly. What was read
    /// is kept, and is sent with the rest.
    pub(crate) async fn fill(&self, most: u64, passage: &Passage<'_>) -> Result<Filled, Refusal> {
        let arrival = Arrival::of(passage);
        loop {
            {
                let state = self.state.borrow();
                if state.ended || state.bytes >= most {
                    return Ok(Filled { data: state.pieces.concat().into(), ended: state.ended });
                }
            }
            let next = poll_fn(|cx| {
                let mut state = self.state.borrow_mut();
                state.incoming.poll_frame(&self.progress, cx)
            });
            let next = arrival.within(next, passage).await?;
            let mut state = self.state.borrow_mut();
            match next {
                None => state.ended = true,
                Some(Err(_)) => return Err(broken_request()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        state.bytes += piece.len() as u64;
                        state.pieces.push(piece);
                        state.ended = state.incoming.is_end_stream(&self.progress);
                    }
                    Err(frame) => {
                        state.trailers = frame.into_trailers().ok();
                        state.ended = true;
                    }
                },
            }
        }
    }

    /// One more thing that is made of it on its way: of what was read already as of the rest.
    pub(crate) fn through(&self, mut stage: Stage) -> Result<(), BodyError> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let changes = stage.changes();
        let mut pieces = Vec::new();
        for piece in std::mem::take(&mut state.pieces) {
            pieces.push(stage.data(piece)?);
        }
        if state.ended {
            pieces.push(stage.end(&mut state.trailers)?);
        } else {
            self.progress.through(stage);
        }
        pieces.retain(|piece| !piece.is_empty());
        state.bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        state.pieces = pieces;
        if changes {
            self.length.set(None);
        }
        Ok(())
    }

    /// What was read so far.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        self.state.borrow().pieces.clone()
    }

    /// The trailers of a body that was read to its end.
    pub(crate) fn take_trailers(&self) -> Option<HeaderMap> {
        self.state.borrow_mut().trailers.take()
    }

    /// Whether another attempt can be made.
    pub(crate) fn can_replay(&self) -> bool {
        self.state.borrow().whole && !self.progress.failed.get()
    }

    /// The body for the next attempt. The one before it ends with an error where it is.
    pub(crate) fn attempt(self: &Rc<Self>) -> Replay {
        let mut state = self.state.borrow_mut();
        state.attempt += 1;
        Replay { kept: Rc::clone(self), attempt: state.attempt, next: 0, trailers_sent: false }
    }

    /// All of the body, if it is here and was kept.
    pub(crate) fn whole(&self) -> Option<Box<Whole>> {
        let state = self.state.borrow();
        let complete = self.progress.complete.get().is_some();
        (state.whole && complete && !self.progress.failed.get()).then(|| {
            let data = state.pieces.concat().into();
            let trailers = state.trailers.clone();
            Box::new(Whole { data, trailers, announced: self.length.get().is_some() })
        })
    }

    /// No other attempt will be made: nothing has to be kept any more.
    pub(crate) fn commit(&self) {
        let mut state = self.state.borrow_mut();
        state.limit = 0;
        if state.bytes > 0 {
            state.whole = false;
        }
    }
}

/// A body for one attempt.
pub(crate) struct Replay {
    kept: Rc<Kept>,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
}

impl Replay {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.kept.state.borrow_mut();
        let state = &mut *state;
        // Once all of it is here, several attempts may send it at a time.
        let taken_over = state.attempt != self.attempt && !state.ended;
        if taken_over || self.kept.progress.abandoned.get() {
            return Poll::Ready(Some(Err(BodyError::Abandoned)));
        }
        if let Some(piece) = state.pieces.get(self.next) {
            let piece = piece.clone();
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.ended {
            let trailers = state.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = std::task::ready!(state.incoming.poll_frame(&self.kept.progress, cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    state.bytes += data.len() as u64;
                    if state.whole && state.bytes <= state.limit {
                        state.pieces.push(data.clone());
                        self.next += 1;
                    } else {
                        state.whole = false;
                        // Only this attempt is left, and it has sent them all.
                        state.pieces = Vec::new();
                        self.next = 0;
                    }
                    state.ended = state.incoming.is_end_stream(&self.kept.progress);
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    state.ended = true;
                    self.trailers_sent = true;
                }
            }
            Some(Err(_)) => {}
            None => state.ended = true,
        }
        Poll::Ready(polled)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.kept.state.borrow();
        let done =
            self.next >= state.pieces.len() && (state.trailers.is_none() || self.trailers_sent);
        done && (state.ended || state.incoming.is_end_stream(&self.kept.progress))
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        // hyper asks before the first piece is sent, so the whole length is what is left.
        self.kept.length.get().map(SizeHint::with_exact).unwrap_or_default()
    }
}
