//! Copying bytes between two connections, both ways at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A buffer begins with this and grows while reads fill it.
const FIRST_BUFFER: usize = 4 * 1024;
/// Growth ends here: larger reads do not make a copy faster.
const LAST_BUFFER: usize = 64 * 1024;

/// How a copy ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides have ended their streams, and everything was passed on.
    BothDone,
    /// Nothing moved for too long.
    Idle,
    /// Reading from or writing to the first side failed.
    FirstFailed(io::Error),
    /// Reading from or writing to the second side failed.
    SecondFailed(io::Error),
}

/// Copies from each side to the other until both have ended. When one ends its stream, the end is passed on, and the other
/// direction goes on (half-close). `moved` is told how many bytes went to the second and to the first side.
pub(crate) async fn both_ways<A, B>(
    first: &mut A,
    second: &mut B,
    idle: Option<Duration>,
    moved: &mut dyn FnMut(u64, u64),
) -> Ended
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Direction::default();
    let mut back = Direction::default();
    let mut last = Instant::now();
    // Armed once, and again when it fires too early: bytes move without touching it.
    let mut timer: Option<Pin<Box<Sleep>>> = idle.map(|idle| Box::pin(sleep_until(last + idle)));
    poll_fn(|cx| {
        let (sent, returned) = (there.copied, back.copied);
        let forth = there.poll(cx, first, second);
        let answer = back.poll(cx, second, first);
        let (sent, returned) = (there.copied - sent, back.copied - returned);
        if sent + returned > 0 {
            last = Instant::now();
            moved(sent, returned);
        }
        for (polled, from_first) in [(&forth, true), (&answer, false)] {
            if let Poll::Ready(Err(failure)) = polled {
                let (reading, error) = failure;
                let error = io::Error::new(error.kind(), error.to_string());
                return Poll::Ready(if *reading == from_first {
                    Ended::FirstFailed(error)
                } else {
                    Ended::SecondFailed(error)
                });
            }
        }
        if forth.is_ready() && answer.is_ready() {
            return Poll::Ready(Ended::BothDone);
        }
        if let (Some(timer), Some(idle)) = (&mut timer, idle) {
            while timer.as_mut().poll(cx).is_ready() {
                let deadline = last + idle;
                if timer.deadline() >= deadline {
                    return Poll::Ready(Ended::Idle);
                }
                timer.as_mut().reset(deadline);
            }
        }
        Poll::Pending
    })
    .await
}

/// One direction of a copy.
#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read_done: bool,
    shut_down: bool,
    needs_flush: bool,
    copied: u64,
}

impl Direction {
    /// Ready when the end was passed on. An error says whether it came from reading.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), (bool, io::Error)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.shut_down {
                return Poll::Ready(Ok(()));
            }
            if self.start == self.end && !self.read_done {
                match self.poll_fill(cx, from) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err((true, error))),
                    Poll::Pending => {
                        if self.needs_flush {
                            ready!(Pin::new(&mut *to).poll_flush(cx))
                                .map_err(|error| (false, error))?;
                            self.needs_flush = false;
                        }
                        // An idle direction holds no memory.
                        self.buffer = Vec::new();
                        (self.start, self.end) = (0, 0);
                        return Poll::Pending;
                    }
                }
            }
            while self.start < self.end {
                let bytes = &self.buffer[self.start..self.end];
                let written = ready!(Pin::new(&mut *to).poll_write(cx, bytes))
                    .map_err(|error| (false, error))?;
                if written == 0 {
                    return Poll::Ready(Err((false, io::ErrorKind::WriteZero.into())));
                }
                self.start += written;
                self.copied += written as u64;
                self.needs_flush = true;
            }
            if self.read_done {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|error| (false, error))?;
                self.shut_down = true;
            }
        }
    }

    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<io::Result<()>> {
        let was_full = self.end == self.buffer.len();
        if self.buffer.is_empty() {
            self.buffer = vec![0; FIRST_BUFFER];
        } else if was_full && self.buffer.len() < LAST_BUFFER {
            self.buffer = vec![0; (self.buffer.len() * 4).min(LAST_BUFFER)];
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        (self.start, self.end) = (0, read);
        self.read_done = read == 0;
        Poll::Ready(Ok(()))
    }
}
