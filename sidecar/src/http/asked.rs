//! What a client asks for by `x-envoy-*` headers: timeouts, retries, hedging.
//!
//! Only internal clients may; from all others the headers are gone before this is reached. A filter may set them too. Each
//! is read where the router needs it and does not go upstream. Rules are Envoy's (documentation of the router filter).

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

use super::headers::{
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT, X_ENVOY_MAX_RETRIES,
    X_ENVOY_RETRIABLE_HEADER_NAMES, X_ENVOY_RETRIABLE_STATUS_CODES, X_ENVOY_RETRY_GRPC_ON,
    X_ENVOY_RETRY_ON, X_ENVOY_UPSTREAM_ALT_STAT_NAME, X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE, X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
};
use crate::config::route::RetryOn;

/// How long the request may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Of the route; zero is none.
    pub(crate) timeout: Option<Duration>,
    /// Of one attempt; zero is none.
    pub(crate) per_try_timeout: Option<Duration>,
    /// Longest life of an attempt, response included; zero is none.
    pub(crate) stream_duration: Option<Duration>,
    /// Begin another attempt beside one that is over its timeout.
    pub(crate) hedge: Option<bool>,
    /// Answer a timeout with 204.
    pub(crate) no_content_on_timeout: bool,
}

impl Asked {
    /// Takes it out of the headers. `respect_expected`: the timeout that a proxy in front expects counts first, and stays.
    pub(crate) fn take(headers: &mut HeaderMap, respect_expected: bool) -> Self {
        // It would name statistics that are never kept: a client could make any number of them.
        headers.remove(X_ENVOY_UPSTREAM_ALT_STAT_NAME);
        let hedge = match headers.remove(X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT) {
            Some(value) if value == "true" => Some(true),
            Some(value) if value == "false" => Some(false),
            _ => None,
        };
        let timeout = if respect_expected && headers.contains_key(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS) {
            milliseconds(headers, &X_ENVOY_EXPECTED_RQ_TIMEOUT_MS)
        } else {
            take_milliseconds(headers, &X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS)
        };
        let alternative = headers.remove(X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE);
        Self {
            timeout,
            per_try_timeout: take_milliseconds(headers, &X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS),
            stream_duration: take_milliseconds(headers, &X_ENVOY_UPSTREAM_STREAM_DURATION_MS),
            hedge,
            no_content_on_timeout: alternative.is_some(),
        }
    }
}

/// When and how often the request is tried again, beside what its route says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AskedRetries {
    pub(crate) on: RetryOn,
    /// Instead of the route's number.
    pub(crate) max: Option<u32>,
    pub(crate) statuses: Vec<StatusCode>,
    /// Response headers whose presence is enough.
    pub(crate) headers: Vec<HeaderName>,
}

impl AskedRetries {
    /// Takes it out of the headers; `None` if nothing is asked for.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Box<Self>> {
        let mut on = RetryOn::default();
        let conditions = [
            (X_ENVOY_RETRY_ON, RetryOn::HTTP_CONDITIONS),
            (X_ENVOY_RETRY_GRPC_ON, RetryOn::GRPC_CONDITIONS),
        ];
        for (name, of_this_header) in conditions {
            if let Some(value) = headers.remove(name) {
                on = list(&value)
                    .filter_map(RetryOn::parse)
                    .filter(|condition| of_this_header.contains(*condition))
                    .fold(on, RetryOn::union);
            }
        }
        let max = headers.remove(X_ENVOY_MAX_RETRIES).and_then(|value| number(&value));
        let statuses = headers.remove(X_ENVOY_RETRIABLE_STATUS_CODES);
        let names = headers.remove(X_ENVOY_RETRIABLE_HEADER_NAMES);
        let asked = Self {
            on,
            max: max.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
            statuses: statuses
                .iter()
                .flat_map(list)
                .filter_map(|code| StatusCode::from_bytes(code.as_bytes()).ok())
                .collect(),
            headers: names
                .iter()
                .flat_map(list)
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect(),
        };
        (asked != Self::default()).then(|| Box::new(asked))
    }
}

fn list(value: &http::HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

fn number(value: &http::HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

fn milliseconds(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    headers.get(name).and_then(number).map(Duration::from_millis)
}

fn take_milliseconds(headers: &mut HeaderMap, name: &HeaderName) -> Option<Duration> {
    headers.remove(name).as_ref().and_then(number).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_asked_for_does_not_stay_in_the_headers() {
        let mut headers = headers(&[
            (X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, "250"),
            (X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS, " 100"),
            (X_ENVOY_UPSTREAM_STREAM_DURATION_MS, "x"),
            (X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE, ""),
            (X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT, "true"),
            (X_ENVOY_UPSTREAM_ALT_STAT_NAME, "mine"),
        ]);
        let asked = Asked::take(&mut headers, false);
        assert_eq!(asked.timeout, Some(Duration::from_millis(250)));
        assert_eq!(asked.per_try_timeout, Some(Duration::from_millis(100)));
        assert_eq!(asked.stream_duration, None);
        assert_eq!(asked.hedge, Some(true));
        assert!(asked.no_content_on_timeout);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn an_expected_timeout_counts_only_where_it_is_respected() {
        for (respect, expected) in [(true, 70), (false, 250)] {
            let mut headers = headers(&[
                (X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, "70"),
                (X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, "250"),
            ]);
            let asked = Asked::take(&mut headers, respect);
            assert_eq!(asked.timeout, Some(Duration::from_millis(expected)));
            assert!(headers.contains_key(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS));
        }
    }

    #[test]
    fn each_list_of_conditions_has_its_own_words() {
        let mut headers = headers(&[
            (X_ENVOY_RETRY_ON, "5xx, cancelled, nonsense"),
            (X_ENVOY_RETRY_GRPC_ON, "unavailable,reset"),
            (X_ENVOY_MAX_RETRIES, "4"),
            (X_ENVOY_RETRIABLE_STATUS_CODES, "404, x,503"),
            (X_ENVOY_RETRIABLE_HEADER_NAMES, "X-Again,a b"),
        ]);
        let asked = AskedRetries::take(&mut headers).unwrap();
        assert_eq!(asked.on, RetryOn::FIVE_XX.union(RetryOn::GRPC_UNAVAILABLE));
        assert_eq!(asked.max, Some(4));
        assert_eq!(asked.statuses, [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]);
        assert_eq!(asked.headers, [HeaderName::from_static("x-again")]);
        assert_eq!(AskedRetries::take(&mut HeaderMap::new()), None);
    }
}
