//! Limits of this process alone, for requests by their descriptions.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::rate_limit::{Descriptor, Entries};
use super::token_bucket::TokenBucket;

/// Buckets of tokens: one for all requests, and one for each description that has a limit of its own. They are the same
/// for all workers.
pub struct Limiter {
    default: Option<Arc<TokenBucket>>,
    exact: BTreeMap<Entries, Limit>,
    open: Vec<Open>,
    /// A request takes a token of the common bucket also where it has a limit of its own.
    always_default: bool,
}

/// A limit for one description.
#[derive(Debug, Clone)]
struct Limit {
    bucket: Arc<TokenBucket>,
    /// A request over it goes on.
    shadow: bool,
}

/// A limit for descriptions of which some values are open: each of them has a bucket of its own.
struct Open {
    /// An empty value is open.
    entries: Entries,
    /// What a new bucket is like.
    limit: Limit,
    /// The buckets of those that came last.
    known: Mutex<LruCache<Entries, Arc<TokenBucket>>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Outcome {
    /// There was a token for it.
    pub allowed: bool,
    /// There was none, and the limit is one that only counts.
    pub shadow: bool,
    /// The bucket that decided, or else the strictest.
    pub bucket: Option<Arc<TokenBucket>>,
    /// Whether to say `x-ratelimit-*`, if the rule of the bucket says so.
    pub x_headers: Option<bool>,
}

impl Limiter {
    /// With a bucket for all requests, or with none at all for them.
    pub fn new(default: Option<TokenBucket>, always_default: bool) -> Self {
        Self {
            default: default.map(Arc::new),
            exact: BTreeMap::new(),
            open: Vec::new(),
            always_default,
        }
    }

    /// Adds a limit for a description; of an open one up to `most` are remembered. `false`: there is one already.
    pub fn add(
        &mut self,
        entries: Entries,
        bucket: TokenBucket,
        shadow: bool,
        most: NonZeroUsize,
    ) -> bool {
        let limit = Limit { bucket: Arc::new(bucket), shadow };
        let is_open = entries.iter().any(|(_, value)| value.is_empty());
        if !is_open {
            return self.exact.insert(entries, limit).is_none();
        }
        let is_new = self.open.iter().all(|open| open.entries != entries);
        let known = Mutex::new(LruCache::new(most));
        self.open.push(Open { entries, limit, known });
        is_new
    }

    /// Whether descriptions count.
    pub fn has_descriptors(&self) -> bool {
        !self.exact.is_empty() || !self.open.is_empty()
    }

    /// Takes the tokens that a request needs, the strictest limit's first.
    pub fn take(&self, descriptors: &[Descriptor]) -> Outcome {
        let mut matched: Vec<(Limit, &Descriptor)> = descriptors
            .iter()
            .filter_map(|descriptor| Some((self.limit(&descriptor.entries)?, descriptor)))
            .collect();
        matched.sort_by_key(|(limit, _)| std::cmp::Reverse(limit.bucket.time_of_a_token()));
        for (limit, descriptor) in &matched {
            if !limit.bucket.take(descriptor.hits.map_or(1, |hits| hits.number)) {
                return Outcome {
                    allowed: false,
                    shadow: limit.shadow,
                    bucket: Some(Arc::clone(&limit.bucket)),
                    x_headers: descriptor.x_headers,
                };
            }
        }
        if (matched.is_empty() || self.always_default)
            && !self.default.as_ref().is_some_and(|bucket| bucket.take(1))
        {
            let bucket = self.default.clone();
            return Outcome { allowed: false, shadow: false, bucket, x_headers: None };
        }
        let (bucket, x_headers) = match matched.first() {
            Some((limit, descriptor)) => (Some(Arc::clone(&limit.bucket)), descriptor.x_headers),
            None => (self.default.clone(), None),
        };
        Outcome { allowed: true, shadow: false, bucket, x_headers }
    }

    fn limit(&self, entries: &Entries) -> Option<Limit> {
        if let Some(limit) = self.exact.get(entries) {
            return Some(limit.clone());
        }
        let open = self.open.iter().find(|open| open.takes(entries))?;
        Some(Limit { bucket: open.bucket(entries), shadow: open.limit.shadow })
    }
}

impl Open {
    fn takes(&self, entries: &Entries) -> bool {
        self.entries.len() == entries.len()
            && self.entries.iter().zip(entries).all(|((key, value), (other, given))| {
                key == other && (value.is_empty() || value == given)
            })
    }

    fn bucket(&self, entries: &Entries) -> Arc<TokenBucket> {
        // Nothing in here panics half-way through a change.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.get_or_insert(entries.clone(), || Arc::new(self.limit.bucket.anew())))
    }
}

/// What it is made of, and not what is in it: two configurations that say the same are equal.
impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("default", &self.default)
            .field("exact", &self.exact)
            .field("open", &self.open)
            .field("always_default", &self.always_default)
            .finish()
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.known.lock().unwrap_or_else(PoisonError::into_inner).cap();
        f.debug_struct("Open")
            .field("entries", &self.entries)
            .field("limit", &self.limit)
            .field("most", &most)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::rate_limit::Hits;

    fn bucket(max: u32, seconds: u64) -> TokenBucket {
        TokenBucket::new(max, 1, Duration::from_secs(seconds))
    }

    fn entries(of: &[(&str, &str)]) -> Entries {
        of.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn descriptor(of: &[(&str, &str)]) -> Descriptor {
        Descriptor { entries: entries(of), ..Descriptor::default() }
    }

    fn most(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).expect("not zero")
    }

    #[tokio::test(start_paused = true)]
    async fn a_description_has_a_limit_of_its_own() {
        let mut limiter = Limiter::new(Some(bucket(10, 60)), false);
        assert!(limiter.add(entries(&[("who", "a")]), bucket(1, 60), false, most(20)));
        assert!(!limiter.add(entries(&[("who", "a")]), bucket(1, 60), false, most(20)), "twice");
        let a = [descriptor(&[("who", "a")])];
        assert!(limiter.take(&a).allowed);
        assert!(!limiter.take(&a).allowed);
        assert!(limiter.take(&[descriptor(&[("who", "b")])]).allowed, "the common bucket");
        assert!(limiter.take(&[descriptor(&[("who", "a"), ("x", "y")])]).allowed, "not the same");
    }

    #[tokio::test(start_paused = true)]
    async fn the_common_bucket_counts_too_where_it_always_does() {
        let mut limiter = Limiter::new(Some(bucket(1, 60)), true);
        limiter.add(entries(&[("who", "a")]), bucket(5, 60), false, most(20));
        let a = [descriptor(&[("who", "a")])];
        assert!(limiter.take(&a).allowed);
        let refused = limiter.take(&a);
        assert!(!refused.allowed);
        assert_eq!(refused.bucket.map(|bucket| bucket.max()), Some(1), "the common bucket refused");
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_open_description_each_value_has_its_bucket_and_the_oldest_is_forgotten() {
        let mut limiter = Limiter::new(Some(bucket(10, 60)), false);
        limiter.add(entries(&[("who", ""), ("where", "x")]), bucket(1, 60), false, most(2));
        let of = |who: &str| [descriptor(&[("who", who), ("where", "x")])];
        assert!(limiter.take(&of("a")).allowed && limiter.take(&of("b")).allowed);
        assert!(!limiter.take(&of("a")).allowed && !limiter.take(&of("b")).allowed);
        assert!(limiter.take(&of("c")).allowed, "in the place of a, which came least lately");
        assert!(limiter.take(&of("a")).allowed, "begins anew");
        assert!(limiter.take(&[descriptor(&[("who", "a"), ("where", "y")])]).allowed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_strictest_limit_decides_first_and_hits_are_counted() {
        let mut limiter = Limiter::new(None, false);
        limiter.add(entries(&[("wide", "1")]), bucket(10, 1), false, most(1));
        limiter.add(entries(&[("narrow", "1")]), bucket(4, 60), true, most(1));
        let both = || {
            let mut narrow = descriptor(&[("narrow", "1")]);
            narrow.hits = Some(Hits { number: 3, negative: false });
            [descriptor(&[("wide", "1")]), narrow]
        };
        assert_eq!(limiter.take(&both()).bucket.map(|bucket| bucket.tokens()), Some(1));
        let refused = limiter.take(&both());
        assert!(!refused.allowed && refused.shadow);
        let wide = limiter.take(&[descriptor(&[("wide", "1")])]);
        assert_eq!(
            wide.bucket.map(|it| it.tokens()),
            Some(8),
            "the refused one took nothing of it"
        );
        assert!(!limiter.take(&[]).allowed, "there is no common bucket");
    }
}
