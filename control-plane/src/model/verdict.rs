//! [`judge`]: what the policies of a configuration make of a request, by the rule that `translate` gives the sidecars as
//! filters: first what is denied, then what is not allowed.

use super::mesh::Action;
use super::policy::PathPattern;
use super::{Config, Policy};

/// A request, as far as policies see it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, with or without a query.
    pub path: &'a str,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is served.
    pub allowed: bool,
    /// The policy that decided; none: the mesh's default.
    pub policy: Option<String>,
    /// In words.
    pub reason: String,
}

/// Judges a request of `from` (a service, by its certificate) to `to`. `None`: a connection to a port without HTTP, where
/// a policy that asks for a method or path denies without it, and does not allow without it.
pub fn judge(config: &Config, from: &str, to: &str, request: Option<Request<'_>>) -> Verdict {
    let judging = || config.policies().filter(|policy| policy.to.iter().any(|it| it.service == to));
    let deciding = |action: Action| {
        judging().find(|policy| policy.action == action && matches(policy, from, request))
    };
    if let Some(policy) = deciding(Action::Deny) {
        return by(policy, false);
    }
    match (config.mesh().default_action, deciding(Action::Allow)) {
        (Action::Deny, Some(policy)) => by(policy, true),
        (Action::Deny, None) => Verdict {
            allowed: false,
            policy: None,
            reason:
                "no policy allows it, and the mesh denies what none allows (`defaultAction: deny`)"
                    .to_owned(),
        },
        (Action::Allow, _) => Verdict {
            allowed: true,
            policy: None,
            reason:
                "no policy denies it, and the mesh allows what none denies (`defaultAction: allow`)"
                    .to_owned(),
        },
    }
}

fn by(policy: &Policy, allowed: bool) -> Verdict {
    let verb = if allowed { "allows" } else { "denies" };
    let reason = format!("Policy `{}` {verb} it", policy.name);
    Verdict { allowed, policy: Some(policy.name.clone()), reason }
}

fn matches(policy: &Policy, from: &str, request: Option<Request<'_>>) -> bool {
    if !policy.from.is_empty() && !policy.from.iter().any(|it| it.service == from) {
        return false;
    }
    let Some(Request { method, path }) = request else {
        let about_requests = !policy.methods.is_empty() || !policy.paths.is_empty();
        return policy.action == Action::Deny || !about_requests;
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let path_fits = |pattern: &PathPattern| match pattern {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Prefix(prefix) => path.starts_with(prefix.as_str()),
    };
    (policy.methods.is_empty() || policy.methods.iter().any(|it| it == method))
        && (policy.paths.is_empty() || policy.paths.iter().any(path_fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{plan, read};

    fn config(default_action: &str) -> Config {
        let text = format!(
            "{{kind: Mesh, name: default, spec: {{defaultAction: {default_action}}}}}
---
{{kind: Service, name: api, spec: {{ports: [{{port: 1, protocol: http}}, {{port: 2, protocol: tcp}}]}}}}
---
{{kind: Policy, name: read, spec: {{to: [{{service: api}}], action: allow, from: [{{service: web}}], methods: [GET], paths: ['/v1/*', /health]}}}}
---
{{kind: Policy, name: no-secrets, spec: {{to: [{{service: api}}], action: deny, paths: ['/v1/secret*']}}}}
"
        );
        let (documents, problems) = read::documents(&text);
        assert_eq!(problems, []);
        plan::plan(&Config::default(), &documents).unwrap().config
    }

    fn judged(
        default_action: &str,
        from: &str,
        method: &str,
        path: &str,
    ) -> (bool, Option<String>) {
        let verdict = judge(&config(default_action), from, "api", Some(Request { method, path }));
        (verdict.allowed, verdict.policy)
    }

    #[test]
    fn deny_wins_then_allow_then_the_default() {
        let read = || Some("read".to_owned());
        let secret = || Some("no-secrets".to_owned());
        assert_eq!(judged("deny", "web", "GET", "/v1/x?y=1"), (true, read()));
        assert_eq!(judged("deny", "web", "GET", "/health"), (true, read()));
        assert_eq!(judged("deny", "web", "GET", "/healthy"), (false, None));
        assert_eq!(judged("deny", "web", "POST", "/v1/x"), (false, None));
        assert_eq!(judged("deny", "job", "GET", "/v1/x"), (false, None));
        assert_eq!(judged("deny", "web", "GET", "/v1/secrets"), (false, secret()));
        assert_eq!(judged("allow", "job", "POST", "/v2"), (true, None));
        assert_eq!(judged("allow", "job", "POST", "/v1/secret"), (false, secret()));
    }

    #[test]
    fn a_connection_without_requests_is_denied_by_any_deny_and_allowed_by_whole_allows_only() {
        let verdict = judge(&config("deny"), "web", "api", None);
        assert_eq!((verdict.allowed, verdict.policy.as_deref()), (false, Some("no-secrets")));
    }
}
