//! `internal_redirect_policy`

use http::StatusCode;
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::config::route::v3::InternalRedirectPolicy;
use outrigger_proto::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use outrigger_proto::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use outrigger_proto::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;

use crate::config::Problems;
use crate::config::internal_redirect::{InternalRedirect, RedirectPredicate};

use super::common::{header_name, number, typed_config, unknown_type, unpack};

/// What can be followed at all. As in Envoy other statuses do not count.
const STATUSES: [u32; 5] = [301, 302, 303, 307, 308];

/// The field `internal_redirect_policy`.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<InternalRedirectPolicy>,
) -> Option<Box<InternalRedirect>> {
    let InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = proto?;
    problems.field("internal_redirect_policy", |problems| {
        let statuses = if redirect_response_codes.is_empty() {
            vec![StatusCode::FOUND]
        } else {
            let codes = redirect_response_codes.into_iter().filter(|code| STATUSES.contains(code));
            codes.filter_map(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()).collect()
        };
        let predicates = predicates.into_iter().enumerate().filter_map(|(index, proto)| {
            problems.element("predicates", index, |problems| predicate(problems, proto))
        });
        let predicates = predicates.collect();
        let headers = response_headers_to_copy.iter().enumerate().filter_map(|(index, name)| {
            let place = format!("response_headers_to_copy[{index}]");
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                problems.reject_field(&place, "the target of a request is not copied");
                return None;
            }
            header_name(problems, &place, name)
        });
        let headers_to_copy = headers.collect();
        Some(Box::new(InternalRedirect {
            max: number(max_internal_redirects).unwrap_or(1),
            statuses,
            predicates,
            allow_cross_scheme: allow_cross_scheme_redirect,
            headers_to_copy,
        }))
    })
}

fn predicate(problems: &mut Problems, proto: TypedExtensionConfig) -> Option<RedirectPredicate> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if any::holds::<AllowListedRoutesConfig>(&config) {
            let AllowListedRoutesConfig { allowed_route_names } = unpack(problems, &config)?;
            let names = allowed_route_names.into_iter().map(Into::into).collect();
            Some(RedirectPredicate::AllowListedRoutes(names))
        } else if any::holds::<PreviousRoutesConfig>(&config) {
            let PreviousRoutesConfig {} = unpack(problems, &config)?;
            Some(RedirectPredicate::PreviousRoutes)
        } else if any::holds::<SafeCrossSchemeConfig>(&config) {
            let SafeCrossSchemeConfig {} = unpack(problems, &config)?;
            Some(RedirectPredicate::SafeCrossScheme)
        } else {
            let known =
                ["AllowListedRoutesConfig", "PreviousRoutesConfig", "SafeCrossSchemeConfig"];
            unknown_type(problems, &config, &known);
            None
        }
    })
}
