//! What a service is told of a request.

use http::header;
use http::uri::PathAndQuery;

use super::Sent;
use crate::config::ext_authz::{AuthService, ExtAuthz};
use crate::http::filters::Passage;

/// A request as the service gets it.
pub(super) struct Question {
    /// Headers with the parts of the request line among them, names in lower case, each line by itself.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Option<Sent>,
}

impl Question {
    pub(super) fn new(config: &ExtAuthz, passage: &Passage<'_>, body: Option<Sent>) -> Self {
        let view = passage.view();
        let request = &passage.request;
        let path = request.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let parts = [
            (":authority", view.authority),
            (":method", request.method.as_str()),
            (":path", path),
            (":scheme", view.scheme),
        ];
        let mut headers: Vec<(String, Vec<u8>)> =
            parts.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        for (name, value) in &request.headers {
            if *name != header::HOST {
                headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
            }
        }
        if let Some(sent) = &body {
            let partial = if sent.partial { "true" } else { "false" };
            headers.push(("x-envoy-auth-partial-body".to_owned(), partial.into()));
        }
        headers.retain(|(name, _)| is_told(config, name));
        if !config.raw_headers {
            headers = joined(headers);
        }
        Self { headers, body }
    }
}

/// Headers that an HTTP service always gets.
const USUAL: [&str; 5] = [":authority", ":method", ":path", "content-length", "authorization"];

fn is_told(config: &ExtAuthz, name: &str) -> bool {
    let any = |matchers: &[crate::config::matcher::StringMatcher]| {
        matchers.iter().any(|matcher| matcher.matches(name.as_bytes()))
    };
    if any(&config.disallowed_headers) {
        return false;
    }
    let is_http = matches!(config.service, AuthService::Http(_));
    match &config.allowed_headers {
        Some(allowed) => any(allowed) || is_http && USUAL.contains(&name),
        None => !is_http || USUAL.contains(&name),
    }
}

/// Lines of one name become one, and bytes that are no text exclamation marks, as in Envoy.
fn joined(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let value = match std::str::from_utf8(&value) {
            Ok(_) => value,
            Err(_) => value.iter().map(|byte| if byte.is_ascii() { *byte } else { b'!' }).collect(),
        };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => {
                before.push(b',');
                before.extend(value);
            }
            None => all.push((name, value)),
        }
    }
    all
}
