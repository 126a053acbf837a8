//! The hash of a request, for load balancers that choose by one: Envoy's `hash_policy`.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};
use smallvec::SmallVec;
use twox_hash::XxHash64;

use super::matching::RequestView;
use super::rewrite;
use super::stream_state::filter_state_of;
use crate::cluster::address_hash;
use crate::config::address::Address;
use crate::config::hash_policy::{HashCookie, HashPolicy, HashSource};
use crate::config::matcher::MatchedHeader;

/// The hash of a request.
#[derive(Debug, Default)]
pub(crate) struct RequestHash {
    /// `None`: none of the policies found anything.
    pub(crate) hash: Option<u64>,
    /// What the response has to set, so that the client's next request has the same hash.
    pub(crate) set_cookies: Box<[HeaderValue]>,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    /// The client: the peer, or whom trusted proxies name.
    pub(crate) client: Option<IpAddr>,
    /// The other end of its connection.
    pub(crate) peer: &'a Address,
    /// This end.
    pub(crate) local: &'a Address,
}

impl RequestHash {
    /// Hashes what the policies name, one after the other. All that are found count, up to the first that is terminal.
    pub(crate) fn of(
        policies: &[HashPolicy],
        request: &RequestView<'_>,
        sender: Sender<'_>,
    ) -> Self {
        let mut all = Self::default();
        for policy in policies {
            let found = match &policy.source {
                HashSource::Header { name, rewrite } => header(request, name, rewrite.as_ref()),
                HashSource::Cookie(wanted) => all.cookie(wanted, request.headers, sender),
                HashSource::SourceIp => sender.client.map(address_hash),
                HashSource::QueryParameter(name) => {
                    request.query_parameter(name).map(|value| hash(value.as_bytes()))
                }
                HashSource::FilterState(key) => {
                    let text = filter_state_of(request.state).and_then(|it| it.hashable(key));
                    text.map(|text| hash(text.as_bytes()))
                }
            };
            if let Some(found) = found {
                // Turned, so that the same policy twice does not cancel itself out.
                all.hash = Some(all.hash.map_or(0, |hash| hash.rotate_left(1)) ^ found);
            }
            if policy.terminal && all.hash.is_some() {
                break;
            }
        }
        all
    }

    /// Gives the client its cookies.
    pub(crate) fn set_cookies(&self, response: &mut HeaderMap) {
        for cookie in &self.set_cookies {
            response.append(header::SET_COOKIE, cookie.clone());
        }
    }

    /// The hash of a cookie. A client without it is given one that is the same for all requests on its connection.
    fn cookie(
        &mut self,
        cookie: &HashCookie,
        headers: &HeaderMap,
        sender: Sender<'_>,
    ) -> Option<u64> {
        if let Some(value) = cookie_value(headers, &cookie.name) {
            return Some(hash(value));
        }
        let attributes = cookie.attributes.as_deref()?;
        let value = format!("{:016x}", hash(format!("{}{}", sender.peer, sender.local).as_bytes()));
        let header = HeaderValue::from_str(&format!("{}=\"{value}\"{attributes}", cookie.name));
        // There is one of them as a rule.
        let before = std::mem::take(&mut self.set_cookies);
        self.set_cookies = before.into_iter().chain(header).collect();
        Some(hash(value.as_bytes()))
    }
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The hash of a header's values in sorted order, so that it does not depend on the order of its lines.
fn header(
    request: &RequestView<'_>,
    name: &MatchedHeader,
    rewrite: Option<&(regex::bytes::Regex, Box<str>)>,
) -> Option<u64> {
    let values: SmallVec<[&[u8]; 4]> = match name {
        MatchedHeader::Header(name) => {
            request.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
        }
        MatchedHeader::Method => [request.method.as_str().as_bytes()].into_iter().collect(),
        MatchedHeader::Path => [request.path_and_query.as_bytes()].into_iter().collect(),
        MatchedHeader::Authority => [request.authority.as_bytes()].into_iter().collect(),
        MatchedHeader::Scheme => [request.scheme.as_bytes()].into_iter().collect(),
    };
    match rewrite {
        None => sorted_hash(values),
        Some((pattern, substitution)) => sorted_hash(
            values.iter().map(|value| rewrite::replace(pattern, value, substitution)).collect(),
        ),
    }
}

fn sorted_hash<T: AsRef<[u8]> + Ord>(mut values: SmallVec<[T; 4]>) -> Option<u64> {
    values.sort_unstable();
    let mut values = values.iter();
    let first = hash(values.next()?.as_ref());
    // The hash so far is the seed of the next.
    Some(values.fold(first, |seed, value| XxHash64::oneshot(seed, value.as_ref())))
}

/// The value of the first cookie of a name, without quotes; `None` also if that is empty.
fn cookie_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = pairs.find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at(equals);
        let start = key.iter().position(|byte| *byte != b' ').unwrap_or(key.len());
        (key.get(start..)? == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
    })?;
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use http::Method;

    use super::*;

    const fn local(port: u16) -> Address {
        Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    const SENDER: Sender<'_> = Sender {
        client: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
        peer: &local(1111),
        local: &local(2222),
    };

    fn policy(source: HashSource) -> HashPolicy {
        HashPolicy { source, terminal: false }
    }

    fn of_header(name: &'static str) -> HashPolicy {
        let name = MatchedHeader::Header(http::HeaderName::from_static(name));
        policy(HashSource::Header { name, rewrite: None })
    }

    fn of_cookie(attributes: Option<&str>) -> HashPolicy {
        let attributes = attributes.map(Into::into);
        policy(HashSource::Cookie(HashCookie { name: "c".into(), attributes }))
    }

    fn request_hash(policies: &[HashPolicy], headers: &[(&'static str, &str)]) -> RequestHash {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = RequestView {
            state: None,
            method: &Method::GET,
            path: "/p",
            query: Some("a=&q=1&q=2"),
            path_and_query: "/p?a=&q=1&q=2",
            authority: "a.test",
            scheme: "http",
            headers: &map,
        };
        RequestHash::of(policies, &request, SENDER)
    }

    fn hash_of(policies: &[HashPolicy], headers: &[(&'static str, &str)]) -> Option<u64> {
        request_hash(policies, headers).hash
    }

    #[test]
    fn known_values_of_xx_hash() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn a_header_gives_the_hash_of_its_value_and_a_missing_one_none() {
        assert_eq!(hash_of(&[of_header("x")], &[("x", "1")]), Some(hash(b"1")));
        assert_eq!(hash_of(&[of_header("x")], &[("x", "")]), Some(hash(b"")));
        assert_eq!(hash_of(&[of_header("x")], &[("y", "1")]), None);
        let name = MatchedHeader::Authority;
        let authority = policy(HashSource::Header { name, rewrite: None });
        assert_eq!(hash_of(&[authority], &[]), Some(hash(b"a.test")));
    }

    #[test]
    fn several_lines_of_a_header_count_in_sorted_order() {
        for lines in [["foo", "bar"], ["bar", "foo"]] {
            let headers = lines.map(|value| ("x", value));
            let expected = XxHash64::oneshot(hash(b"bar"), b"foo");
            assert_eq!(hash_of(&[of_header("x")], &headers), Some(expected));
        }
    }

    #[test]
    fn a_header_may_be_rewritten_before() {
        let pattern = regex::bytes::Regex::new("^/(\\w+).*$").unwrap();
        let rewrite = Some((pattern, "\\1".into()));
        let name = MatchedHeader::Header(http::HeaderName::from_static("x"));
        let policies = [policy(HashSource::Header { name, rewrite })];
        assert_eq!(hash_of(&policies, &[("x", "/user/1")]), Some(hash(b"user")));
        assert_eq!(hash_of(&policies, &[("x", "none")]), Some(hash(b"none")));
    }

    #[test]
    fn a_query_parameter_counts_the_first_time_it_occurs() {
        let of = |name: &str| policy(HashSource::QueryParameter(name.into()));
        assert_eq!(hash_of(&[of("q")], &[]), Some(hash(b"1")));
        assert_eq!(hash_of(&[of("a")], &[]), Some(hash(b"")));
        assert_eq!(hash_of(&[of("b")], &[]), None);
    }

    #[test]
    fn the_source_address_is_the_client_without_a_port() {
        let policies = [policy(HashSource::SourceIp)];
        assert_eq!(hash_of(&policies, &[]), Some(hash(b"10.0.0.1")));
    }

    #[test]
    fn a_cookie_is_found_in_any_line_and_its_quotes_do_not_count() {
        let policies = [of_cookie(None)];
        for line in ["c=v", "a=b;  c=v; c=w", "c=\"v\"", "b; c=v"] {
            assert_eq!(hash_of(&policies, &[("cookie", line)]), Some(hash(b"v")), "{line}");
        }
        let lines = [("cookie", "a=b"), ("cookie", "c=v")];
        assert_eq!(hash_of(&policies, &lines), Some(hash(b"v")));
        for line in ["cc=v", "c", "c=", "c=\"\"", "a=c=v"] {
            assert_eq!(hash_of(&policies, &[("cookie", line)]), None, "{line}");
        }
    }

    #[test]
    fn a_client_without_the_cookie_is_given_the_same_one_all_over_its_connection() {
        let policies = [of_cookie(Some("; Max-Age=60; HttpOnly"))];
        let first = request_hash(&policies, &[]);
        let value = format!("{:016x}", hash(b"127.0.0.1:1111127.0.0.1:2222"));
        assert_eq!(*first.set_cookies, [format!("c=\"{value}\"; Max-Age=60; HttpOnly").as_str()]);
        assert_eq!(first.hash, request_hash(&policies, &[]).hash);
        let next = request_hash(&policies, &[("cookie", &format!("c={value}"))]);
        assert_eq!((next.hash, next.set_cookies.len()), (first.hash, 0));
    }

    #[test]
    fn all_policies_count_up_to_the_first_terminal_one_with_a_hash_before_it() {
        let both = [of_header("x"), of_header("y")];
        let headers = [("x", "1"), ("y", "2")];
        let expected = hash(b"1").rotate_left(1) ^ hash(b"2");
        assert_eq!(hash_of(&both, &headers), Some(expected));
        let twice = [of_header("x"), of_header("x")];
        assert_ne!(hash_of(&twice, &headers), Some(0), "it does not cancel itself out");

        let mut policies = both;
        policies[0].terminal = true;
        assert_eq!(hash_of(&policies, &headers), Some(hash(b"1")));
        assert_eq!(hash_of(&policies, &[("y", "2")]), Some(hash(b"2")));
        assert_eq!(hash_of(&[], &headers), None);
    }
}
