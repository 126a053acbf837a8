//! A ring of hashes (ketama): every endpoint lies at many places, and a hash belongs to the next place at or after it.

use std::fmt::Write;

use super::murmur::murmur_hash;
use super::{Evenness, Shares, xx_hash};
use crate::config::load_balancer::{HashFunction, RingHash};

/// The ring, in order.
#[derive(Debug)]
pub(super) struct Ring {
    hashes: Box<[u64]>,
    /// Which endpoint lies at the hash of the same index.
    hosts: Box<[u32]>,
    evenness: Evenness,
}

impl Ring {
    /// Puts every endpoint to about so many places as its share is of the size, `KEY_0`, `KEY_1` and so on.
    ///
    /// The size is such that the endpoint with the smallest share has a whole number of places; those that are left over
    /// by the others' fractions are carried on to the next endpoint.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // sizes are at most 2^23
    pub(super) fn new(config: &RingHash, shares: &Shares, keys: &[String]) -> Self {
        let least = (shares.smallest * config.minimum_size as f64).ceil() / shares.smallest;
        let scale = least.min(config.maximum_size as f64);
        let size = if shares.entries.is_empty() { 0 } else { scale.ceil() as u64 };

        let mut places: Vec<(u64, u32)> = Vec::with_capacity(size as usize);
        let mut evenness = Evenness { size: Some(size), fewest: size, most: 0 };
        let (mut current, mut target) = (0.0, 0.0);
        let mut text = String::new();
        for ((host, key), (_, share)) in (0u32..).zip(keys).zip(&shares.entries) {
            target += scale * share;
            text.clear();
            text.push_str(key);
            text.push('_');
            let prefix = text.len();
            let mut count = 0u64;
            while current < target {
                text.truncate(prefix);
                // Writing into a text cannot fail.
                let _ = write!(text, "{count}");
                let hash = match config.function {
                    HashFunction::XxHash => xx_hash(&text, 0),
                    HashFunction::MurmurHash2 => murmur_hash(text.as_bytes()),
                };
                places.push((hash, host));
                count += 1;
                current += 1.0;
            }
            evenness.fewest = evenness.fewest.min(count);
            evenness.most = evenness.most.max(count);
        }
        places.sort_unstable();
        let (hashes, hosts): (Vec<u64>, Vec<u32>) = places.into_iter().unzip();
        Self { hashes: hashes.into(), hosts: hosts.into(), evenness }
    }

    /// The index of the endpoint at the first place from `hash` on, or at the one `attempt` places further.
    pub(super) fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let size = self.hashes.len();
        let at = self.hashes.partition_point(|place| *place < hash);
        let at = if at == size { 0 } else { at };
        let at = (at + attempt as usize).checked_rem(size)?;
        self.hosts.get(at).map(|host| *host as usize)
    }

    pub(super) fn evenness(&self) -> Evenness {
        self.evenness
    }
}
