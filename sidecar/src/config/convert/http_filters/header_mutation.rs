//! `envoy.filters.http.header_mutation`

use outrigger_proto::envoy::config::common::mutation_rules::v3 as rules;
use outrigger_proto::envoy::config::common::mutation_rules::v3::header_mutation::{
    Action, RemoveOnMatch,
};
use outrigger_proto::envoy::extensions::filters::http::header_mutation::v3 as proto;

use crate::config::Problems;
use crate::config::header::HeaderMutations;
use crate::config::http_filters::{HeaderMutation, HeaderOperation};

use super::super::common::{required, unsupported};
use super::super::{header, matcher};

/// The filter's configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::HeaderMutation,
) -> HeaderMutation {
    let proto::HeaderMutation { mutations, most_specific_header_mutations_wins } = proto;
    let mut mutation = of(problems, mutations.unwrap_or_default());
    mutation.most_specific_wins = most_specific_header_mutations_wins;
    mutation
}

/// What a route adds.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::HeaderMutationPerRoute,
) -> HeaderMutation {
    let proto::HeaderMutationPerRoute { mutations } = proto;
    of(problems, mutations.unwrap_or_default())
}

fn of(problems: &mut Problems, proto: proto::Mutations) -> HeaderMutation {
    let proto::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = proto;
    problems.field("mutations", |problems| {
        unsupported!(problems;
            query_parameter_mutations, response_trailers_mutations, request_trailers_mutations);
        HeaderMutation {
            request: operations(problems, "request_mutations", request_mutations),
            response: operations(problems, "response_mutations", response_mutations),
            most_specific_wins: false,
        }
    })
}

/// The repeated field `name`.
pub(in super::super) fn operations(
    problems: &mut Problems,
    name: &str,
    protos: Vec<rules::HeaderMutation>,
) -> Vec<HeaderOperation> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| {
            problems.element(name, index, |problems| operation(problems, proto))
        })
        .collect()
}

fn operation(problems: &mut Problems, proto: rules::HeaderMutation) -> Option<HeaderOperation> {
    let rules::HeaderMutation { action } = proto;
    match action {
        None => {
            problems.reject("one of remove, append, remove_on_match is required");
            None
        }
        Some(Action::Remove(name)) => {
            let name = problems.field("remove", |problems| header::removal(problems, &name))?;
            let mutations = HeaderMutations { add: Box::default(), remove: [name].into() };
            Some(HeaderOperation::Mutate(mutations))
        }
        Some(Action::Append(proto)) => {
            let add = problems.field("append", |problems| header::addition(problems, proto))?;
            let mutations = HeaderMutations { add: [add].into(), remove: Box::default() };
            Some(HeaderOperation::Mutate(mutations))
        }
        Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher })) => {
            problems.field("remove_on_match", |problems| {
                let matcher = required(problems, "key_matcher", key_matcher)?;
                let matcher =
                    problems.field("key_matcher", |problems| matcher::string(problems, matcher))?;
                Some(HeaderOperation::RemoveOnMatch(matcher))
            })
        }
    }
}
