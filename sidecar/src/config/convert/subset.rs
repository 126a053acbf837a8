//! Subset load balancing: `lb_subset_config`, the policy of the list, and `metadata_match` of routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_proto::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use outrigger_proto::envoy::config::cluster::v3::cluster::lb_subset_config as legacy;
use outrigger_proto::envoy::config::core::v3::Metadata;
use outrigger_proto::envoy::extensions::load_balancing_policies::subset::v3 as typed;
use outrigger_proto::google::protobuf::Struct;

use crate::config::Problems;
use crate::config::subset::{
    Fallback, METADATA_FILTER, MetadataCriteria, Selector, SelectorFallback, Subsets,
};

use super::common::{enumeration, json_object};
use super::load_balancer::{self, Chosen};

/// The field `lb_subset_config`. Without a selector it means nothing, as in Envoy.
pub(super) fn convert_legacy(
    problems: &mut Problems,
    proto: Option<LbSubsetConfig>,
) -> Option<Box<Subsets>> {
    use legacy::LbSubsetFallbackPolicy as Policy;
    use legacy::LbSubsetMetadataFallbackPolicy as MetadataPolicy;

    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = proto?;
    let fallback = match enumeration(problems, "fallback_policy", fallback_policy)? {
        Policy::NoFallback => Fallback::None,
        Policy::AnyEndpoint => Fallback::AnyEndpoint,
        Policy::DefaultSubset => Fallback::DefaultSubset,
    };
    let metadata: MetadataPolicy =
        enumeration(problems, "metadata_fallback_policy", metadata_fallback_policy)?;
    let selectors = selectors(problems, subset_selectors, |problems, proto| {
        use legacy::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Policy;
        let legacy::LbSubsetSelector {
            keys,
            single_host_per_subset,
            fallback_policy,
            fallback_keys_subset,
        } = proto;
        let policy = match enumeration(problems, "fallback_policy", fallback_policy)? {
            Policy::NotDefined => SelectorFallback::NotDefined,
            Policy::NoFallback => SelectorFallback::None,
            Policy::AnyEndpoint => SelectorFallback::AnyEndpoint,
            Policy::DefaultSubset => SelectorFallback::DefaultSubset,
            Policy::KeysSubset => SelectorFallback::Keys(BTreeSet::new()),
        };
        selector(problems, keys, policy, fallback_keys_subset, single_host_per_subset)
    });
    if selectors.is_empty() {
        return None;
    }
    Some(Box::new(Subsets {
        selectors,
        fallback,
        default_subset: default_subset.map(json_object).unwrap_or_default(),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        allow_redundant_keys: false,
        fallback_list: metadata == MetadataPolicy::FallbackList,
    }))
}

/// `envoy.extensions.load_balancing_policies.subset.v3.Subset`: a policy with another one inside.
pub(super) fn extension(problems: &mut Problems, proto: typed::Subset) -> Option<Chosen> {
    use typed::subset::LbSubsetFallbackPolicy as Policy;
    use typed::subset::LbSubsetMetadataFallbackPolicy as MetadataPolicy;

    let typed::Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy,
    } = proto;
    let fallback = match enumeration(problems, "fallback_policy", fallback_policy)? {
        Policy::NoFallback => Fallback::None,
        Policy::AnyEndpoint => Fallback::AnyEndpoint,
        Policy::DefaultSubset => Fallback::DefaultSubset,
    };
    let metadata: MetadataPolicy =
        enumeration(problems, "metadata_fallback_policy", metadata_fallback_policy)?;
    let selectors = selectors(problems, subset_selectors, |problems, proto| {
        use typed::subset::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Policy;
        let typed::subset::LbSubsetSelector {
            keys,
            single_host_per_subset,
            fallback_policy,
            fallback_keys_subset,
        } = proto;
        let policy = match enumeration(problems, "fallback_policy", fallback_policy)? {
            Policy::NotDefined => SelectorFallback::NotDefined,
            Policy::NoFallback => SelectorFallback::None,
            Policy::AnyEndpoint => SelectorFallback::AnyEndpoint,
            Policy::DefaultSubset => SelectorFallback::DefaultSubset,
            Policy::KeysSubset => SelectorFallback::Keys(BTreeSet::new()),
        };
        selector(problems, keys, policy, fallback_keys_subset, single_host_per_subset)
    });
    let list = super::common::required(problems, "subset_lb_policy", subset_lb_policy)?;
    let chosen = problems
        .field("subset_lb_policy", |problems| load_balancer::first_known(problems, list))?;
    if chosen.subsets.is_some() {
        problems.reject_field("subset_lb_policy", "must not divide subsets into subsets again");
    }
    let subsets = Subsets {
        selectors,
        fallback,
        default_subset: default_subset.map(json_object).unwrap_or_default(),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        allow_redundant_keys,
        fallback_list: metadata == MetadataPolicy::FallbackList,
    };
    Some(Chosen { subsets: Some(Box::new(subsets)), ..chosen })
}

fn selectors<P>(
    problems: &mut Problems,
    protos: Vec<P>,
    convert: impl Fn(&mut Problems, P) -> Option<Selector>,
) -> Vec<Selector> {
    let protos = protos.into_iter().enumerate();
    protos
        .filter_map(|(index, proto)| {
            problems.element("subset_selectors", index, |problems| convert(problems, proto))
        })
        .collect()
}

fn selector(
    problems: &mut Problems,
    keys: Vec<String>,
    policy: SelectorFallback,
    fallback_keys: Vec<String>,
    single_host: bool,
) -> Option<Selector> {
    const FIELD: &str = "fallback_keys_subset";
    let set =
        |keys: Vec<String>| -> BTreeSet<Box<str>> { keys.into_iter().map(Into::into).collect() };
    let (keys, fallback_keys) = (set(keys), set(fallback_keys));
    let wrong = match policy {
        SelectorFallback::Keys(_) if fallback_keys.is_empty() => {
            Some("required with the fallback policy KEYS_SUBSET")
        }
        SelectorFallback::Keys(_) if !fallback_keys.is_subset(&keys) => {
            Some("must be some of the selector's keys")
        }
        SelectorFallback::Keys(_) if fallback_keys.len() == keys.len() => {
            Some("must not be all of the selector's keys")
        }
        SelectorFallback::Keys(_) => None,
        _ if !fallback_keys.is_empty() => Some("goes only with the fallback policy KEYS_SUBSET"),
        _ => None,
    };
    if let Some(reason) = wrong {
        problems.reject_field(FIELD, reason);
        return None;
    }
    let fallback = match policy {
        SelectorFallback::Keys(_) => SelectorFallback::Keys(fallback_keys),
        other => other,
    };
    Some(Selector { keys, fallback, single_host })
}

/// The field `metadata_match` of a route, or of one of its weighted clusters: then `outer` is that of the route, and what the
/// cluster says wins. What does not stand under `envoy.lb` does not choose endpoints.
pub(super) fn criteria(
    proto: Option<Metadata>,
    outer: Option<&Arc<MetadataCriteria>>,
) -> Option<Arc<MetadataCriteria>> {
    let Metadata {
        mut filter_metadata,
        typed_filter_metadata: _, // endpoints are chosen by the other alone, in Envoy too
    } = proto?;
    let own: Struct = filter_metadata.remove(METADATA_FILTER)?;
    let own = json_object(own);
    Some(Arc::new(match outer {
        Some(outer) => outer.merged(&own),
        None => MetadataCriteria::new(own.into_iter().map(|(key, value)| (key.into(), value))),
    }))
}
