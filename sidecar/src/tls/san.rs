//! Whether a name in a peer's certificate is an allowed one.

use crate::config::matcher::{StringMatcher, StringPattern};
use crate::config::tls::{SanKind, SanMatcher};

use super::certificate::Names;

/// Whether any matcher matches any name of its kind.
pub(super) fn matches(matchers: &[SanMatcher], names: &Names) -> bool {
    matchers.iter().any(|SanMatcher { kind, matcher }| match kind {
        SanKind::Dns => any_dns(matcher, &names.dns),
        SanKind::Uri => any(matcher, &names.uri),
        SanKind::Email => any(matcher, &names.email),
        SanKind::IpAddress => any(matcher, &names.ip),
        SanKind::Any => {
            any_dns(matcher, &names.dns)
                || any(matcher, &names.uri)
                || any(matcher, &names.email)
                || any(matcher, &names.ip)
        }
    })
}

fn any(matcher: &StringMatcher, names: &[Box<str>]) -> bool {
    names.iter().any(|name| matcher.matches(name.as_bytes()))
}

/// DNS names are compared without case, and one in a certificate may have a wildcard, which an exact matcher resolves.
fn any_dns(matcher: &StringMatcher, names: &[Box<str>]) -> bool {
    names.iter().any(|name| match &matcher.pattern {
        StringPattern::Exact(wanted) => dns_name_matches(wanted, name),
        _ => matcher.matches(name.as_bytes()),
    })
}

/// RFC 6125 section 6.4.3, in the strict form: a star stands for the whole first label and for nothing else.
fn dns_name_matches(wanted: &str, presented: &str) -> bool {
    if wanted.eq_ignore_ascii_case(presented) {
        return true;
    }
    let Some(parent) = presented.strip_prefix("*.") else { return false };
    wanted.split_once('.').is_some_and(|(label, rest)| {
        !label.is_empty() && rest.contains('.') && rest.eq_ignore_ascii_case(parent)
    })
}

/// What was asked for, for a message.
pub(super) fn describe(matchers: &[SanMatcher]) -> String {
    let one = |SanMatcher { kind, matcher }: &SanMatcher| {
        let kind = match kind {
            SanKind::Dns => "DNS",
            SanKind::Uri => "URI",
            SanKind::Email => "email",
            SanKind::IpAddress => "IP",
            SanKind::Any => "any name",
        };
        match &matcher.pattern {
            StringPattern::Exact(text) => format!("{kind} {text:?}"),
            StringPattern::Prefix(text) => format!("{kind} beginning with {text:?}"),
            StringPattern::Suffix(text) => format!("{kind} ending with {text:?}"),
            StringPattern::Contains(text) => format!("{kind} containing {text:?}"),
            StringPattern::Regex(regex) => format!("{kind} matching {:?}", regex.as_str()),
        }
    };
    matchers.iter().map(one).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label_and_not_for_a_top_level_domain() {
        assert!(dns_name_matches("www.example.com", "*.example.com"));
        assert!(dns_name_matches("WWW.example.com", "www.EXAMPLE.com"));
        assert!(!dns_name_matches("a.b.example.com", "*.example.com"));
        assert!(!dns_name_matches("example.com", "*.example.com"));
        assert!(!dns_name_matches("example.com", "*.com"));
        assert!(!dns_name_matches("www.example.com", "w*.example.com"));
    }
}
