//! `envoy.filters.http.jwt_authn`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use outrigger_proto::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;

use crate::config::Problems;
use crate::config::jwt_authn::{
    ClaimPath, JwtAuthn, JwtKeys, JwtLocations, JwtPerRoute, JwtProvider, JwtRequirement, JwtRule,
    NamedRequirements, RemoteJwks,
};
use crate::jwt::Jwks;

use super::super::common::{
    duration, header_name, header_value, number_in, optional, positive_duration, required, sorted,
    text, unsupported,
};
use super::super::{data_source, http_uri, matcher, route};

/// How far clocks may differ where nothing is set.
const DEFAULT_SKEW: u64 = 60;
/// How long fetched keys are good for where nothing is set.
const DEFAULT_CACHE: Duration = Duration::from_secs(600);
/// After a failure keys are fetched again after so long where nothing is set.
const DEFAULT_REFETCH: Duration = Duration::from_secs(1);
/// Tokens that are remembered where nothing is set.
const DEFAULT_CACHED_TOKENS: usize = 100;
/// Longest token that is remembered where nothing is set.
const DEFAULT_CACHED_LENGTH: usize = 4096;
/// Requirements may stand in each other only so deep: a stack is finite.
const MAX_DEPTH: usize = 16;

/// The filter's configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::JwtAuthentication,
) -> JwtAuthn {
    let proto::JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = proto;
    let providers = sorted(providers);
    let names: Vec<String> = providers.iter().map(|(name, _)| name.clone()).collect();
    let providers: Vec<JwtProvider> = providers
        .into_iter()
        .filter_map(|(name, proto)| {
            problems.element("providers", &name, |problems| provider(problems, &name, proto))
        })
        .collect();
    let named = requirements(problems, "requirement_map", requirement_map, &names);
    let rules: Vec<JwtRule> = rules
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("rules", index, |problems| rule(problems, proto, &names, &named))
        })
        .collect();
    let filter_state = filter_state_rules.map(|proto| {
        let proto::FilterStateRule { name, requires } = proto;
        problems.field("filter_state_rules", |problems| {
            let name = text(problems, "name", name).into();
            (name, requirements(problems, "requires", requires, &names))
        })
    });
    JwtAuthn {
        providers: providers.into(),
        rules: rules.into(),
        named,
        filter_state,
        bypass_cors_preflight,
        strip_failure_response,
        stat_prefix: stat_prefix.into(),
    }
}

/// What a route says.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::PerRouteConfig,
) -> Option<JwtPerRoute> {
    use proto::per_route_config::RequirementSpecifier;
    let proto::PerRouteConfig { requirement_specifier } = proto;
    match requirement_specifier {
        None => {
            problems.reject("one of disabled, requirement_name is required");
            None
        }
        Some(RequirementSpecifier::Disabled(true)) => Some(JwtPerRoute::Disabled),
        Some(RequirementSpecifier::Disabled(false)) => {
            problems.reject_field("disabled", "must be true where it is set");
            None
        }
        Some(RequirementSpecifier::RequirementName(name)) => {
            Some(JwtPerRoute::Named(text(problems, "requirement_name", name).into()))
        }
    }
}

fn requirements(
    problems: &mut Problems,
    field: &str,
    protos: HashMap<String, proto::JwtRequirement>,
    names: &[String],
) -> NamedRequirements {
    sorted(protos)
        .into_iter()
        .filter_map(|(name, proto)| {
            let requirement = problems
                .element(field, &name, |problems| requirement(problems, proto, names, 0))?;
            Some((name.into(), requirement))
        })
        .collect()
}

fn rule(
    problems: &mut Problems,
    proto: proto::RequirementRule,
    names: &[String],
    named: &[(Box<str>, JwtRequirement)],
) -> Option<JwtRule> {
    let proto::RequirementRule { r#match, requirement_type } = proto;
    let matches = required(problems, "match", r#match)?;
    let matches = problems.field("match", |problems| route::route_match(problems, matches));
    let requirement = match requirement_type {
        None => None,
        Some(RequirementType::Requires(proto)) => {
            Some(problems.field("requires", |problems| requirement(problems, proto, names, 0))?)
        }
        Some(RequirementType::RequirementName(name)) => {
            let found = named.iter().find(|(other, _)| **other == *name);
            if found.is_none() {
                problems.reject_field(
                    "requirement_name",
                    format!("{name:?} does not stand in requirement_map"),
                );
            }
            Some(found?.1.clone())
        }
    };
    Some(JwtRule { matches: matches?, requirement })
}

fn requirement(
    problems: &mut Problems,
    proto: proto::JwtRequirement,
    names: &[String],
    depth: usize,
) -> Option<JwtRequirement> {
    if depth >= MAX_DEPTH {
        problems.reject(format!("requirements stand in each other more than {MAX_DEPTH} deep"));
        return None;
    }
    let proto::JwtRequirement { requires_type } = proto;
    let place = |problems: &mut Problems, name: &str| {
        let place = names.iter().position(|other| other == name);
        if place.is_none() {
            problems.reject_field("provider_name", format!("no provider {name:?} in providers"));
        }
        place
    };
    Some(match requires_type {
        None => JwtRequirement::Nothing,
        Some(RequiresType::ProviderName(name)) => {
            JwtRequirement::Provider(place(problems, &name)?, None)
        }
        Some(RequiresType::ProviderAndAudiences(proto)) => {
            let proto::ProviderWithAudiences { provider_name, audiences } = proto;
            problems.field("provider_and_audiences", |problems| {
                let audiences = (!audiences.is_empty()).then(|| comparable(audiences));
                place(problems, &provider_name)
                    .map(|place| JwtRequirement::Provider(place, audiences))
            })?
        }
        Some(RequiresType::RequiresAny(proto::JwtRequirementOrList { requirements })) => {
            let of = list(problems, "requires_any", requirements, names, depth)?;
            let is = |wanted: &dyn Fn(&JwtRequirement) -> bool| of.iter().any(wanted);
            let allow_missing = is(&|it| matches!(it, JwtRequirement::AllowMissing));
            let allow_missing_or_failed =
                is(&|it| matches!(it, JwtRequirement::AllowMissingOrFailed));
            // They say what becomes of a failure of the others; alone they stand for themselves.
            let others: Vec<_> = of
                .into_iter()
                .filter(|it| {
                    !matches!(
                        it,
                        JwtRequirement::AllowMissing | JwtRequirement::AllowMissingOrFailed
                    )
                })
                .collect();
            match others.is_empty() {
                true if allow_missing_or_failed => JwtRequirement::AllowMissingOrFailed,
                true => JwtRequirement::AllowMissing,
                false => JwtRequirement::Any {
                    of: others.into(),
                    allow_missing,
                    allow_missing_or_failed,
                },
            }
        }
        Some(RequiresType::RequiresAll(proto::JwtRequirementAndList { requirements })) => {
            let of = list(problems, "requires_all", requirements, names, depth)?;
            JwtRequirement::All(of.into())
        }
        Some(RequiresType::AllowMissing(_)) => JwtRequirement::AllowMissing,
        Some(RequiresType::AllowMissingOrFailed(_)) => JwtRequirement::AllowMissingOrFailed,
        // Claims that nobody verified, handed on as if they were: not without being asked twice.
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            problems.unsupported("extract_only_without_validation", true);
            return None;
        }
    })
}

fn list(
    problems: &mut Problems,
    field: &str,
    protos: Vec<proto::JwtRequirement>,
    names: &[String],
    depth: usize,
) -> Option<Vec<JwtRequirement>> {
    problems.field(field, |problems| {
        if protos.len() < 2 {
            problems.reject_field("requirements", "at least two are needed");
            return None;
        }
        let list = protos.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("requirements", index, |problems| {
                requirement(problems, proto, names, depth + 1)
            })
        });
        Some(list.collect())
    })
}

/// Audiences are compared without their scheme and without a slash at the end, as in Envoy.
fn comparable(audiences: Vec<String>) -> Box<[Box<str>]> {
    audiences.iter().map(|audience| JwtProvider::comparable(audience).into()).collect()
}

fn provider(problems: &mut Problems, name: &str, proto: proto::JwtProvider) -> Option<JwtProvider> {
    let proto::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = proto;
    let keys = keys(problems, jwks_source_specifier);
    let subjects = match subjects {
        None => None,
        Some(proto) => {
            Some(problems.field("subjects", |problems| matcher::string(problems, proto))?)
        }
    };
    let max_lifetime = match duration(problems, "max_lifetime", max_lifetime) {
        Some(most) => Some(Some(most)),
        None => require_expiration.then_some(None),
    };
    let locations = locations(problems, from_headers, from_params, from_cookies);
    let forward_payload_header = if forward_payload_header.is_empty() {
        None
    } else {
        header_name(problems, "forward_payload_header", &forward_payload_header)
    };
    let NormalizePayload { space_delimited_claims } =
        normalize_payload_in_metadata.unwrap_or_default();
    let cache = jwt_cache_config.map(|proto| {
        let proto::JwtCacheConfig { jwt_cache_size, jwt_max_token_size } = proto;
        let or = |value: u32, default| if value == 0 { default } else { value as usize };
        (or(jwt_cache_size, DEFAULT_CACHED_TOKENS), or(jwt_max_token_size, DEFAULT_CACHED_LENGTH))
    });
    let claim_to_headers: Vec<_> = claim_to_headers
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("claim_to_headers", index, |problems| {
                let proto::JwtClaimToHeader { header_name: name, claim_name, claim_path } = proto;
                let path: ClaimPath = match (claim_name.is_empty(), claim_path.is_empty()) {
                    (false, true) => claim_name.split('.').map(Into::into).collect(),
                    (true, false) => claim_path.into_iter().map(|it| it.key.into()).collect(),
                    _ => {
                        problems.reject("exactly one of claim_name, claim_path must be set");
                        return None;
                    }
                };
                Some((header_name(problems, "header_name", &name)?, path))
            })
        })
        .collect();
    Some(JwtProvider {
        name: name.into(),
        issuer: issuer.into(),
        audiences: comparable(audiences),
        subjects,
        max_lifetime,
        keys: keys?,
        locations,
        forward,
        forward_payload_header,
        pad_payload: pad_forward_payload_header,
        payload_in_metadata: optional(payload_in_metadata),
        space_delimited_claims: space_delimited_claims.into_iter().map(Into::into).collect(),
        header_in_metadata: optional(header_in_metadata),
        failed_status_in_metadata: optional(failed_status_in_metadata),
        clock_skew: if clock_skew_seconds == 0 { DEFAULT_SKEW } else { clock_skew_seconds.into() },
        cache,
        claim_to_headers: claim_to_headers.into(),
        clear_route_cache,
    })
}

fn locations(
    problems: &mut Problems,
    headers: Vec<proto::JwtHeader>,
    parameters: Vec<String>,
    cookies: Vec<String>,
) -> JwtLocations {
    if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
        return JwtLocations {
            headers: vec![(AUTHORIZATION, "Bearer ".into())],
            parameters: vec!["access_token".into()],
            cookies: Vec::new(),
        };
    }
    let mut headers: Vec<_> = headers
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            let proto::JwtHeader { name, value_prefix } = proto;
            problems.element("from_headers", index, |problems| {
                header_value(problems, "value_prefix", value_prefix.as_bytes());
                Some((header_name(problems, "name", &name)?, value_prefix.into()))
            })
        })
        .collect();
    let mut parameters: Vec<Box<str>> = parameters.into_iter().map(Into::into).collect();
    let mut cookies: Vec<Box<str>> = cookies.into_iter().map(Into::into).collect();
    // In Envoy's order, which decides which token is looked at first.
    headers.sort_by(|(a, x): &(http::HeaderName, Box<str>), (b, y)| {
        (a.as_str(), x).cmp(&(b.as_str(), y))
    });
    parameters.sort();
    cookies.sort();
    JwtLocations { headers, parameters, cookies }
}

fn keys(problems: &mut Problems, proto: Option<JwksSourceSpecifier>) -> Option<JwtKeys> {
    match proto {
        None => {
            problems.reject("one of remote_jwks, local_jwks is required");
            None
        }
        Some(JwksSourceSpecifier::LocalJwks(source)) => problems.field("local_jwks", |problems| {
            let bytes = data_source::read(problems, source)?;
            match Jwks::parse(&bytes) {
                Ok(jwks) => Some(JwtKeys::Local(Arc::new(jwks))),
                Err(reason) => {
                    problems.reject(format!("no key can be used: {reason}"));
                    None
                }
            }
        }),
        Some(JwksSourceSpecifier::RemoteJwks(proto)) => problems
            .field("remote_jwks", |problems| remote(problems, proto))
            .map(|remote| JwtKeys::Remote(Arc::new(remote))),
    }
}

fn remote(problems: &mut Problems, proto: proto::RemoteJwks) -> Option<RemoteJwks> {
    let proto::RemoteJwks { http_uri, cache_duration, async_fetch, retry_policy } = proto;
    let target = required(problems, "http_uri", http_uri)?;
    let target = problems.field("http_uri", |problems| http_uri::convert(problems, target));
    let cache_duration = positive_duration(problems, "cache_duration", cache_duration);
    let async_fetch = async_fetch.map(|proto| {
        // fast_listener: no listener waits for keys here; a request that needs them does.
        let proto::JwksAsyncFetch { fast_listener: _, failed_refetch_duration } = proto;
        problems.field("async_fetch", |problems| {
            positive_duration(problems, "failed_refetch_duration", failed_refetch_duration)
                .unwrap_or(DEFAULT_REFETCH)
        })
    });
    let retries = retry_policy
        .and_then(|proto| problems.field("retry_policy", |problems| retries(problems, proto)));
    let target = target?;
    Some(RemoteJwks {
        uri: target.path,
        host: target.host,
        cluster: target.cluster,
        timeout: target.timeout,
        cache_duration: cache_duration.unwrap_or(DEFAULT_CACHE),
        async_fetch,
        retries,
    })
}

/// Attempts after the first, and the back-off between them.
fn retries(problems: &mut Problems, proto: core::RetryPolicy) -> Option<(u32, Duration, Duration)> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = proto;
    unsupported!(problems; retry_on, retry_priority, retry_host_predicate);
    problems
        .unsupported("host_selection_retry_max_attempts", host_selection_retry_max_attempts != 0);
    let number = number_in(problems, "num_retries", num_retries, 0..=u32::MAX).unwrap_or(1);
    let (base, most) = match retry_back_off {
        None => (Duration::from_secs(1), Duration::from_secs(10)),
        Some(core::BackoffStrategy { base_interval, max_interval }) => {
            problems.field("retry_back_off", |problems| {
                let base = required(problems, "base_interval", base_interval)?;
                let base = positive_duration(problems, "base_interval", Some(base))?;
                let most = positive_duration(problems, "max_interval", max_interval)
                    .unwrap_or(base.saturating_mul(10));
                if most < base {
                    problems.reject_field("max_interval", "must not be less than base_interval");
                }
                Some((base, most))
            })?
        }
    };
    Some((number, base, most))
}
