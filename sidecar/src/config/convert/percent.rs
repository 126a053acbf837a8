//! Shares of requests, and switches, which the runtime may override.

use outrigger_proto::envoy::config::core::v3::{RuntimeFeatureFlag, RuntimeFractionalPercent};
use outrigger_proto::envoy::r#type::v3::FractionalPercent;
use outrigger_proto::envoy::r#type::v3::fractional_percent::DenominatorType;

use crate::config::Problems;
use crate::config::runtime::{Fraction, RuntimeFlag, RuntimeFraction};

use super::common::{enumeration, required};

/// A `RuntimeFractionalPercent` in the field `name`.
pub(super) fn runtime(
    problems: &mut Problems,
    name: &str,
    proto: RuntimeFractionalPercent,
) -> Option<RuntimeFraction> {
    let RuntimeFractionalPercent { default_value, runtime_key } = proto;
    problems.field(name, |problems| {
        let value = required(problems, "default_value", default_value)?;
        let default = plain(problems, "default_value", value)?;
        Some(RuntimeFraction::new(default, &runtime_key))
    })
}

/// A `RuntimeFeatureFlag` in the field `name`.
pub(super) fn flag(
    problems: &mut Problems,
    name: &str,
    proto: RuntimeFeatureFlag,
) -> Option<RuntimeFlag> {
    let RuntimeFeatureFlag { default_value, runtime_key } = proto;
    problems.field(name, |problems| {
        let default = required(problems, "default_value", default_value)?;
        Some(RuntimeFlag::new(default.value, &runtime_key))
    })
}

/// A `FractionalPercent` in the field `name`.
pub(super) fn plain(
    problems: &mut Problems,
    name: &str,
    proto: FractionalPercent,
) -> Option<Fraction> {
    let FractionalPercent { numerator, denominator } = proto;
    problems.field(name, |problems| {
        let denominator = match enumeration(problems, "denominator", denominator)? {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        };
        Some((numerator, denominator))
    })
}
