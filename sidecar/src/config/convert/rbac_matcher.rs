//! The `matcher` of the RBAC filters: predicates over the client's certificate, each with an action of its own.

use outrigger_proto::any;
use outrigger_proto::envoy::config::rbac::v3 as rbac;
use outrigger_proto::envoy::extensions::matching::common_inputs::ssl::v3::{
    DnsSanInput, SubjectInput, UriSanInput,
};
use outrigger_proto::envoy::r#type::matcher::v3 as envoy;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::xds_core::core::v3::TypedExtensionConfig;
use outrigger_proto::xds_core::r#type::matcher::v3 as proto;
use outrigger_proto::xds_core::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, PredicateList, SinglePredicate, single_predicate,
};
use outrigger_proto::xds_core::r#type::matcher::v3::matcher::matcher_list::{
    FieldMatcher, Predicate,
};
use outrigger_proto::xds_core::r#type::matcher::v3::matcher::{
    MatcherList, MatcherType, OnMatch, on_match,
};
use outrigger_proto::xds_core::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::config::Problems;
use crate::config::matcher::StringMatcher;
use crate::config::rbac::{
    Action, CertificateField, Otherwise, Permission, Policy, Principal, Rules,
};

use super::common::{enumeration, required, text, unknown_type, unpack, unsupported};
use super::matcher;

/// The rules that a matcher stands for.
pub(super) fn rules(problems: &mut Problems, proto: proto::Matcher) -> Rules {
    let proto::Matcher { on_no_match, matcher_type } = proto;
    let policies: Vec<Policy> = match matcher_type {
        Some(MatcherType::MatcherList(MatcherList { matchers })) => {
            problems.field("matcher_list", |problems| {
                if matchers.is_empty() {
                    problems.reject_field("matchers", "must have at least one entry");
                }
                let policies = matchers.into_iter().enumerate().filter_map(|(index, proto)| {
                    problems.element("matchers", index, |problems| policy(problems, proto))
                });
                policies.collect()
            })
        }
        Some(MatcherType::MatcherTree(_)) => {
            problems.unsupported("matcher_tree", true);
            Vec::new()
        }
        None => Vec::new(),
    };
    let otherwise = on_no_match.and_then(|proto| {
        let (name, action) = problems.field("on_no_match", |problems| outcome(problems, *proto))?;
        Some(Otherwise { action, name: Some(name.into()) })
    });
    let logs = policies
        .iter()
        .map(|policy| policy.action)
        .chain(otherwise.iter().map(|it| it.action))
        .any(|action| action == Action::Log);
    // What no predicate matches is denied.
    let otherwise = otherwise.unwrap_or(Otherwise { action: Action::Deny, name: None });
    Rules { logs, policies, otherwise }
}

fn policy(problems: &mut Problems, proto: FieldMatcher) -> Option<Policy> {
    let FieldMatcher { predicate: asked, on_match } = proto;
    let asked = required(problems, "predicate", asked)
        .and_then(|proto| problems.field("predicate", |problems| predicate(problems, proto)));
    let (name, action) = required(problems, "on_match", on_match)
        .and_then(|proto| problems.field("on_match", |problems| outcome(problems, proto)))?;
    Some(Policy {
        name: name.into(),
        action,
        permissions: vec![Permission::Any],
        principals: vec![asked?],
    })
}

fn outcome(problems: &mut Problems, proto: OnMatch) -> Option<(String, Action)> {
    let OnMatch { keep_matching, on_match } = proto;
    unsupported!(problems; keep_matching);
    match on_match {
        Some(on_match::OnMatch::Action(proto)) => problems.field("action", |problems| {
            let rbac::Action { name, action } = extension(problems, proto, "Action")?;
            problems.field("typed_config", |problems| {
                let name = text(problems, "name", name);
                let action = enumeration(problems, "action", action)?;
                Some((name, super::rbac::action(action)))
            })
        }),
        Some(on_match::OnMatch::Matcher(_)) => {
            problems.unsupported("matcher", true);
            None
        }
        None => {
            problems.reject("one of action, matcher is required");
            None
        }
    }
}

fn predicate(problems: &mut Problems, proto: Predicate) -> Option<Principal> {
    let Predicate { match_type } = proto;
    match match_type {
        Some(MatchType::SinglePredicate(proto)) => {
            problems.field("single_predicate", |problems| single(problems, proto))
        }
        Some(MatchType::OrMatcher(proto)) => {
            problems.field("or_matcher", |problems| list(problems, proto)).map(Principal::Or)
        }
        Some(MatchType::AndMatcher(proto)) => {
            problems.field("and_matcher", |problems| list(problems, proto)).map(Principal::And)
        }
        Some(MatchType::NotMatcher(proto)) => {
            let inner = problems.field("not_matcher", |problems| predicate(problems, *proto))?;
            Some(Principal::Not(Box::new(inner)))
        }
        None => {
            problems.reject(
                "one of single_predicate, or_matcher, and_matcher, not_matcher is required",
            );
            None
        }
    }
}

/// `None` if one of them is refused: a list that is shorter than it was said to be would match more, or less.
fn list(problems: &mut Problems, proto: PredicateList) -> Option<Vec<Principal>> {
    let PredicateList { predicate: protos } = proto;
    if protos.len() < 2 {
        problems.reject_field("predicate", "must have at least two entries");
    }
    let all = protos.into_iter().enumerate();
    let all: Vec<_> = all
        .map(|(index, proto)| {
            problems.element("predicate", index, |problems| predicate(problems, proto))
        })
        .collect();
    all.into_iter().collect()
}

fn single(problems: &mut Problems, proto: SinglePredicate) -> Option<Principal> {
    let SinglePredicate { input, matcher } = proto;
    let field = required(problems, "input", input)
        .and_then(|proto| problems.field("input", |problems| certificate_field(problems, proto)));
    let value = match matcher {
        Some(single_predicate::Matcher::ValueMatch(proto)) => {
            problems.field("value_match", |problems| string(problems, proto))
        }
        Some(single_predicate::Matcher::CustomMatch(_)) => {
            problems.unsupported("custom_match", true);
            None
        }
        None => {
            problems.reject("one of value_match, custom_match is required");
            None
        }
    };
    Some(Principal::Certificate(field?, value?))
}

fn certificate_field(
    problems: &mut Problems,
    proto: TypedExtensionConfig,
) -> Option<CertificateField> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if any::holds::<UriSanInput>(&config) {
            let UriSanInput {} = unpack(problems, &config)?;
            Some(CertificateField::UriSans)
        } else if any::holds::<DnsSanInput>(&config) {
            let DnsSanInput {} = unpack(problems, &config)?;
            Some(CertificateField::DnsSans)
        } else if any::holds::<SubjectInput>(&config) {
            let SubjectInput {} = unpack(problems, &config)?;
            Some(CertificateField::Subject)
        } else {
            unknown_type(problems, &config, &["UriSanInput", "DnsSanInput", "SubjectInput"]);
            None
        }
    })
}

fn extension<M: prost::Name + Default>(
    problems: &mut Problems,
    proto: TypedExtensionConfig,
    name: &str,
) -> Option<M> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if any::holds::<M>(&config) {
            return unpack(problems, &config);
        }
        unknown_type(problems, &config, &[name]);
        None
    })
}

/// The configuration of an extension, which must have a name all the same.
fn typed_config(problems: &mut Problems, proto: TypedExtensionConfig) -> Option<Any> {
    let TypedExtensionConfig { name, typed_config } = proto;
    text(problems, "name", name);
    required(problems, "typed_config", typed_config)
}

/// As Envoy's own, which it is converted to.
fn string(problems: &mut Problems, proto: proto::StringMatcher) -> Option<StringMatcher> {
    use envoy::string_matcher::MatchPattern as Pattern;
    let proto::StringMatcher { ignore_case, match_pattern } = proto;
    let match_pattern = match match_pattern {
        None => None,
        Some(MatchPattern::Exact(value)) => Some(Pattern::Exact(value)),
        Some(MatchPattern::Prefix(value)) => Some(Pattern::Prefix(value)),
        Some(MatchPattern::Suffix(value)) => Some(Pattern::Suffix(value)),
        Some(MatchPattern::Contains(value)) => Some(Pattern::Contains(value)),
        Some(MatchPattern::SafeRegex(proto::RegexMatcher { regex, engine_type: _ })) => {
            Some(Pattern::SafeRegex(envoy::RegexMatcher { regex, ..Default::default() }))
        }
        Some(MatchPattern::Custom(_)) => {
            problems.unsupported("custom", true);
            return None;
        }
    };
    matcher::string(problems, envoy::StringMatcher { ignore_case, match_pattern })
}
