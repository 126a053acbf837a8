//! A bucket that fills steadily and that all workers spend from.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Times are counted from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tokens that come back at a steady rate, up to a maximum. As Envoy's `AtomicTokenBucketImpl` it is one number: the time
/// at which the bucket would have been empty. It begins full.
pub struct TokenBucket {
    max: u32,
    /// Nanoseconds in which one token comes.
    token: u64,
    /// Nanoseconds since [`START`], shifted up by the time in which the bucket fills, so that it can be full at once.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A full bucket of `max` tokens, to which `per_fill` come in each `interval`.
    pub fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let token = (interval / u64::from(per_fill.max(1))).max(1);
        Self { max, token, empty_at: AtomicU64::new(0) }
    }

    /// Takes a token, if there is one.
    pub fn take(&self) -> bool {
        let elapsed = u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let filling = self.token.saturating_mul(u64::from(self.max));
        let now = elapsed.saturating_add(filling);
        let spend = |empty_at: u64| {
            let empty_at = empty_at.max(now.saturating_sub(filling));
            let next = empty_at.saturating_add(self.token);
            (next <= now).then_some(next)
        };
        self.empty_at.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

/// What it is made of, and not what is in it: two configurations that say the same are equal.
impl fmt::Debug for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucket").field("max", &self.max).field("token", &self.token).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_begins_full_and_fills_at_its_rate_up_to_its_maximum() {
        let bucket = TokenBucket::new(2, 1, Duration::from_secs(1));
        assert_eq!([bucket.take(), bucket.take(), bucket.take()], [true, true, false]);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!([bucket.take(), bucket.take()], [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([bucket.take(), bucket.take(), bucket.take()], [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_gives_nothing() {
        let bucket = TokenBucket::new(0, 1, Duration::from_secs(1));
        assert!(!bucket.take());
    }
}
