//! What of a request is hashed.

use std::fmt::Write;

use http::HeaderValue;
use outrigger_proto::envoy::config::route::v3::route_action as proto;
use outrigger_proto::envoy::config::route::v3::route_action::hash_policy::{
    self as parts, PolicySpecifier,
};

use crate::config::Problems;
use crate::config::hash_policy::{HashCookie, HashPolicy, HashSource};

use super::common::{duration, text};
use super::matcher;

/// The list in the field `hash_policy`.
pub(super) fn convert(problems: &mut Problems, protos: Vec<proto::HashPolicy>) -> Vec<HashPolicy> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element("hash_policy", index, |problems| policy(problems, proto))
        })
        .collect()
}

fn policy(problems: &mut Problems, proto: proto::HashPolicy) -> Option<HashPolicy> {
    let proto::HashPolicy { terminal, policy_specifier } = proto;
    let source = match policy_specifier {
        None => {
            problems.reject(
                "one of header, cookie, connection_properties, query_parameter, filter_state is required",
            );
            None
        }
        Some(PolicySpecifier::Header(proto)) => {
            problems.field("header", |problems| header(problems, proto))
        }
        Some(PolicySpecifier::Cookie(proto)) => {
            problems.field("cookie", |problems| cookie(problems, proto))
        }
        // As in Envoy, without `source_ip` it says nothing, not even that it is the last.
        Some(PolicySpecifier::ConnectionProperties(parts::ConnectionProperties { source_ip })) => {
            source_ip.then_some(HashSource::SourceIp)
        }
        Some(PolicySpecifier::QueryParameter(parts::QueryParameter { name })) => {
            let name = problems.field("query_parameter", |problems| text(problems, "name", name));
            Some(HashSource::QueryParameter(name.into()))
        }
        Some(PolicySpecifier::FilterState(parts::FilterState { key })) => {
            let key = problems.field("filter_state", |problems| text(problems, "key", key));
            Some(HashSource::FilterState(key.into()))
        }
    };
    Some(HashPolicy { source: source?, terminal })
}

fn header(problems: &mut Problems, proto: parts::Header) -> Option<HashSource> {
    let parts::Header { header_name, regex_rewrite } = proto;
    let name = matcher::matched_header(problems, "header_name", &header_name);
    let rewrite = regex_rewrite.map(|proto| {
        problems.field("regex_rewrite", |problems| matcher::substitute(problems, proto))
    });
    Some(HashSource::Header {
        name: name?,
        rewrite: match rewrite {
            None => None,
            Some(rewrite) => Some(rewrite?),
        },
    })
}

fn cookie(problems: &mut Problems, proto: parts::Cookie) -> Option<HashSource> {
    let parts::Cookie { name, ttl, path, attributes } = proto;
    let name = text(problems, "name", name);
    let generated = ttl.is_some();
    // Whole seconds count. Zero makes a cookie of the browser's session.
    let ttl = duration(problems, "ttl", ttl).map_or(0, |ttl| ttl.as_secs());
    let mut after = String::new();
    if ttl > 0 {
        let _ = write!(after, "; Max-Age={ttl}");
    }
    if !path.is_empty() {
        let _ = write!(after, "; Path={path}");
    }
    for (index, parts::CookieAttribute { name, value }) in attributes.into_iter().enumerate() {
        problems.element("attributes", index, |problems| text(problems, "name", name.clone()));
        let separator = if value.is_empty() { "" } else { "=" };
        let _ = write!(after, "; {name}{separator}{value}");
    }
    after.push_str("; HttpOnly");
    if HeaderValue::from_str(&format!("{name}{after}")).is_err() {
        problems.reject("contains a character that no cookie may have");
    }
    let attributes = generated.then(|| after.into());
    Some(HashSource::Cookie(HashCookie { name: name.into(), attributes }))
}
