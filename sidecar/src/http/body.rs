//! Bodies: an enum each way, never a box, and what is known of them while they pass.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::headers;
use super::mirror::Copies;
use super::pipe::{Pipe, Stage};
use super::replay::{Kept, Replay};
use super::tunnel::BytesBody;
use super::upstream_body::UpstreamBody;

/// Why a body ends early. Whoever sends it on must not end it as if it were whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client's body broke off, or its framing is wrong.
    #[error("the client's body ended early: {0}")]
    Downstream(#[source] hyper::Error),
    /// The endpoint's body broke off, or its framing is wrong.
    #[error("the endpoint's body ended early: {0}")]
    Upstream(#[source] hyper::Error),
    /// The endpoint's connection failed.
    #[error("the endpoint's connection failed: {0}")]
    Endpoint(#[source] std::io::Error),
    /// Fewer bytes came than were announced.
    #[error("the body is shorter than its content-length")]
    Truncated,
    /// A filter could not make of it what it was to make.
    #[error("the body could not be {0}")]
    Coding(&'static str),
    /// A timeout ended it.
    #[error("{0}")]
    TimedOut(&'static str),
    /// The response is over, or another attempt has taken the request's place.
    #[error("nobody waits for the body any more")]
    Abandoned,
}

/// How far the body of a request has come. Shared between whoever sends it upstream and whoever waits for the response.
pub(crate) struct Progress {
    /// Bytes of data so far.
    pub(crate) received: Cell<u64>,
    /// When its end was read.
    pub(crate) complete: Cell<Option<Instant>>,
    /// It broke off, or its framing is wrong.
    pub(crate) failed: Cell<bool>,
    /// Nobody waits for it any more.
    pub(crate) abandoned: Cell<bool>,
    /// When something of it last came.
    pub(crate) last: Cell<Instant>,
    waiting: RefCell<Option<Waker>>,
    /// Copies of the request that wait for it.
    copies: RefCell<Option<Box<Copies>>>,
    /// What filters make of it on its way.
    pipe: RefCell<Option<Box<Pipe>>>,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            received: Cell::new(0),
            complete: Cell::new(None),
            failed: Cell::new(false),
            abandoned: Cell::new(false),
            last: Cell::new(now),
            waiting: RefCell::new(None),
            copies: RefCell::new(None),
            pipe: RefCell::new(None),
        })
    }

    /// Of a body that was read before, so many bytes long.
    pub(crate) fn done(now: Instant, bytes: u64) -> Rc<Self> {
        let progress = Self::new(now);
        progress.received.set(bytes);
        progress.complete.set(Some(now));
        progress
    }

    /// Keeps the body for these copies from here on.
    pub(crate) fn copy_to(&self, copies: Box<Copies>) {
        *self.copies.borrow_mut() = Some(copies);
    }

    /// One more thing that is made of it on its way, behind those that there are.
    pub(crate) fn through(&self, stage: Stage) {
        self.pipe.borrow_mut().get_or_insert_default().push(stage);
    }

    /// The task to wake when the body ends, one way or the other.
    pub(crate) fn wake_at_end(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Notes what came of the body. `ended` says whether that was the last of it.
    fn note(&self, polled: &mut Option<Result<Frame<Bytes>, BodyError>>, ended: bool) {
        let now = Instant::now();
        self.last.set(now);
        match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.received.set(self.received.get() + data.len() as u64);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers);
                }
            }
            Some(Err(_)) => {
                self.failed.set(true);
                self.wake();
            }
            None => {}
        }
        let trailers = matches!(polled, Some(Ok(frame)) if frame.is_trailers());
        if (ended || trailers || polled.is_none())
            && self.complete.get().is_none()
            && !self.failed.get()
        {
            self.complete.set(Some(now));
            self.wake();
        }
    }

    /// Keeps what goes upstream for the copies of the request. `ended` says whether that was the last of it.
    fn copy(&self, polled: Option<&Result<Frame<Bytes>, BodyError>>, ended: bool) {
        let mut copies = self.copies.borrow_mut();
        if copies.is_none() {
            return;
        }
        let frame = match polled {
            Some(Err(_)) => return,
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        if let Some(data) = frame.and_then(Frame::data_ref)
            && copies.as_mut().is_some_and(|copies| !copies.keep(data))
        {
            *copies = None;
        }
        let trailers = frame.and_then(Frame::trailers_ref);
        if (ended || trailers.is_some() || frame.is_none())
            && let Some(copies) = copies.take()
        {
            copies.send(trailers);
        }
    }
}

/// A client's body as it comes, with what filters make of it on its way, which its progress has.
pub(crate) struct Source(Incoming);

impl Source {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self(incoming)
    }

    /// The next frame, noted in the progress of the body.
    pub(crate) fn poll_frame(
        &mut self,
        progress: &Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let incoming = &mut self.0;
        let polled = match &mut *progress.pipe.borrow_mut() {
            None => std::task::ready!(poll_incoming(incoming, progress, cx)),
            Some(pipe) => {
                std::task::ready!(pipe.poll_frame(cx, |cx| poll_incoming(incoming, progress, cx)))
            }
        };
        progress.copy(polled.as_ref(), self.is_end_stream(progress));
        Poll::Ready(polled)
    }

    pub(crate) fn is_end_stream(&self, progress: &Progress) -> bool {
        let pipe = progress.pipe.borrow();
        let ended = self.0.is_end_stream();
        pipe.as_ref().map_or(ended, |pipe| pipe.is_done(ended))
    }

    pub(crate) fn size_hint(&self, progress: &Progress) -> SizeHint {
        let pipe = progress.pipe.borrow();
        let changes = pipe.as_ref().is_some_and(|pipe| pipe.changes());
        if changes { SizeHint::default() } else { self.0.size_hint() }
    }
}

/// The next frame of a client's body, noted in its progress.
fn poll_incoming(
    incoming: &mut Incoming,
    progress: &Progress,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let polled = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
    let mut polled = polled.map(|frame| frame.map_err(BodyError::Downstream));
    progress.note(&mut polled, incoming.is_end_stream());
    Poll::Ready(polled)
}

/// The body of a request as filters leave it.
pub(crate) enum ClientBody {
    /// There is none.
    Empty,
    /// As it comes.
    Incoming(Source),
    /// As it comes, behind what was read of it already.
    Kept(Rc<Kept>),
    /// All of it.
    Whole(Box<Whole>),
}

impl ClientBody {
    /// One more thing that is made of it on its way.
    pub(crate) fn through(
        self,
        stage: Stage,
        progress: Option<&Progress>,
    ) -> Result<Self, BodyError> {
        Ok(match self {
            Self::Empty => Self::Empty,
            Self::Incoming(source) => {
                if let Some(progress) = progress {
                    progress.through(stage);
                }
                Self::Incoming(source)
            }
            Self::Kept(kept) => {
                kept.through(stage)?;
                Self::Kept(kept)
            }
            Self::Whole(mut whole) => {
                let changes = stage.changes();
                let mut pipe = Pipe::default();
                pipe.push(stage);
                (whole.data, whole.trailers) = pipe.whole(whole.data, whole.trailers)?;
                whole.announced &= !changes;
                Self::Whole(whole)
            }
        })
    }
}

/// A body that was there before: what is left to be sent of it, data, then trailers.
#[derive(Clone)]
pub(crate) struct Whole {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// Its length is said before it comes.
    pub(crate) announced: bool,
}

/// What is sent upstream.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// The client's body as it comes.
    Streaming(Source, Rc<Progress>),
    /// The client's body, kept for another attempt.
    Replay(Replay),
    /// A body that was there before. Boxed: it is the rare case, and large.
    Whole(Box<Whole>),
    /// What we say ourselves, as it comes. Boxed: it is the rare case.
    Fed(Box<mpsc::Receiver<Fed>>),
}

/// A piece of a body that we make ourselves.
pub(crate) struct Fed {
    pub(crate) data: Bytes,
    /// Told when the piece is on its way.
    pub(crate) taken: oneshot::Sender<()>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(incoming, progress) => {
                if progress.abandoned.get() {
                    return Poll::Ready(Some(Err(BodyError::Abandoned)));
                }
                incoming.poll_frame(progress, cx)
            }
            Self::Replay(replay) => replay.poll_frame(cx),
            Self::Whole(whole) if !whole.data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut whole.data)))))
            }
            Self::Whole(whole) => {
                Poll::Ready(whole.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Self::Fed(pieces) => {
                let piece = std::task::ready!(pieces.poll_recv(cx));
                Poll::Ready(piece.map(|Fed { data, taken }| {
                    // Somebody who does not wait any more does not need to know.
                    let _ = taken.send(());
                    Ok(Frame::data(data))
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(incoming, progress) => incoming.is_end_stream(progress),
            Self::Replay(replay) => replay.is_end_stream(),
            Self::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
            Self::Fed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(incoming, progress) => incoming.size_hint(progress),
            Self::Replay(replay) => replay.size_hint(),
            Self::Whole(whole) if whole.announced => SizeHint::with_exact(whole.data.len() as u64),
            Self::Whole(_) => SizeHint::default(),
            Self::Fed(_) => SizeHint::default(),
        }
    }
}

/// What is sent to the client. Dropping it is the end of the exchange, whole or not.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// `None`: a tunnel has it.
    exchange: Option<Exchange>,
    /// What filters make of it on its way.
    pipe: Option<Box<Pipe>>,
}

enum Kind {
    /// Nothing more comes.
    Done,
    /// One piece of ours.
    Whole(Bytes),
    /// The endpoint's body as it comes.
    Upstream(UpstreamBody),
    /// The endpoint's bytes as they come. Boxed: it is the rare case.
    Bytes(Box<BytesBody>),
    /// The endpoint's body, which ended too early.
    Broken,
}

impl ResponseBody {
    /// Nothing.
    pub(crate) fn empty(exchange: Exchange) -> Self {
        Self { kind: Kind::Done, exchange: Some(exchange), pipe: None }
    }

    /// Nothing, and not the end either: the connection, or the stream, becomes a tunnel.
    pub(crate) fn tunnel() -> Self {
        Self { kind: Kind::Done, exchange: None, pipe: None }
    }

    /// One piece.
    pub(crate) fn whole(bytes: Bytes, exchange: Exchange) -> Self {
        let kind = if bytes.is_empty() { Kind::Done } else { Kind::Whole(bytes) };
        Self { kind, exchange: Some(exchange), pipe: None }
    }

    /// What filters make of it on its way. Nothing is made of nothing.
    #[must_use]
    pub(crate) fn through(mut self, pipe: Option<Box<Pipe>>) -> Self {
        self.pipe = pipe.filter(|_| !matches!(self.kind, Kind::Done));
        self
    }

    /// All of it was taken.
    fn is_whole(&self) -> bool {
        matches!(self.kind, Kind::Done) && self.pipe.as_ref().is_none_or(|pipe| pipe.is_done(true))
    }

    /// Notes the head of the response, as it goes out.
    pub(crate) fn note_head(&mut self, headers: &mut HeaderMap) {
        if let Some(exchange) = &mut self.exchange {
            exchange.capture_response(headers);
        }
    }

    /// What an endpoint sends over a connection of its own.
    pub(crate) fn bytes(body: Box<BytesBody>, exchange: Exchange) -> Self {
        Self { kind: Kind::Bytes(body), exchange: Some(exchange), pipe: None }
    }

    /// What an endpoint sends.
    pub(crate) fn upstream(mut body: UpstreamBody, mut exchange: Exchange) -> Self {
        let kind = if body.is_end_stream() {
            body.finish(&mut exchange, None);
            Kind::Done
        } else {
            Kind::Upstream(body)
        };
        Self { kind, exchange: Some(exchange), pipe: None }
    }
}

impl Kind {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Done => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                exchange.sent += bytes.len() as u64;
                *self = Self::Done;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upstream(upstream) => {
                let polled = std::task::ready!(upstream.poll_frame(cx, exchange));
                if upstream.is_done() {
                    *self = match &polled {
                        Some(Err(_)) => Self::Broken,
                        _ => Self::Done,
                    };
                }
                Poll::Ready(polled)
            }
            Self::Bytes(bytes) => {
                let polled = std::task::ready!(bytes.poll_frame(cx, exchange));
                match &polled {
                    None => *self = Self::Done,
                    Some(Err(_)) => *self = Self::Broken,
                    Some(Ok(_)) => {}
                }
                Poll::Ready(polled)
            }
            Self::Broken => Poll::Ready(Some(Err(BodyError::Abandoned))),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        let Some(pipe) = &mut this.pipe else { return this.kind.poll_frame(cx, exchange) };
        // What the client gets is what counts.
        let sent = exchange.sent;
        let polled = pipe.poll_frame(cx, |cx| this.kind.poll_frame(cx, exchange));
        exchange.sent = sent;
        if let Poll::Ready(polled) = &polled {
            match polled {
                Some(Ok(frame)) => {
                    exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Some(Err(_)) => this.kind = Kind::Broken,
                None => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            _ if self.pipe.as_ref().is_some_and(|pipe| pipe.changes()) => SizeHint::default(),
            Kind::Done => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Upstream(upstream) => upstream.size_hint(),
            Kind::Bytes(_) | Kind::Broken => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let whole = self.is_whole();
        if let Some(exchange) = &mut self.exchange {
            exchange.end(whole);
        }
    }
}
