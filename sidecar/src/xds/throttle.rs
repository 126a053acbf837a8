//! No more requests than a server takes: `rate_limit_settings`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::Stream;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::subscription::Request;
use crate::config::bootstrap::RequestRate;
use crate::stats::{ControlPlaneCells, Sharded};

/// With so many requests waiting nothing more is read from the server: each of its responses adds one.
const MAX_WAITING: usize = 64;

/// The bucket of one server's stream. It lives longer than a connection: to reconnect brings no tokens.
pub(super) struct Throttle {
    rate: RequestRate,
    /// When the bucket is full again.
    full_at: Mutex<Instant>,
    waiting: AtomicUsize,
    fewer: Notify,
    cells: Arc<Sharded<ControlPlaneCells>>,
}

impl Throttle {
    /// A full bucket.
    pub(super) fn new(rate: RequestRate, cells: Arc<Sharded<ControlPlaneCells>>) -> Arc<Self> {
        Arc::new(Self {
            rate,
            full_at: Mutex::new(Instant::now()),
            waiting: AtomicUsize::new(0),
            fewer: Notify::new(),
            cells,
        })
    }

    /// These requests, each when there is a token for it.
    pub(super) fn slow_down(
        self: Arc<Self>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> impl Stream<Item = Request> {
        self.set_waiting(0);
        futures_util::stream::unfold((self, requests), |(throttle, mut requests)| async move {
            let request = requests.recv().await?;
            throttle.set_waiting(requests.len() + 1);
            throttle.take().await;
            throttle.set_waiting(requests.len());
            Some((request, (throttle, requests)))
        })
    }

    /// Waits until so few requests wait that there is room for the answer to another response.
    pub(super) async fn room(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.waiting.load(Relaxed) < MAX_WAITING {
                return;
            }
            fewer.await;
        }
    }

    /// Takes a token; waits for it if there is none.
    async fn take(&self) {
        let mut full_at = self.full_at.lock().await;
        let now = Instant::now();
        let since = (*full_at).max(now);
        // The last token of the bucket is there so long after it is full but for one.
        let next = since.checked_sub(self.rate.interval * (self.rate.burst - 1)).unwrap_or(now);
        if next > now {
            self.cells.local().rate_limit_enforced.inc();
            sleep_until(next).await;
        }
        *full_at = since + self.rate.interval;
    }

    fn set_waiting(&self, count: usize) {
        self.waiting.store(count, Relaxed);
        self.cells.local().pending_requests.set(count as u64);
        self.fewer.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use outrigger_proto::envoy::service::discovery::v3::DiscoveryRequest;

    use super::*;
    use crate::stats::{Registry, Scope};

    fn throttle(burst: u32) -> Arc<Throttle> {
        let rate = RequestRate { burst, interval: Duration::from_secs(1) };
        Throttle::new(rate, Registry::new(1).scope(Scope::ControlPlane))
    }

    fn request() -> Request {
        Request::StateOfTheWorld(DiscoveryRequest::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_then_one_request_for_each_interval() {
        let throttle = throttle(3);
        let (sender, requests) = mpsc::unbounded_channel();
        (0..6).for_each(|_| sender.send(request()).unwrap());
        let mut out = Box::pin(Arc::clone(&throttle).slow_down(requests));
        let start = Instant::now();
        let mut times = Vec::new();
        for _ in 0..6 {
            out.next().await.unwrap();
            times.push(start.elapsed().as_millis().div_ceil(1000));
        }
        assert_eq!(times, [0, 0, 0, 1, 2, 3]);
        assert_eq!(throttle.cells.local().rate_limit_enforced.value(), 3);
        // Whoever waits gets no more than the bucket holds.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let start = Instant::now();
        for _ in 0..4 {
            sender.send(request()).unwrap();
            out.next().await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis().div_ceil(1000), 1);
        drop(sender);
        assert!(out.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_stream_finds_the_bucket_as_the_old_one_left_it() {
        let throttle = throttle(1);
        for round in 0..2 {
            let (sender, requests) = mpsc::unbounded_channel();
            sender.send(request()).unwrap();
            let start = Instant::now();
            Box::pin(Arc::clone(&throttle).slow_down(requests)).next().await.unwrap();
            assert_eq!(start.elapsed().as_millis().div_ceil(1000), round);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_while_too_many_requests_wait() {
        let throttle = throttle(1);
        let (sender, requests) = mpsc::unbounded_channel();
        (0..=MAX_WAITING + 1).for_each(|_| sender.send(request()).unwrap());
        let mut out = Box::pin(Arc::clone(&throttle).slow_down(requests));
        out.next().await.unwrap();
        let mut room = Box::pin(throttle.room());
        assert!(futures_util::poll!(&mut room).is_pending());
        out.next().await.unwrap();
        assert!(futures_util::poll!(&mut room).is_pending(), "as many as may wait");
        out.next().await.unwrap();
        room.await;
    }
}
