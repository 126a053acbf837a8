//! Reading of a Route's filters.

use super::fields::{At, Fields, Scope};
use super::values;
use crate::model::problem::{Code, Problem};
use crate::model::route::{
    Abort, Delay, FaultInjection, Filter, HeaderModifier, HeaderValue, PathModifier,
    RequestRedirect, UrlRewrite,
};

#[derive(Clone, Copy)]
enum Type {
    RequestHeaders,
    ResponseHeaders,
    Redirect,
    Rewrite,
    Fault,
}

pub(super) fn read(scope: &mut Scope, at: At<'_>) -> Option<Vec<Filter>> {
    let filters = scope.list(at, filter);
    scope.refuse_duplicates(at, "type", filters.iter().map(Filter::type_name));
    let redirects = filters.iter().any(|filter| matches!(filter, Filter::RequestRedirect(_)));
    if redirects && filters.iter().any(|filter| matches!(filter, Filter::UrlRewrite(_))) {
        scope.invalid(at, "a rule either redirects or rewrites");
    }
    Some(filters)
}

fn filter(scope: &mut Scope, at: At<'_>) -> Option<Filter> {
    scope.mapping(at, |fields| {
        let kind = fields.required("type", |scope, at| {
            let choices = [
                ("RequestHeaderModifier", Type::RequestHeaders),
                ("ResponseHeaderModifier", Type::ResponseHeaders),
                ("RequestRedirect", Type::Redirect),
                ("URLRewrite", Type::Rewrite),
                ("FaultInjection", Type::Fault),
            ];
            values::choice(scope, at, &choices, &["RequestMirror"])
        });
        let Some(kind) = kind else {
            // Which body belongs here is not known.
            for key in BODIES {
                fields.optional(key, |_, _| Some(()));
            }
            return None;
        };
        match kind {
            Type::RequestHeaders => fields
                .required("requestHeaderModifier", modifier)
                .map(Filter::RequestHeaderModifier),
            Type::ResponseHeaders => fields
                .required("responseHeaderModifier", modifier)
                .map(Filter::ResponseHeaderModifier),
            Type::Redirect => {
                fields.required("requestRedirect", redirect).map(Filter::RequestRedirect)
            }
            Type::Rewrite => fields.required("urlRewrite", rewrite).map(Filter::UrlRewrite),
            Type::Fault => fields.required("faultInjection", fault).map(Filter::FaultInjection),
        }
    })
}

const BODIES: [&str; 6] = [
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestRedirect",
    "urlRewrite",
    "requestMirror",
    "faultInjection",
];

fn modifier(scope: &mut Scope, at: At<'_>) -> Option<HeaderModifier> {
    scope.mapping(at, |fields| {
        let modifier = HeaderModifier {
            set: fields.optional("set", headers).unwrap_or_default(),
            add: fields.optional("add", headers).unwrap_or_default(),
            remove: fields
                .optional("remove", |scope, at| Some(scope.list(at, modifiable_name)))
                .unwrap_or_default(),
        };
        if !(fields.has("set") || fields.has("add") || fields.has("remove")) {
            fields.missing("set", "one of `set`, `add` and `remove` is needed");
        }
        Some(modifier)
    })
}

fn headers(scope: &mut Scope, at: At<'_>) -> Option<Vec<HeaderValue>> {
    let headers = scope.list(at, |scope, at| {
        scope.mapping(at, |fields| {
            let name = fields.required("name", modifiable_name);
            let value = fields.required("value", values::header_value);
            Some(HeaderValue { name: name?, value: value? })
        })
    });
    scope.refuse_duplicates(at, "name", headers.iter().map(|header| header.name.as_str()));
    Some(headers)
}

/// Headers that say where a message ends or where it goes are not for filters to change.
const RESERVED: [&str; 7] =
    ["host", "connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"];

fn modifiable_name(scope: &mut Scope, at: At<'_>) -> Option<String> {
    let name = values::header_name(scope, at)?;
    if RESERVED.contains(&name.as_str()) {
        let mut reason = format!("the header `{name}` cannot be modified");
        if name == "host" {
            reason.push_str(": use a URLRewrite filter with `hostname`");
        }
        scope.invalid(at, reason);
    }
    Some(name)
}

fn fault(scope: &mut Scope, at: At<'_>) -> Option<FaultInjection> {
    scope.mapping(at, |fields| {
        let delay = fields.optional("delay", |scope, at| {
            scope.mapping(at, |fields| {
                let duration = fields.required("duration", values::positive_duration);
                let percent = fields.optional("percent", percent).unwrap_or(100);
                Some(Delay { duration: duration?, percent })
            })
        });
        let abort = fields.optional("abort", |scope, at| {
            scope.mapping(at, |fields| {
                let status =
                    fields.required("httpStatus", |scope, at| values::number(scope, at, 200..=599));
                let percent = fields.optional("percent", percent).unwrap_or(100);
                Some(Abort { http_status: u16::try_from(status?).ok()?, percent })
            })
        });
        if !(fields.has("delay") || fields.has("abort")) {
            fields.missing("abort", "one of `delay` and `abort` is needed");
        }
        Some(FaultInjection { delay, abort })
    })
}

fn percent(scope: &mut Scope, at: At<'_>) -> Option<u8> {
    values::number(scope, at, 0..=100).and_then(|percent| u8::try_from(percent).ok())
}

fn redirect(scope: &mut Scope, at: At<'_>) -> Option<RequestRedirect> {
    scope.mapping(at, |fields| {
        let scheme = fields.optional("scheme", |scope, at| {
            values::choice(scope, at, &[("http", "http"), ("https", "https")], &[])
        });
        let hostname = fields.optional("hostname", values::host_name);
        let port = fields.optional("port", values::port);
        let path = fields.optional("path", path_modifier);
        let status_code = fields.optional("statusCode", status_code);
        if !["scheme", "hostname", "port", "path"].into_iter().any(|key| fields.has(key)) {
            fields.missing(
                "hostname",
                "one of `scheme`, `hostname`, `port` and `path` is needed: the redirect would lead to itself",
            );
        }
        Some(RequestRedirect {
            scheme: scheme.map(str::to_owned),
            hostname,
            port,
            path,
            status_code: status_code.unwrap_or(302),
        })
    })
}

fn status_code(scope: &mut Scope, at: At<'_>) -> Option<u16> {
    const CODES: [u16; 5] = [301, 302, 303, 307, 308];
    let code = values::number(scope, at, 100..=599)?;
    let known = CODES.into_iter().find(|known| u32::from(*known) == code);
    if known.is_none() {
        let words = CODES.map(|code| code.to_string());
        let mut problem = Problem::new(Code::UnknownValue, format!("{code} is not a redirect"))
            .choices("", words.iter().map(String::as_str));
        problem.suggestion = None;
        scope.problem(problem, at.path, at.node.at);
    }
    known
}

fn rewrite(scope: &mut Scope, at: At<'_>) -> Option<UrlRewrite> {
    scope.mapping(at, |fields| {
        let hostname = fields.optional("hostname", values::host_name);
        let path = fields.optional("path", path_modifier);
        if !(fields.has("hostname") || fields.has("path")) {
            fields.missing("path", "one of `hostname` and `path` is needed");
        }
        Some(UrlRewrite { hostname, path })
    })
}

fn path_modifier(scope: &mut Scope, at: At<'_>) -> Option<PathModifier> {
    scope.mapping(at, |fields: &mut Fields<'_, '_>| {
        let full = fields.required("type", |scope, at| {
            let choices = [("ReplaceFullPath", true), ("ReplacePrefixMatch", false)];
            values::choice(scope, at, &choices, &[])
        });
        match full {
            Some(true) => {
                fields.required("replaceFullPath", values::path).map(PathModifier::ReplaceFullPath)
            }
            Some(false) => fields
                .required("replacePrefixMatch", values::path)
                .map(PathModifier::ReplacePrefixMatch),
            None => {
                fields.optional("replaceFullPath", |_, _| Some(()));
                fields.optional("replacePrefixMatch", |_, _| Some(()));
                None
            }
        }
    })
}
