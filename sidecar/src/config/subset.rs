//! Subset load balancing: which endpoints of a cluster a request may go to, by their metadata.
//!
//! Semantics: Envoy's "load balancer subsets". Both forms come to the same: `lb_subset_config` of a cluster, and the policy
//! `envoy.load_balancing_policies.subset`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Map, Value};

/// The filter name under which the metadata of endpoints and of routes says what subsets go by.
pub const METADATA_FILTER: &str = "envoy.lb";
/// The key of a route's metadata that lists what to try one after the other, where that is configured.
pub const FALLBACK_LIST: &str = "fallback_list";

/// How a cluster's endpoints are divided into subsets.
#[derive(Debug, Clone, PartialEq)]
pub struct Subsets {
    /// Each makes a subset of every combination of values that its keys have among the endpoints.
    pub selectors: Vec<Selector>,
    /// Where a request goes for which there is no subset.
    pub fallback: Fallback,
    /// What the metadata of the endpoints of the default subset holds.
    pub default_subset: Map<String, Value>,
    /// The weights of localities count within subsets too.
    pub locality_weight_aware: bool,
    /// A locality counts only for the part of its endpoints that is in the subset.
    pub scale_locality_weight: bool,
    /// Where the fallback has nobody, any endpoint will do.
    pub panic_mode_any: bool,
    /// A list in the metadata of an endpoint means each of its values, and not the list as a whole.
    pub list_as_any: bool,
    /// What a route asks for may have keys that no selector has.
    pub allow_redundant_keys: bool,
    /// A route may list what to try one after the other, under [`FALLBACK_LIST`].
    pub fallback_list: bool,
}

/// One selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Its keys.
    pub keys: BTreeSet<Box<str>>,
    /// Where a request goes that has exactly these keys and for which there is no subset.
    pub fallback: SelectorFallback,
    /// Of several endpoints with the same values only one counts.
    pub single_host: bool,
}

/// Envoy's `LbSubsetFallbackPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nowhere: 503.
    None,
    /// To any endpoint.
    AnyEndpoint,
    /// To the default subset.
    DefaultSubset,
}

/// Envoy's `LbSubsetSelectorFallbackPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As the cluster says.
    NotDefined,
    /// Nowhere: 503.
    None,
    /// To any endpoint.
    AnyEndpoint,
    /// To the default subset.
    DefaultSubset,
    /// To the subset of these keys alone: some of the selector's, but not all.
    Keys(BTreeSet<Box<str>>),
}

impl Subsets {
    /// Where a request goes that asks for exactly `keys`, in order, and for which there is no subset.
    ///
    /// As in Envoy, which looks for selectors key by key, the fallback of a selector does not count if its keys are the first
    /// ones of a selector before it.
    pub fn selector_fallback<'k>(
        &self,
        keys: impl Iterator<Item = &'k str> + Clone,
    ) -> &SelectorFallback {
        let length = keys.clone().count();
        let begins = |selector: &&Selector| {
            selector.keys.len() >= length
                && selector.keys.iter().map(|key| &**key).zip(keys.clone()).all(|(a, b)| a == b)
        };
        match self.selectors.iter().find(begins) {
            Some(selector) if selector.keys.len() == length => &selector.fallback,
            _ => &SelectorFallback::NotDefined,
        }
    }
}

/// What a route asks of the metadata of endpoints (`metadata_match`), compiled: pairs in the order of their keys.
pub struct MetadataCriteria {
    /// Unique in the process, so that what was found for it can be remembered by it; not for what one request asks.
    id: Option<u64>,
    pairs: Vec<(Box<str>, Value)>,
}

impl MetadataCriteria {
    /// Of these pairs.
    pub fn new(pairs: impl IntoIterator<Item = (Box<str>, Value)>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: Some(NEXT.fetch_add(1, Relaxed)), pairs: sorted(pairs) }
    }

    /// What one request asks: as its route does, and by its own metadata, which win.
    pub fn of_request(route: Option<&Self>, own: &Map<String, Value>) -> Self {
        let route = route.map_or(&[][..], |route| &route.pairs).iter().cloned();
        let own = own.iter().map(|(key, value)| (key.as_str().into(), value.clone()));
        Self { id: None, pairs: sorted(route.chain(own)) }
    }

    /// The number of a route's.
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// The pairs, in the order of their keys.
    pub fn pairs(&self) -> &[(Box<str>, Value)] {
        &self.pairs
    }

    /// These pairs, and those of `over`, which win.
    #[must_use]
    pub fn merged(&self, over: &Map<String, Value>) -> Self {
        let over = over.iter().map(|(key, value)| (key.as_str().into(), value.clone()));
        Self::new(self.pairs.iter().cloned().chain(over))
    }
}

fn sorted(pairs: impl IntoIterator<Item = (Box<str>, Value)>) -> Vec<(Box<str>, Value)> {
    pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

impl fmt::Debug for MetadataCriteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs.iter().map(|(key, value)| (key, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsets(selectors: &[(&[&str], SelectorFallback)]) -> Subsets {
        let selectors = selectors.iter().map(|(keys, fallback)| Selector {
            keys: keys.iter().map(|key| (*key).into()).collect(),
            fallback: fallback.clone(),
            single_host: false,
        });
        Subsets {
            selectors: selectors.collect(),
            fallback: Fallback::None,
            default_subset: Map::new(),
            locality_weight_aware: false,
            scale_locality_weight: false,
            panic_mode_any: false,
            list_as_any: false,
            allow_redundant_keys: false,
            fallback_list: false,
        }
    }

    #[test]
    fn a_selector_says_what_becomes_of_requests_with_exactly_its_keys() {
        let subsets = subsets(&[
            (&["a"], SelectorFallback::AnyEndpoint),
            (&["a", "b"], SelectorFallback::DefaultSubset),
        ]);
        let of = |keys: &[&str]| subsets.selector_fallback(keys.iter().copied()).clone();
        assert_eq!(of(&["a"]), SelectorFallback::AnyEndpoint);
        assert_eq!(of(&["a", "b"]), SelectorFallback::DefaultSubset);
        for keys in [&["b"][..], &["a", "c"], &["a", "b", "c"]] {
            assert_eq!(of(keys), SelectorFallback::NotDefined, "{keys:?}");
        }
    }

    #[test]
    fn a_selector_hidden_by_a_longer_one_before_it_has_no_fallback() {
        let subsets = subsets(&[
            (&["a", "b"], SelectorFallback::DefaultSubset),
            (&["a"], SelectorFallback::AnyEndpoint),
        ]);
        let of = |keys: &[&str]| subsets.selector_fallback(keys.iter().copied()).clone();
        assert_eq!(of(&["a"]), SelectorFallback::NotDefined);
        assert_eq!(of(&["a", "b"]), SelectorFallback::DefaultSubset);
    }

    #[test]
    fn merged_criteria_are_in_order_and_the_later_value_wins() {
        let route = MetadataCriteria::new([
            ("stage".into(), Value::from("prod")),
            ("b".into(), Value::from(1)),
        ]);
        let over = Map::from_iter([("a".to_owned(), Value::from(true)), ("b".into(), 2.into())]);
        let merged = route.merged(&over);
        assert_eq!(
            format!("{merged:?}"),
            r#"{"a": Bool(true), "b": Number(2), "stage": String("prod")}"#
        );
        assert_ne!(merged.id(), route.id());
    }
}
