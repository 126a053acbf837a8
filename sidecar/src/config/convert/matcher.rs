//! Matchers on strings, headers and query parameters.

use outrigger_proto::envoy::config::route::v3 as route;
use outrigger_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use outrigger_proto::envoy::r#type::matcher::v3 as proto;
use outrigger_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use outrigger_proto::envoy::r#type::v3::Int64Range;
use regex::bytes::{Regex, RegexBuilder};

use crate::config::Problems;
use crate::config::matcher::{
    HeaderMatcher, HeaderValueMatcher, MatchedHeader, QueryParameterMatcher, QueryValueMatcher,
    StringMatcher, StringPattern,
};

use super::common::header_name;

/// Most bytes of a compiled regex: enough for any route table's patterns, too little for a trap.
const MAX_REGEX_SIZE: usize = 1 << 20;

/// A `StringMatcher`.
pub(super) fn string(
    problems: &mut Problems,
    proto: proto::StringMatcher,
) -> Option<StringMatcher> {
    let proto::StringMatcher { ignore_case, match_pattern } = proto;
    let pattern = match match_pattern {
        None => {
            problems.reject("one of exact, prefix, suffix, contains, safe_regex is required");
            return None;
        }
        Some(MatchPattern::Exact(value)) => StringPattern::Exact(value.into()),
        Some(MatchPattern::Prefix(value)) => {
            StringPattern::Prefix(not_empty(problems, "prefix", value)?)
        }
        Some(MatchPattern::Suffix(value)) => {
            StringPattern::Suffix(not_empty(problems, "suffix", value)?)
        }
        Some(MatchPattern::Contains(value)) => {
            StringPattern::Contains(not_empty(problems, "contains", value)?)
        }
        Some(MatchPattern::SafeRegex(regex)) => StringPattern::Regex(
            problems.field("safe_regex", |problems| full_regex(problems, regex))?,
        ),
        Some(MatchPattern::Custom(_)) => {
            problems.unsupported("custom", true);
            return None;
        }
    };
    Some(StringMatcher { pattern, ignore_case })
}

fn not_empty(problems: &mut Problems, name: &str, value: String) -> Option<Box<str>> {
    if value.is_empty() {
        problems.reject_field(name, "must not be empty");
        return None;
    }
    Some(value.into())
}

/// A regex that has to match the whole value.
pub(super) fn full_regex(problems: &mut Problems, proto: proto::RegexMatcher) -> Option<Regex> {
    let pattern = pattern(problems, proto)?;
    // By itself first: `a)|(?:b` is no regex, but would become one between our parentheses.
    compile(problems, &pattern, &pattern)?;
    compile(problems, &pattern, &format!("\\A(?:{pattern})\\z"))
}

/// A regex whose matches are looked for anywhere in the value.
pub(super) fn searching_regex(
    problems: &mut Problems,
    proto: proto::RegexMatcher,
) -> Option<Regex> {
    let pattern = pattern(problems, proto)?;
    compile(problems, &pattern, &pattern)
}

fn pattern(problems: &mut Problems, proto: proto::RegexMatcher) -> Option<String> {
    // engine_type: there is one engine, and its max_program_size is deprecated; sizes are bounded by MAX_REGEX_SIZE.
    let proto::RegexMatcher { regex, engine_type: _ } = proto;
    if regex.is_empty() {
        problems.reject_field("regex", "must not be empty");
        return None;
    }
    Some(regex)
}

/// Compiles by RE2's rules: classes like `\d` are ASCII and `.` is any byte, so that a value which is not UTF-8 cannot
/// escape a pattern. Only a pattern that needs Unicode (`\p{..}`, `[é]`) is compiled with it.
fn compile(problems: &mut Problems, shown: &str, pattern: &str) -> Option<Regex> {
    let build =
        |unicode| RegexBuilder::new(pattern).unicode(unicode).size_limit(MAX_REGEX_SIZE).build();
    match build(false).or_else(|_| build(true)) {
        Ok(regex) => Some(regex),
        Err(regex::Error::CompiledTooBig(_)) => {
            problems.reject_field("regex", format!("{shown:?} is too large when compiled"));
            None
        }
        Err(_) => {
            // Its own text without our anchors, so that positions in the message are the user's.
            let reason = RegexBuilder::new(shown)
                .build()
                .map_or_else(|error| last_line(&error.to_string()), |_| "is not valid".to_owned());
            problems.reject_field("regex", format!("{shown:?}: {reason}"));
            None
        }
    }
}

/// The parser's messages draw the pattern over several lines; the cause stands in the last.
fn last_line(message: &str) -> String {
    message.lines().last().unwrap_or(message).trim_start_matches("error: ").to_owned()
}

/// A `RegexMatchAndSubstitute`: what to look for, and what to put there.
pub(super) fn substitute(
    problems: &mut Problems,
    proto: proto::RegexMatchAndSubstitute,
) -> Option<(Regex, Box<str>)> {
    let proto::RegexMatchAndSubstitute { pattern, substitution } = proto;
    let Some(pattern) = pattern else {
        problems.reject_field("pattern", "required");
        return None;
    };
    let regex = problems.field("pattern", |problems| searching_regex(problems, pattern))?;
    match check_substitution(&substitution, regex.captures_len() - 1) {
        Ok(()) => Some((regex, substitution.into())),
        Err(reason) => {
            problems.reject_field("substitution", reason);
            None
        }
    }
}

/// RE2's rules for a replacement: `\0` to `\9` is a group that the pattern has, `\\` a backslash, nothing else is escaped.
fn check_substitution(text: &str, groups: usize) -> Result<(), String> {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\n' || character == '\r' || character == '\0' {
            return Err("must not contain a line break or NUL".to_owned());
        }
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some('\\') => {}
            Some(digit @ '0'..='9') => {
                let group = digit.to_digit(10).unwrap_or(0) as usize;
                if group > groups {
                    return Err(format!("\\{group} is used, but the pattern has {groups} groups"));
                }
            }
            _ => return Err("a backslash must be followed by a digit or a backslash".to_owned()),
        }
    }
    Ok(())
}

/// A `HeaderMatcher`.
pub(super) fn header(
    problems: &mut Problems,
    proto: route::HeaderMatcher,
) -> Option<HeaderMatcher> {
    let route::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = proto;
    let name = matched_header(problems, "name", &name);
    let value = header_value_matcher(problems, header_match_specifier);
    Some(HeaderMatcher {
        name: name?,
        value: value?,
        invert: invert_match,
        treat_missing_as_empty: treat_missing_header_as_empty,
    })
}

/// A list of `HeaderMatcher`s in the field `name`.
pub(super) fn headers(
    problems: &mut Problems,
    name: &str,
    protos: Vec<route::HeaderMatcher>,
) -> Vec<HeaderMatcher> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| header(problems, proto))
        })
        .collect()
}

/// The header or part of a request that the field `field` names.
pub(super) fn matched_header(
    problems: &mut Problems,
    field: &str,
    name: &str,
) -> Option<MatchedHeader> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => MatchedHeader::Method,
        ":path" => MatchedHeader::Path,
        // As in Envoy `host` is another name for `:authority`, whatever protocol the request came by.
        ":authority" | "host" => MatchedHeader::Authority,
        ":scheme" => MatchedHeader::Scheme,
        pseudo if pseudo.starts_with(':') => {
            problems.reject_field(
                field,
                format!("{name:?} is not one of :method, :path, :authority, :scheme"),
            );
            return None;
        }
        _ => MatchedHeader::Header(header_name(problems, field, name)?),
    })
}

fn header_value_matcher(
    problems: &mut Problems,
    proto: Option<HeaderMatchSpecifier>,
) -> Option<HeaderValueMatcher> {
    let deprecated =
        |pattern| Some(HeaderValueMatcher::String(StringMatcher { pattern, ignore_case: false }));
    match proto {
        None => Some(HeaderValueMatcher::Present(true)),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => {
            Some(HeaderValueMatcher::Present(present))
        }
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            let matcher = problems.field("string_match", |problems| string(problems, matcher))?;
            Some(HeaderValueMatcher::String(matcher))
        }
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => {
            Some(HeaderValueMatcher::Range { start, end })
        }
        Some(HeaderMatchSpecifier::ExactMatch(value)) => {
            // An empty one is the way of the older API to ask whether the header is there.
            if value.is_empty() {
                return Some(HeaderValueMatcher::Present(true));
            }
            deprecated(StringPattern::Exact(value.into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => deprecated(StringPattern::Regex(
            problems.field("safe_regex_match", |problems| full_regex(problems, regex))?,
        )),
        Some(HeaderMatchSpecifier::PrefixMatch(value)) => {
            deprecated(StringPattern::Prefix(not_empty(problems, "prefix_match", value)?))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(value)) => {
            deprecated(StringPattern::Suffix(not_empty(problems, "suffix_match", value)?))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(value)) => {
            deprecated(StringPattern::Contains(not_empty(problems, "contains_match", value)?))
        }
    }
}

/// A `QueryParameterMatcher`.
pub(super) fn query_parameter(
    problems: &mut Problems,
    proto: route::QueryParameterMatcher,
) -> Option<QueryParameterMatcher> {
    let route::QueryParameterMatcher { name, query_parameter_match_specifier } = proto;
    if name.is_empty() || name.len() > 1024 {
        problems.reject_field("name", "must have 1 to 1024 bytes");
    }
    let value = match query_parameter_match_specifier {
        None => QueryValueMatcher::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => {
            QueryValueMatcher::Present(present)
        }
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => QueryValueMatcher::String(
            problems.field("string_match", |problems| string(problems, matcher))?,
        ),
    };
    Some(QueryParameterMatcher { name: name.into(), value })
}
