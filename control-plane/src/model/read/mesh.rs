//! Reading of kind `Mesh`.

use super::fields::{At, Scope};
use super::{Meta, values};
use crate::model::Mesh;
use crate::model::mesh::{Action, MtlsMode, OutboundMode};
use std::time::Duration;

/// Shorter certificates would be renewed all the time.
const SHORTEST_LEAF: Duration = Duration::from_secs(10);
/// A workload certificate that outlives a year is no longer a short-lived one.
const LONGEST_LEAF: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Mesh> {
    scope.mapping(at, |spec| {
        let defaults = without_spec(meta);
        Some(Mesh {
            trust_domain: spec
                .optional("trustDomain", trust_domain)
                .unwrap_or(defaults.trust_domain),
            mtls: spec.optional("mtls", mtls).unwrap_or(defaults.mtls),
            default_action: spec
                .optional("defaultAction", action)
                .unwrap_or(defaults.default_action),
            outbound: spec.optional("outbound", outbound).unwrap_or(defaults.outbound),
            leaf_ttl: spec.optional("leafTtl", leaf_ttl).unwrap_or(defaults.leaf_ttl),
            name: defaults.name,
            labels: defaults.labels,
        })
    })
}

/// Every field has a default, so the whole `spec` may be absent.
pub(super) fn without_spec(meta: Meta) -> Mesh {
    Mesh { name: meta.name, labels: meta.labels, ..Mesh::default() }
}

fn trust_domain(scope: &mut Scope, at: At<'_>) -> Option<String> {
    values::text_that(scope, at, |domain| {
        let fine = (1..=255).contains(&domain.len())
            && domain.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            });
        if fine {
            return Ok(());
        }
        Err("a trust domain has 1 to 255 lower-case letters, digits, `.`, `-` and `_`".to_owned())
    })
}

fn mtls(scope: &mut Scope, at: At<'_>) -> Option<MtlsMode> {
    let choices = [("strict", MtlsMode::Strict), ("permissive", MtlsMode::Permissive)];
    values::choice(scope, at, &choices, &[])
}

pub(super) fn action(scope: &mut Scope, at: At<'_>) -> Option<Action> {
    values::choice(scope, at, &[("allow", Action::Allow), ("deny", Action::Deny)], &[])
}

fn outbound(scope: &mut Scope, at: At<'_>) -> Option<OutboundMode> {
    let choices =
        [("passthrough", OutboundMode::Passthrough), ("registry-only", OutboundMode::RegistryOnly)];
    values::choice(scope, at, &choices, &[])
}

fn leaf_ttl(scope: &mut Scope, at: At<'_>) -> Option<Duration> {
    let ttl = values::duration_from(scope, at, SHORTEST_LEAF)?;
    if ttl > LONGEST_LEAF {
        scope.invalid(at, "longer than a year (8760h)");
    }
    Some(ttl)
}
