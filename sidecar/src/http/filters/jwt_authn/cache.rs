//! Tokens that were right, by their text: the same one comes with many requests.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::jwt::{Status, Token};

/// Clocks may differ so far, in seconds, before a remembered token is thrown away. As in Envoy not the provider's own.
const SKEW: u64 = 60;

/// The tokens of one provider that one worker remembers. Only that worker locks it.
pub(super) struct Cache {
    tokens: Mutex<LruCache<Box<str>, Arc<Token>>>,
    max_length: usize,
}

impl Cache {
    pub(super) fn new(size: usize, max_length: usize) -> Self {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        // A table that grows as it is used: the size is what was configured, not what is needed.
        let mut tokens = LruCache::unbounded();
        tokens.resize(size);
        Self { tokens: Mutex::new(tokens), max_length }
    }

    pub(super) fn get(&self, text: &str, now: u64) -> Option<Arc<Token>> {
        let mut tokens = self.tokens.try_lock().ok()?;
        let token = Arc::clone(tokens.get(text)?);
        if token.check_time(now, SKEW) == Err(Status::Expired) {
            tokens.pop(text);
            return None;
        }
        Some(token)
    }

    pub(super) fn put(&self, text: &str, token: &Arc<Token>) {
        if text.len() <= self.max_length
            && let Ok(mut tokens) = self.tokens.try_lock()
        {
            tokens.put(text.into(), Arc::clone(token));
        }
    }
}
