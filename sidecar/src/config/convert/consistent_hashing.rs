//! Load balancers that choose by a hash: ring hash and Maglev, in the old form and in the new one.

use outrigger_proto::envoy::config::cluster::v3::cluster::{
    MaglevLbConfig, RingHashLbConfig, ring_hash_lb_config,
};
use outrigger_proto::envoy::extensions::load_balancing_policies::common::v3 as common;
use outrigger_proto::envoy::extensions::load_balancing_policies::maglev::v3 as maglev_v3;
use outrigger_proto::envoy::extensions::load_balancing_policies::ring_hash::v3::{
    self as ring_hash_v3, ring_hash,
};
use outrigger_proto::google::protobuf::UInt64Value;

use crate::config::Problems;
use crate::config::load_balancer::{
    ConsistentHashing, HashFunction, LoadBalancer, Maglev, RingHash,
};

use super::common::enumeration;
use super::common_lb::{Localities, balance_factor};
use super::hash_policy;

/// Entries of a ring where nothing is set.
const DEFAULT_MIN_RING_SIZE: u64 = 1024;
/// The largest ring.
const MAX_RING_SIZE: u64 = 8_388_608;
/// Entries of a Maglev table where nothing is set.
const DEFAULT_TABLE_SIZE: u32 = 65537;
/// The largest Maglev table.
const MAX_TABLE_SIZE: u32 = 5_000_011;

/// `ring_hash_lb_config`.
pub(super) fn legacy_ring(
    problems: &mut Problems,
    proto: RingHashLbConfig,
    common: ConsistentHashing,
) -> Option<LoadBalancer> {
    use ring_hash_lb_config::HashFunction as Proto;
    let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = proto;
    let function = match enumeration(problems, "hash_function", hash_function)? {
        Proto::XxHash => HashFunction::XxHash,
        Proto::MurmurHash2 => HashFunction::MurmurHash2,
    };
    ring(problems, 0, minimum_ring_size, maximum_ring_size, function, common)
}

/// `RingHash`.
pub(super) fn ring_extension(
    problems: &mut Problems,
    proto: ring_hash_v3::RingHash,
) -> Option<(LoadBalancer, Localities)> {
    let ring_hash_v3::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = proto;
    let function = match enumeration(problems, "hash_function", hash_function)? {
        ring_hash::HashFunction::DefaultHash | ring_hash::HashFunction::XxHash => {
            HashFunction::XxHash
        }
        ring_hash::HashFunction::MurmurHash2 => HashFunction::MurmurHash2,
    };
    // The deprecated fields count only without the new message.
    let common = match consistent_hashing_lb_config {
        Some(proto) => consistent_hashing(problems, Some(proto)),
        None => ConsistentHashing {
            use_hostname: use_hostname_for_hashing,
            balance_factor: balance_factor(problems, hash_balance_factor),
            hash_policy: Vec::new(),
        },
    };
    let localities = Localities::weighted(locality_weighted_lb_config.is_some());
    let ring = ring(problems, 1, minimum_ring_size, maximum_ring_size, function, common)?;
    Some((ring, localities))
}

fn ring(
    problems: &mut Problems,
    least: u64,
    minimum: Option<UInt64Value>,
    maximum: Option<UInt64Value>,
    function: HashFunction,
    common: ConsistentHashing,
) -> Option<LoadBalancer> {
    let mut size = |name, value: Option<UInt64Value>, least| {
        let UInt64Value { value } = value?;
        if !(least..=MAX_RING_SIZE).contains(&value) {
            problems
                .reject_field(name, format!("{value} is out of range: {least} to {MAX_RING_SIZE}"));
            return None;
        }
        Some(value)
    };
    let minimum_size = size("minimum_ring_size", minimum, least).unwrap_or(DEFAULT_MIN_RING_SIZE);
    let maximum_size = size("maximum_ring_size", maximum, 0).unwrap_or(MAX_RING_SIZE);
    if minimum_size > maximum_size {
        problems.reject_field(
            "minimum_ring_size",
            format!("{minimum_size} is more than maximum_ring_size, {maximum_size}"),
        );
        return None;
    }
    Some(LoadBalancer::RingHash(RingHash { minimum_size, maximum_size, function, common }))
}

/// `maglev_lb_config`.
pub(super) fn legacy_maglev(
    problems: &mut Problems,
    proto: MaglevLbConfig,
    common: ConsistentHashing,
) -> Option<LoadBalancer> {
    let MaglevLbConfig { table_size } = proto;
    maglev(problems, table_size, common)
}

/// `Maglev`.
pub(super) fn maglev_extension(
    problems: &mut Problems,
    proto: maglev_v3::Maglev,
) -> Option<(LoadBalancer, Localities)> {
    let maglev_v3::Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } =
        proto;
    let common = consistent_hashing(problems, consistent_hashing_lb_config);
    let localities = Localities::weighted(locality_weighted_lb_config.is_some());
    Some((maglev(problems, table_size, common)?, localities))
}

fn maglev(
    problems: &mut Problems,
    table_size: Option<UInt64Value>,
    common: ConsistentHashing,
) -> Option<LoadBalancer> {
    let table_size = match table_size {
        None => DEFAULT_TABLE_SIZE,
        Some(UInt64Value { value }) => match u32::try_from(value) {
            Ok(size) if size <= MAX_TABLE_SIZE && is_prime(size) => size,
            _ => {
                let reason = format!("{value} is not a prime number up to {MAX_TABLE_SIZE}");
                problems.reject_field("table_size", reason);
                return None;
            }
        },
    };
    Some(LoadBalancer::Maglev(Maglev { table_size, common }))
}

/// The list of hash policies in it counts instead of the route's.
fn consistent_hashing(
    problems: &mut Problems,
    proto: Option<common::ConsistentHashingLbConfig>,
) -> ConsistentHashing {
    let Some(common::ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy,
    }) = proto
    else {
        return ConsistentHashing::default();
    };
    problems.field("consistent_hashing_lb_config", |problems| ConsistentHashing {
        use_hostname: use_hostname_for_hashing,
        balance_factor: balance_factor(problems, hash_balance_factor),
        hash_policy: hash_policy::convert(problems, hash_policy),
    })
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65537) && is_prime(5_000_011) && !is_prime(65_535));
    }
}
