//! A service that is an HTTP server: it gets the head of the request, and allows it by answering 200.

use http::header::{self, CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, Version};
use serde_json::Map;

use super::MOST;
use super::question::Question;
use super::verdict::{Action, Change, Changes, Decision, Denial, Verdict};
use crate::config::ext_authz::AuthHttp;
use crate::config::header::AppendAction;
use crate::config::matcher::StringMatcher;
use crate::http::call;
use crate::http::filters::Passage;

/// Names the headers that an answer which allows takes away from the request.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Asks the service. Whatever goes wrong is a decision of nobody.
pub(super) async fn ask(service: &AuthHttp, question: &Question, passage: &Passage<'_>) -> Verdict {
    let body = question.body.as_ref().map(|sent| sent.data.clone()).unwrap_or_default();
    let length = body.len();
    let mut request = Request::new(body);
    let headers = request.headers_mut();
    for (name, value) in &question.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value);
        // Parts of the request line follow below; the length is that of what is sent.
        if let (Ok(name), Ok(value)) = (name, value)
            && name != CONTENT_LENGTH
        {
            headers.append(name, value);
        }
    }
    for (name, value) in &service.headers_to_add {
        headers.insert(name, value.clone());
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    call::mark(headers, service.timeout);
    let view = passage.view();
    if let Ok(host) = HeaderValue::from_str(view.authority) {
        headers.insert(HOST, host);
    }
    *request.method_mut() = view.method.clone();
    let path = if service.path_override.is_empty() {
        format!("{}{}", service.path_prefix, view.path_and_query)
    } else {
        service.path_override.to_string()
    };
    let Ok(path) = PathAndQuery::try_from(path) else { return Verdict::failed() };
    *request.uri_mut() = Uri::from(path);
    let local = &passage.connection.local;
    let answer =
        call::call(local, &service.cluster, request, Version::HTTP_11, service.timeout, MOST).await;
    match answer {
        Ok(answer) => verdict(service, answer),
        Err(error) => {
            tracing::debug!(cluster = %service.cluster, %error, "no decision of the service");
            Verdict::failed()
        }
    }
}

fn verdict(service: &AuthHttp, answer: call::Answer) -> Verdict {
    let headers = &answer.head.headers;
    let taken = |matchers: &[StringMatcher], action: Action| -> Vec<Change> {
        headers
            .iter()
            .filter(|(name, _)| {
                matchers.iter().any(|matcher| matcher.matches(name.as_str().as_bytes()))
            })
            .map(|(name, value)| change(name, value, action))
            .collect()
    };
    let status = answer.head.status;
    if status.is_server_error() {
        return Verdict::failed();
    }
    let mut metadata = Map::new();
    let set = Action::As(AppendAction::OverwriteIfExistsOrAdd);
    let add = Action::As(AppendAction::AppendIfExistsOrAdd);
    for change in taken(&service.metadata_headers, set) {
        let value = String::from_utf8_lossy(&change.value).into_owned();
        metadata.insert(change.name, value.into());
    }
    if status == StatusCode::OK {
        let remove = headers.get_all(TO_REMOVE).iter().filter_map(|line| line.to_str().ok());
        let remove = remove
            .flat_map(|line| line.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty());
        let remove = remove.collect();
        let mut request = taken(&service.upstream_headers, set);
        request.extend(taken(&service.upstream_headers_to_append, add));
        let changes = Changes {
            request,
            remove,
            response: taken(&service.client_headers_on_success, add),
            ..Changes::default()
        };
        return Verdict { decision: Decision::Allowed(Box::new(changes)), metadata };
    }
    let told = |name: &HeaderName| match &service.client_headers {
        None => true,
        Some(matchers) => {
            matchers.iter().any(|matcher| matcher.matches(name.as_str().as_bytes()))
                || [header::WWW_AUTHENTICATE, header::LOCATION].contains(name)
        }
    };
    let own =
        [CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING, header::DATE, TO_REMOVE];
    let headers = headers
        .iter()
        .filter(|(name, _)| told(name) && !own.contains(name))
        .map(|(name, value)| change(name, value, add))
        .collect();
    let denial = Denial { status, headers, body: answer.body };
    Verdict { decision: Decision::Denied(Box::new(denial)), metadata }
}

fn change(name: &HeaderName, value: &HeaderValue, action: Action) -> Change {
    Change { name: name.as_str().to_owned(), value: value.as_bytes().to_vec(), action }
}
