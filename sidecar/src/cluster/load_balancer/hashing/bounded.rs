//! Bounded load: an endpoint with much more than its share of the requests under way is passed over.
//!
//! The endpoint in its place is found in an order that is random, but the same for the same hash, so that those who come
//! too many go to the same one ("consistent hashing with bounded loads", with random jumps).

use std::sync::Arc;

use crate::cluster::endpoint::Endpoint;

/// How many requests an endpoint has under way by how many it may have; above 1 it has too many.
///
/// It may have `factor` percent of its share of all requests under way, `active`, and of the one that is to be sent.
fn overload(endpoint: &Endpoint, share: f64, active: u64, factor: u32) -> f64 {
    #[allow(clippy::cast_precision_loss)] // requests under way
    let total = ((active + 1) * u64::from(factor)).div_ceil(100) as f64;
    f64::from(endpoint.active()) / (total * share).ceil().max(1.0)
}

/// The endpoint for `hash`, which belongs to the one at `first`.
pub(super) fn choose<'h>(
    hosts: &'h [Arc<Endpoint>],
    shares: &[f64],
    first: usize,
    hash: u64,
    active: u64,
    factor: u32,
) -> Option<&'h Arc<Endpoint>> {
    let overload_of = |at: usize| Some(overload(hosts.get(at)?, *shares.get(at)?, active, factor));
    let mut least = overload_of(first)?;
    if least <= 1.0 {
        return hosts.get(first);
    }
    let mut best = first;
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    let mut random = MersenneTwister::new(hash);
    for at in 0..order.len() {
        let other = at + random.below(order.len() - at);
        order.swap(at, other);
        let candidate = order[at];
        if candidate == first {
            continue;
        }
        let overload = overload_of(candidate)?;
        if overload <= 1.0 {
            return hosts.get(candidate);
        }
        if overload < least {
            (best, least) = (candidate, overload);
        }
    }
    hosts.get(best)
}

/// MT19937, the generator `std::mt19937` of C++.
struct MersenneTwister {
    state: Vec<u32>,
    next: usize,
}

const SIZE: usize = 624;
const MIDDLE: usize = 397;

impl MersenneTwister {
    #[allow(clippy::cast_possible_truncation)] // the lower half of the seed counts
    fn new(seed: u64) -> Self {
        let mut state = Vec::with_capacity(SIZE);
        let mut last = seed as u32;
        state.push(last);
        for n in 1..SIZE as u32 {
            last = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(n);
            state.push(last);
        }
        Self { state, next: SIZE }
    }

    fn next(&mut self) -> u32 {
        if self.next == SIZE {
            for at in 0..SIZE {
                let mixed =
                    (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % SIZE] & 0x7fff_ffff);
                let twist = if mixed & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[at] = self.state[(at + MIDDLE) % SIZE] ^ (mixed >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut value = self.state[self.next];
        self.next += 1;
        value ^= value >> 11;
        value ^= (value << 7) & 0x9d2c_5680;
        value ^= (value << 15) & 0xefc6_0000;
        value ^ (value >> 18)
    }

    /// A number below `bound`, which is more than 0: every one as likely.
    #[allow(clippy::cast_possible_truncation)] // below the bound
    fn below(&mut self, bound: usize) -> usize {
        let bucket = (1u64 << 32) / bound as u64;
        loop {
            let value = u64::from(self.next()) / bucket;
            if value < bound as u64 {
                return value as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::cluster::testing::members;
    use crate::config::endpoint::HealthStatus;

    #[test]
    fn the_generator_is_mt19937() {
        let mut random = MersenneTwister::new(5489);
        let last = (0..10_000).map(|_| random.next()).last();
        // The value that the C++ standard demands of `std::mt19937`.
        assert_eq!(last, Some(4_123_659_995));
    }

    fn endpoints(active: &[u32]) -> Vec<Arc<Endpoint>> {
        let all = members(0, &vec![(1, HealthStatus::Healthy); active.len()]).all.to_vec();
        for (endpoint, active) in all.iter().zip(active) {
            endpoint.active.store(*active, Relaxed);
        }
        all
    }

    /// The port for each of many hashes that all belong to the first.
    fn chosen(active: &[u32], factor: u32) -> Vec<u16> {
        let hosts = endpoints(active);
        #[allow(clippy::cast_precision_loss)]
        let shares = vec![1.0 / active.len() as f64; active.len()];
        let sum = active.iter().map(|active| u64::from(*active)).sum();
        let mut ports: Vec<_> = (0..50)
            .map(|hash| {
                choose(&hosts, &shares, 0, hash, sum, factor).unwrap().address.port().unwrap()
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    #[test]
    fn an_endpoint_keeps_its_hashes_up_to_its_bound() {
        // Nine under way and one to come, 150 percent: 15 places for three.
        assert_eq!(chosen(&[5, 2, 2], 150), [0]);
        assert_eq!(chosen(&[6, 2, 2], 150), [0], "eleven: 17 places, six for each");
        assert_eq!(chosen(&[7, 1, 2], 150), [1, 2]);
    }

    #[test]
    fn one_that_has_too_many_itself_is_passed_over_too_and_of_all_such_the_least_is_taken() {
        assert_eq!(chosen(&[9, 9, 0], 100), [2]);
        // 28 places, ten for each: all have more.
        let hosts = endpoints(&[20, 12, 15]);
        for hash in 0..20 {
            let chosen = choose(&hosts, &[1.0 / 3.0; 3], 0, hash, 26, 100).unwrap();
            assert_eq!(chosen.address.port().unwrap(), 1);
        }
    }

    #[test]
    fn the_same_hash_goes_to_the_same_other_endpoint() {
        let hosts = endpoints(&[50, 0, 0, 0, 0]);
        for hash in 0..50 {
            let pick = || choose(&hosts, &[0.2; 5], 0, hash, 50, 120).unwrap().id;
            assert_eq!(pick(), pick());
        }
    }
}
