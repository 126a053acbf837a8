//! Matchers of requests: headers, query parameters.
//!
//! Everything is compared as bytes, so that a value which is not UTF-8 can be matched like any other.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use super::stream_state::StreamState;
use crate::config::matcher::{
    HeaderMatcher, HeaderValueMatcher, MatchedHeader, QueryParameterMatcher, QueryValueMatcher,
};

/// A request as matchers see it, after its path and host have been put into their canonical form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) method: &'a Method,
    /// Without the query.
    pub(crate) path: &'a str,
    /// Without the `?`.
    pub(crate) query: Option<&'a str>,
    /// With the query.
    pub(crate) path_and_query: &'a str,
    /// As the client sent it.
    pub(crate) authority: &'a str,
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// What filters noted.
    pub(crate) state: Option<&'a StreamState>,
}

impl RequestView<'_> {
    /// Whether the request is a gRPC call, by its content type.
    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(self.headers)
    }

    /// The value of the first query parameter of a name, as it was sent.
    pub(crate) fn query_parameter(&self, name: &str) -> Option<&str> {
        query_parameter(self.query, name)
    }
}

/// Whether the content type is `application/grpc` or `application/grpc+…`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// All lines of a header, joined with `,` as Envoy joins them.
pub(crate) fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first.into());
    }
    let mut all = first.to_vec();
    for value in rest {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(all.into())
}

impl HeaderMatcher {
    /// Whether the request has what the matcher asks for. Of several lines of a header, one has to match alone.
    pub(crate) fn matches(&self, request: &RequestView<'_>) -> bool {
        match &self.name {
            MatchedHeader::Header(name) => self.decide(lines(request.headers, name)),
            MatchedHeader::Method => self.decide([request.method.as_str().as_bytes()]),
            MatchedHeader::Path => self.decide([request.path_and_query.as_bytes()]),
            MatchedHeader::Authority => self.decide([request.authority.as_bytes()]),
            MatchedHeader::Scheme => self.decide([request.scheme.as_bytes()]),
        }
    }

    /// Whether these headers have it. Parts of a request (`:path` and the like) are missing here.
    pub(crate) fn matches_headers(&self, headers: &HeaderMap) -> bool {
        match &self.name {
            MatchedHeader::Header(name) => self.decide(lines(headers, name)),
            _ => self.decide([]),
        }
    }

    /// Like [`matches`](Self::matches), but true also if all lines joined, or one element of a list, match. For rules that
    /// deny: what stands around a value must not hide it.
    pub(crate) fn matches_any_value(&self, request: &RequestView<'_>) -> bool {
        if self.matches(request) {
            return true;
        }
        let MatchedHeader::Header(name) = &self.name else { return false };
        let Some(all) = joined(request.headers, name) else { return false };
        self.decide([&*all])
            || all.split(|byte| *byte == b',').any(|element| self.decide([element.trim_ascii()]))
    }

    /// Whether a header with these lines is what the matcher asks for; none: it is missing.
    pub(crate) fn matches_values<'v>(&self, values: impl IntoIterator<Item = &'v [u8]>) -> bool {
        self.decide(values)
    }

    fn decide<'v>(&self, values: impl IntoIterator<Item = &'v [u8]>) -> bool {
        let mut values = values.into_iter().peekable();
        if let HeaderValueMatcher::Present(present) = self.value {
            return (values.peek().is_some() == present) != self.invert;
        }
        if values.peek().is_none() {
            return self.treat_missing_as_empty && self.value_matches(b"") != self.invert;
        }
        values.any(|value| self.value_matches(value)) != self.invert
    }

    fn value_matches(&self, value: &[u8]) -> bool {
        match &self.value {
            HeaderValueMatcher::Present(present) => *present,
            HeaderValueMatcher::String(matcher) => matcher.matches(value),
            HeaderValueMatcher::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
}

impl QueryParameterMatcher {
    /// Whether the query (without `?`) has what the matcher asks for. Only the first parameter of that name counts.
    pub(crate) fn matches(&self, query: Option<&str>) -> bool {
        match (&self.value, query_parameter(query, &self.name)) {
            (QueryValueMatcher::Present(present), value) => value.is_some() == *present,
            (QueryValueMatcher::String(matcher), Some(value)) => matcher.matches(value.as_bytes()),
            (QueryValueMatcher::String(_), None) => false,
        }
    }
}

fn query_parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find_map(|(other, value)| (other == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::matcher::{StringMatcher, StringPattern};

    fn exact(text: &str) -> HeaderValueMatcher {
        HeaderValueMatcher::String(StringMatcher {
            pattern: StringPattern::Exact(text.into()),
            ignore_case: false,
        })
    }

    fn matcher(value: HeaderValueMatcher, invert: bool, missing_is_empty: bool) -> HeaderMatcher {
        HeaderMatcher {
            name: MatchedHeader::Header(HeaderName::from_static("x")),
            value,
            invert,
            treat_missing_as_empty: missing_is_empty,
        }
    }

    fn headers(values: &[&'static [u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x", HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn view<'a>(headers: &'a HeaderMap) -> RequestView<'a> {
        RequestView {
            method: &Method::GET,
            path: "/",
            query: None,
            path_and_query: "/",
            authority: "a",
            scheme: "http",
            headers,
            state: None,
        }
    }

    #[test]
    fn a_missing_header_matches_no_value_even_inverted_unless_it_counts_as_empty() {
        let none = headers(&[]);
        for invert in [false, true] {
            assert!(!matcher(exact("a"), invert, false).matches_headers(&none));
        }
        assert!(matcher(exact("a"), true, true).matches_headers(&none));
        assert!(matcher(exact(""), false, true).matches_headers(&none));
    }

    #[test]
    fn presence_can_be_asked_for_and_inverted() {
        for (present, invert) in [(true, false), (false, true)] {
            let matcher = matcher(HeaderValueMatcher::Present(present), invert, false);
            assert!(matcher.matches_headers(&headers(&[b"a"])));
            assert!(!matcher.matches_headers(&headers(&[])));
        }
    }

    #[test]
    fn of_several_lines_one_has_to_match_alone() {
        let two = headers(&[b"a", b"b"]);
        for value in ["a", "b"] {
            assert!(matcher(exact(value), false, false).matches_headers(&two));
            assert!(!matcher(exact(value), true, false).matches_headers(&two));
        }
        assert!(!matcher(exact("a,b"), false, false).matches_headers(&two));
        assert!(!matcher(exact("a"), false, false).matches_headers(&headers(&[b"a,b"])));
    }

    #[test]
    fn for_a_denial_any_line_or_list_element_is_enough() {
        for values in [&[b"evil".as_slice(), b"good"][..], &[b"good, evil"]] {
            let headers = headers(values);
            assert!(matcher(exact("evil"), false, false).matches_any_value(&view(&headers)));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_compared_and_do_not_fail_open() {
        let odd = headers(&[b"\xff"]);
        assert!(!matcher(exact("a"), false, false).matches_headers(&odd));
        assert!(matcher(exact("a"), true, false).matches_headers(&odd));
    }

    #[test]
    fn a_range_takes_whole_decimal_numbers_only() {
        let range = HeaderValueMatcher::Range { start: -10, end: 10 };
        for (value, expected) in
            [("-10", true), ("9", true), ("10", false), ("9x", false), ("", false), ("1.0", false)]
        {
            let headers = headers(&[value.as_bytes()]);
            assert_eq!(matcher(range.clone(), false, false).matches_headers(&headers), expected);
        }
    }

    #[test]
    fn only_the_first_query_parameter_of_a_name_counts() {
        let matcher = QueryParameterMatcher {
            name: "a".into(),
            value: QueryValueMatcher::String(StringMatcher {
                pattern: StringPattern::Exact("1".into()),
                ignore_case: false,
            }),
        };
        assert!(matcher.matches(Some("b=2&a=1&a=2")));
        assert!(!matcher.matches(Some("a=2&a=1")));
        assert!(!matcher.matches(Some("aa=1")));
        assert!(!matcher.matches(None));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected);
        }
    }
}
