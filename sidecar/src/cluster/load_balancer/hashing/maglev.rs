//! Google's Maglev: a table of a prime size, which endpoints fill in turn, each in an order of its own.

use super::{Evenness, Shares, xx_hash};
use crate::config::load_balancer;

/// The table.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Slots,
    evenness: Evenness,
}

/// The index of an endpoint for each slot. Most clusters are small: one byte is enough.
#[derive(Debug)]
enum Slots {
    Small(Box<[u8]>),
    Large(Box<[u32]>),
}

/// A slot that nobody has taken.
const FREE: u32 = u32::MAX;

/// An endpoint while the table is filled.
struct Filling {
    host: u32,
    share: f64,
    /// The next slot that it would like.
    next: u64,
    /// From one slot that it would like to the next.
    skip: u64,
    /// It sits a round out until its share by rounds has reached this.
    target: f64,
    count: u64,
}

impl Maglev {
    /// Lets endpoints, sorted by their keys, take slots in rounds: the one with the largest share in each round, the
    /// others as often as their share is of the largest.
    pub(super) fn new(config: &load_balancer::Maglev, shares: &Shares, keys: &[String]) -> Self {
        let size = u64::from(config.table_size);
        let mut order: Vec<(&String, u32, f64)> = keys
            .iter()
            .zip(0u32..)
            .zip(&shares.entries)
            .map(|((key, host), (_, share))| (key, host, *share))
            .collect();
        order.sort_by(|a, b| a.0.cmp(b.0));
        let mut filling: Vec<Filling> = order
            .into_iter()
            .map(|(key, host, share)| Filling {
                host,
                share,
                next: xx_hash(key, 0) % size,
                skip: xx_hash(key, 1) % (size - 1) + 1,
                target: 0.0,
                count: 0,
            })
            .collect();
        let table = fill(&mut filling, shares.largest, config.table_size as usize);

        let counts = filling.iter().map(|filling| filling.count);
        let evenness = Evenness {
            size: None,
            fewest: counts.clone().min().unwrap_or(0),
            most: counts.max().unwrap_or(0),
        };
        let slots = if keys.len() <= usize::from(u8::MAX) + 1 {
            #[allow(clippy::cast_possible_truncation)] // there are no more than 256
            Slots::Small(table.iter().map(|host| *host as u8).collect())
        } else {
            Slots::Large(table.into())
        };
        Self { slots, evenness }
    }

    /// The index of the endpoint of a hash.
    pub(super) fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        // 0 for the first attempt, then almost all bits: another slot, far away.
        let hash = hash ^ u64::from(attempt).wrapping_neg();
        match &self.slots {
            Slots::Small(slots) => slot(slots, hash).map(|host| usize::from(*host)),
            Slots::Large(slots) => slot(slots, hash).map(|host| *host as usize),
        }
    }

    pub(super) fn evenness(&self) -> Evenness {
        self.evenness
    }
}

fn slot<T>(slots: &[T], hash: u64) -> Option<&T> {
    #[allow(clippy::cast_possible_truncation)] // less than the size
    slots.get(hash.checked_rem(slots.len() as u64)? as usize)
}

/// Empty if there is nobody to fill it.
fn fill(filling: &mut [Filling], largest: f64, size: usize) -> Vec<u32> {
    if filling.is_empty() {
        return Vec::new();
    }
    let mut table = vec![FREE; size];
    let mut left = size;
    let mut round = 0u32;
    while left > 0 {
        round += 1;
        for host in &mut *filling {
            if left == 0 {
                break;
            }
            if f64::from(round) * host.share < host.target {
                continue;
            }
            host.target += largest;
            // A prime number of slots: every endpoint comes by every slot, so there is a free one.
            let slot = loop {
                #[allow(clippy::cast_possible_truncation)] // less than the size
                let at = host.next as usize;
                host.next = (host.next + host.skip) % size as u64;
                if table[at] == FREE {
                    break at;
                }
            };
            table[slot] = host.host;
            host.count += 1;
            left -= 1;
        }
    }
    table
}
