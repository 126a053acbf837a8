//! A body that is sent slowly.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use crate::http::body::BodyError;

/// Shares of a second, as in Envoy.
const SLICES: u64 = 16;

/// Lets so many bytes pass in a second, in equal shares. What was not used in the last second may be used at once.
pub(super) struct Throttle {
    /// Bytes of a slice.
    share: usize,
    /// Bytes that may pass now.
    allowed: usize,
    /// Up to when that was counted.
    counted: Instant,
    /// What has come and may not pass yet.
    held: Bytes,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    pub(super) fn new(kib_per_second: u64) -> Self {
        let share = kib_per_second.saturating_mul(1024) / SLICES;
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        Self { share, allowed: share, counted: Instant::now(), held: Bytes::new(), sleep: None }
    }

    /// Everything that has come has passed.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The next frame, of what `source` gives.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        mut source: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.held.is_empty() {
            match ready!(source(cx)).map(|polled| polled.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.held = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        loop {
            self.count();
            if self.allowed > 0 {
                let data = self.held.split_to(self.allowed.min(self.held.len()));
                self.allowed -= data.len();
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let next = self.counted + slice();
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
    }

    /// Adds what may pass since the last time.
    fn count(&mut self) {
        let slices = self.counted.elapsed().as_micros() / slice().as_micros();
        let slices = u32::try_from(slices).unwrap_or(u32::MAX);
        self.counted += slice() * slices;
        let second = self.share.saturating_mul(SLICES as usize);
        let more = self.share.saturating_mul(slices as usize);
        self.allowed = self.allowed.saturating_add(more).min(second);
    }
}

fn slice() -> Duration {
    Duration::from_micros(1_000_000 / SLICES)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_as_long_as_its_rate_says() {
        let mut throttle = Throttle::new(4);
        let mut bodies = vec![Bytes::from(vec![0; 8 * 1024])];
        let began = Instant::now();
        let mut got = 0;
        while let Some(frame) = poll_fn(|cx| {
            throttle.poll_frame(cx, |_| Poll::Ready(bodies.pop().map(|data| Ok(Frame::data(data)))))
        })
        .await
        {
            let data = frame.ok().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            assert!(data.len() <= 256, "a slice at a time");
            got += data.len();
        }
        assert_eq!(got, 8 * 1024);
        let took = began.elapsed();
        assert!(
            took > Duration::from_millis(1900) && took < Duration::from_millis(2000),
            "{took:?}"
        );
    }
}
