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

    /// A full bucket that is like this one.
    pub fn anew(&self) -> Self {
        Self { max: self.max, token: self.token, empty_at: AtomicU64::new(0) }
    }

    /// The most that is in it.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Nanoseconds in which one token comes.
    pub fn time_of_a_token(&self) -> u64 {
        self.token
    }

    /// Takes so many tokens, if they are there.
    pub fn take(&self, tokens: u64) -> bool {
        let (now, filling) = self.now();
        let spend = |empty_at: u64| {
            let empty_at = empty_at.max(now.saturating_sub(filling));
            let next = empty_at.saturating_add(self.token.saturating_mul(tokens));
            (next <= now).then_some(next)
        };
        self.empty_at.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }

    /// Whole tokens that are there.
    pub fn tokens(&self) -> u64 {
        let (now, filling) = self.now();
        let empty_at = self.empty_at.load(Relaxed).max(now.saturating_sub(filling));
        now.saturating_sub(empty_at) / self.token
    }

    /// How long until there is a token; nothing where there is one.
    pub fn until_next_token(&self) -> Duration {
        let (now, filling) = self.now();
        let empty_at = self.empty_at.load(Relaxed).max(now.saturating_sub(filling));
        Duration::from_nanos(empty_at.saturating_add(self.token).saturating_sub(now))
    }

    /// The time, and that in which the bucket fills.
    fn now(&self) -> (u64, u64) {
        let elapsed = u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let filling = self.token.saturating_mul(u64::from(self.max));
        (elapsed.saturating_add(filling), filling)
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
        assert_eq!([bucket.take(1), bucket.take(1), bucket.take(1)], [true, true, false]);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!([bucket.take(1), bucket.take(1)], [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([bucket.take(1), bucket.take(1), bucket.take(1)], [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_tells_what_is_left_and_when_there_is_more() {
        let bucket = TokenBucket::new(3, 1, Duration::from_secs(60));
        assert_eq!((bucket.tokens(), bucket.until_next_token()), (3, Duration::ZERO));
        assert!(bucket.take(2) && !bucket.take(2));
        assert_eq!((bucket.tokens(), bucket.until_next_token()), (1, Duration::ZERO));
        assert!(bucket.take(1));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!((bucket.tokens(), bucket.until_next_token()), (0, Duration::from_secs(40)));
        assert_eq!(bucket.anew().tokens(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_gives_nothing() {
        let bucket = TokenBucket::new(0, 1, Duration::from_secs(1));
        assert!(!bucket.take(1));
    }
}
