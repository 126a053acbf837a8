//! Reading of kind `Route`: hosts, rules, matches and backends. Filters are in [`super::filter`].

use super::fields::{At, Scope};
use super::{Meta, filter, service, values};
use crate::model::Route;
use crate::model::problem::{Code, Problem};
use crate::model::route::{
    BackendRef, Filter, Match, PathMatch, PathModifier, RouteTimeouts, Rule, StringMatch,
    ValueMatch,
};

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Route> {
    scope.mapping(at, |spec| {
        let gateway = spec.optional("gateway", values::name);
        let at_gateway = spec.has("gateway");
        let host = |scope: &mut Scope, at: At<'_>| values::host_pattern(scope, at, at_gateway);
        let hosts = spec.required("hosts", |scope, at| {
            let hosts = scope.list_of_some(at, host);
            scope.refuse_duplicates(at, "", hosts.iter().map(String::as_str));
            Some(hosts)
        });
        let rules = spec.required("rules", |scope, at| Some(scope.list_of_some(at, rule)));
        Some(Route { name: meta.name, labels: meta.labels, gateway, hosts: hosts?, rules: rules? })
    })
}

fn rule(scope: &mut Scope, at: At<'_>) -> Option<Rule> {
    scope.mapping(at, |fields| {
        let matches = fields
            .optional("matches", |scope, at| Some(scope.list(at, request_match)))
            .unwrap_or_default();
        let filters = fields.optional("filters", filter::read).unwrap_or_default();
        let backend_refs = fields
            .optional("backendRefs", |scope, at| Some(scope.list_of_some(at, backend_ref)))
            .unwrap_or_default();
        let timeouts = fields.optional("timeouts", timeouts).unwrap_or_default();
        let retry = fields.optional("retry", service::retry);
        let rule = Rule { matches, filters, backend_refs, timeouts, retry };
        match (rule.redirect(), fields.has("backendRefs")) {
            (None, false) => {
                fields.missing(
                    "backendRefs",
                    "a rule needs backendRefs, or a RequestRedirect filter",
                );
            }
            (Some(_), true) => {
                fields.optional("backendRefs", |scope, at| -> Option<()> {
                    scope.invalid(at, "a rule that redirects has no backendRefs");
                    None
                });
            }
            _ => {}
        }
        if !rule.backend_refs.is_empty() && rule.backend_refs.iter().all(|to| to.weight == 0) {
            fields.optional("backendRefs", |scope, at| -> Option<()> {
                scope.invalid(at, "one weight must be more than zero");
                None
            });
        }
        fields.optional("filters", |scope, at| -> Option<()> {
            check_path_modifiers(scope, at, &rule);
            None
        });
        Some(rule)
    })
}

/// A prefix can only be replaced where one matched; the whole path of a request that goes on, only where it is known.
fn check_path_modifiers(scope: &mut Scope, at: At<'_>, rule: &Rule) {
    let all_prefixes =
        rule.matches.iter().all(|one| matches!(one.path, None | Some(PathMatch::PathPrefix(_))));
    let all_exact = !rule.matches.is_empty()
        && rule.matches.iter().all(|one| matches!(one.path, Some(PathMatch::Exact(_))));
    for (index, filter) in rule.filters.iter().enumerate() {
        let (key, modifier, rewrites) = match filter {
            Filter::RequestRedirect(redirect) => ("requestRedirect", redirect.path.as_ref(), false),
            Filter::UrlRewrite(rewrite) => ("urlRewrite", rewrite.path.as_ref(), true),
            _ => continue,
        };
        let problem = match modifier {
            Some(PathModifier::ReplacePrefixMatch(_)) if !all_prefixes => Problem::new(
                Code::InvalidValue,
                "ReplacePrefixMatch needs that each match of the rule has a path of type PathPrefix",
            ),
            Some(PathModifier::ReplaceFullPath(_)) if rewrites && !all_exact => Problem::new(
                Code::NotSupported,
                "a URLRewrite with ReplaceFullPath is supported by this version only if each match of the rule has a path of type Exact",
            ),
            _ => continue,
        };
        let path = format!("{}[{index}].{key}.path", at.path);
        let position = at.node.position_of(&format!("[{index}].{key}.path"));
        scope.problem(problem, &path, position);
    }
}

fn request_match(scope: &mut Scope, at: At<'_>) -> Option<Match> {
    scope.mapping(at, |fields| {
        let headers = fields
            .optional("headers", |scope, at| value_matches(scope, at, values::header_name))
            .unwrap_or_default();
        let query_params = fields
            .optional("queryParams", |scope, at| value_matches(scope, at, values::query_name))
            .unwrap_or_default();
        Some(Match {
            path: fields.optional("path", path_match),
            method: fields.optional("method", values::method),
            headers,
            query_params,
        })
    })
}

#[derive(Clone, Copy)]
enum PathType {
    Exact,
    Prefix,
    Regex,
}

fn path_match(scope: &mut Scope, at: At<'_>) -> Option<PathMatch> {
    scope.mapping(at, |fields| {
        let kind = fields.optional("type", |scope, at| {
            let choices = [
                ("Exact", PathType::Exact),
                ("PathPrefix", PathType::Prefix),
                ("RegularExpression", PathType::Regex),
            ];
            values::choice(scope, at, &choices, &[])
        });
        fields.required("value", |scope, at| match kind.unwrap_or(PathType::Prefix) {
            PathType::Exact => values::path(scope, at).map(PathMatch::Exact),
            PathType::Prefix => values::path(scope, at).map(|path| {
                // `/v1/` and `/v1` are the same prefix, element by element.
                let trimmed = path.trim_end_matches('/');
                PathMatch::PathPrefix(if trimmed.is_empty() {
                    "/".to_owned()
                } else {
                    trimmed.to_owned()
                })
            }),
            PathType::Regex => {
                values::regular_expression(scope, at).map(PathMatch::RegularExpression)
            }
        })
    })
}

fn value_matches(
    scope: &mut Scope,
    at: At<'_>,
    read_name: fn(&mut Scope, At<'_>) -> Option<String>,
) -> Option<Vec<ValueMatch>> {
    let matches = scope.list(at, |scope, at| {
        scope.mapping(at, |fields| {
            let regex = fields.optional("type", |scope, at| {
                values::choice(scope, at, &[("Exact", false), ("RegularExpression", true)], &[])
            });
            let name = fields.required("name", read_name);
            let value = fields.required("value", |scope, at| {
                if regex == Some(true) {
                    return values::regular_expression(scope, at)
                        .map(StringMatch::RegularExpression);
                }
                values::header_value(scope, at).map(StringMatch::Exact)
            });
            Some(ValueMatch { name: name?, value: value? })
        })
    });
    scope.refuse_duplicates(at, "name", matches.iter().map(|one| one.name.as_str()));
    Some(matches)
}

fn backend_ref(scope: &mut Scope, at: At<'_>) -> Option<BackendRef> {
    scope.mapping(at, |fields| {
        let name = fields.required("name", values::name);
        let port = fields.optional("port", values::port);
        let subset = fields.optional("subset", values::name);
        let weight =
            fields.optional("weight", |scope, at| values::number(scope, at, 0..=1_000_000));
        fields.not_supported(&["filters"]);
        Some(BackendRef { name: name?, port, subset, weight: weight.unwrap_or(1) })
    })
}

fn timeouts(scope: &mut Scope, at: At<'_>) -> Option<RouteTimeouts> {
    scope.mapping(at, |fields| {
        fields.not_supported(&["backendRequest"]);
        Some(RouteTimeouts { request: fields.optional("request", values::duration) })
    })
}
