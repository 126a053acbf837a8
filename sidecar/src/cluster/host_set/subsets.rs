//! Subsets of a host set by the metadata of its endpoints, and which of them a request may go to.
//!
//! Semantics: Envoy's "load balancer subsets" (`subset_lb.cc`). Every subset is a host set of its own, with priorities, loads
//! and panic. What a route asks for is looked up here once for each host set and worker, which remembers the [`Step`]s it
//! came to: a request compares no metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::{HostSet, Local, LocalityHosts, Members};
use crate::cluster::endpoint::Endpoint;
use crate::config;
use crate::config::cluster::Cluster;
use crate::config::endpoint::AssignmentPolicy;
use crate::config::subset::{
    FALLBACK_LIST, Fallback, METADATA_FILTER, MetadataCriteria, SelectorFallback,
};

/// One endpoint is in at most so many subsets of a selector, where the lists in its metadata mean each of their values.
const MOST_COMBINATIONS: usize = 1000;

/// The subsets of a host set.
#[derive(Debug)]
pub(crate) struct Subsets {
    config: config::subset::Subsets,
    list: Vec<Subset>,
    /// Those of selectors, by their keys and values.
    by_values: BTreeMap<SubsetValues, usize>,
    /// The subset of all, if something falls back to it.
    any: Option<usize>,
    /// The default subset, likewise.
    default: Option<usize>,
    /// Endpoints left out of subsets that have one endpoint only.
    pub(crate) duplicates: u64,
}

/// A subset.
#[derive(Debug)]
pub(crate) enum Subset {
    /// One is chosen of these as of the whole.
    Hosts(Box<HostSet>),
    /// There is only this one, whatever its health.
    Single(Arc<Endpoint>),
}

/// Where a request may go; the first that has somebody for it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The subset with this index, which a selector made.
    Selected(usize),
    /// The subset with this index, to which a selector falls back.
    SelectorFallback(usize),
    /// The subset with this index, to which the cluster falls back, and where that has nobody, the other.
    Fallback(usize, Option<usize>),
    /// Nobody.
    Nowhere,
}

/// Keys and values in the order of the keys, as text: equal where the values are equal.
pub(crate) type SubsetValues = Vec<(Box<str>, String)>;

impl Subsets {
    pub(super) fn new(
        whole: &HostSet,
        subsets: &config::subset::Subsets,
        config: &Cluster,
        policy: AssignmentPolicy,
        local: Option<&Local<'_>>,
    ) -> Self {
        let metadata: Vec<_> = whole.endpoints().map(|endpoint| endpoint.metadata()).collect();
        let objects: Vec<Option<&Map<String, Value>>> =
            metadata.iter().map(|all| all.0.get(METADATA_FILTER)?.as_object()).collect();

        // Places in the list of all endpoints, by subset.
        let mut places: BTreeMap<SubsetValues, Vec<usize>> = BTreeMap::new();
        let mut single = BTreeSet::new();
        let mut duplicates = 0;
        for (place, object) in objects.iter().enumerate() {
            let Some(object) = object else { continue };
            for selector in &subsets.selectors {
                for values in combinations(object, &selector.keys, subsets.list_as_any) {
                    let known = places.entry(values.clone()).or_default();
                    if known.is_empty() && selector.single_host {
                        single.insert(values.clone());
                    }
                    if known.last() == Some(&place) {
                        continue; // by another selector of the same keys, or by a value that stands there twice
                    }
                    if !known.is_empty() && single.contains(&values) {
                        duplicates += 1;
                        continue;
                    }
                    known.push(place);
                }
            }
        }
        let hosts = |places: &[usize]| {
            let weighted = config.locality_weighted && subsets.locality_weight_aware;
            let members = restrict(whole, places, subsets.scale_locality_weight);
            Subset::Hosts(Box::new(HostSet::part(
                whole.generation,
                members,
                config,
                policy,
                weighted,
                local,
            )))
        };
        let falls_back_to = |fallback: Fallback, of_selector: SelectorFallback| {
            subsets.fallback == fallback
                || subsets.selectors.iter().any(|selector| selector.fallback == of_selector)
        };
        let mut list = Vec::new();
        let mut any = None;
        if subsets.panic_mode_any
            || falls_back_to(Fallback::AnyEndpoint, SelectorFallback::AnyEndpoint)
        {
            any = Some(list.len());
            list.push(hosts(&(0..objects.len()).collect::<Vec<_>>()));
        }
        let mut default = None;
        if falls_back_to(Fallback::DefaultSubset, SelectorFallback::DefaultSubset) {
            let wanted = &subsets.default_subset;
            let in_default = |object: Option<&Map<String, Value>>| {
                wanted.is_empty()
                    || object.is_some_and(|object| holds(object, wanted, subsets.list_as_any))
            };
            let places = objects.iter().enumerate().filter(|(_, object)| in_default(**object));
            default = Some(list.len());
            list.push(hosts(&places.map(|(place, _)| place).collect::<Vec<_>>()));
        }
        let mut by_values = BTreeMap::new();
        for (values, places) in places {
            let only = places.first().and_then(|&place| whole.endpoints().nth(place));
            let subset = match only {
                Some(only) if single.contains(&values) => Subset::Single(Arc::clone(only)),
                _ => hosts(&places),
            };
            by_values.insert(values, list.len());
            list.push(subset);
        }
        Self { config: subsets.clone(), list, by_values, any, default, duplicates }
    }

    /// The subset with this index.
    pub(crate) fn get(&self, index: usize) -> Option<&Subset> {
        self.list.get(index)
    }

    /// Those that selectors made, by their keys and values.
    pub(crate) fn selected(&self) -> impl ExactSizeIterator<Item = &SubsetValues> {
        self.by_values.keys()
    }

    /// Where a request may go for which its route asks `criteria`.
    pub(crate) fn steps(&self, criteria: Option<&MetadataCriteria>) -> SmallVec<[Step; 1]> {
        let pairs = criteria.map_or(&[][..], MetadataCriteria::pairs);
        let pairs: Vec<(&str, &Value)> = pairs.iter().map(|(key, value)| (&**key, value)).collect();
        let list = pairs.iter().find(|(key, _)| *key == FALLBACK_LIST && self.config.fallback_list);
        let Some((_, list)) = list else { return [self.step(&pairs)].into_iter().collect() };

        let others: Vec<_> =
            pairs.iter().copied().filter(|(key, _)| *key != FALLBACK_LIST).collect();
        let alternatives = list.as_array().map_or(&[][..], Vec::as_slice);
        if alternatives.is_empty() {
            return [self.step(&others)].into_iter().collect();
        }
        let with = |alternative: &Value| {
            let mut pairs: BTreeMap<&str, &Value> = others.iter().copied().collect();
            let own = alternative.as_object().into_iter().flatten();
            pairs.extend(own.map(|(key, value)| (key.as_str(), value)));
            self.step(&pairs.into_iter().collect::<Vec<_>>())
        };
        alternatives.iter().map(with).collect()
    }

    /// Where a request may go for which these pairs are asked, in the order of their keys.
    fn step(&self, pairs: &[(&str, &Value)]) -> Step {
        if self.config.allow_redundant_keys {
            let asked = |key: &str| pairs.iter().any(|(name, _)| *name == key);
            let mut selectors = self.config.selectors.iter();
            let selector = selectors.find(|selector| {
                !selector.keys.is_empty() && selector.keys.iter().all(|key| asked(key))
            });
            if let Some(selector) = selector {
                return self.exactly(&only(pairs, &selector.keys));
            }
        }
        self.exactly(pairs)
    }

    fn exactly(&self, pairs: &[(&str, &Value)]) -> Step {
        let values: SubsetValues =
            pairs.iter().map(|(key, value)| ((*key).into(), value.to_string())).collect();
        if let Some(&index) = self.by_values.get(&values) {
            return Step::Selected(index);
        }
        match self.config.selector_fallback(pairs.iter().map(|(key, _)| *key)) {
            SelectorFallback::NotDefined => {}
            SelectorFallback::None => return Step::Nowhere,
            SelectorFallback::AnyEndpoint => {
                return self.any.map_or(Step::Nowhere, Step::SelectorFallback);
            }
            SelectorFallback::DefaultSubset => {
                return self.default.map_or(Step::Nowhere, Step::SelectorFallback);
            }
            // Fewer than before, so this comes to an end.
            SelectorFallback::Keys(keys) => return self.step(&only(pairs, keys)),
        }
        let fallback = match self.config.fallback {
            Fallback::None => None,
            Fallback::AnyEndpoint => self.any,
            Fallback::DefaultSubset => self.default,
        };
        let panic = self.any.filter(|_| self.config.panic_mode_any);
        fallback.map_or(Step::Nowhere, |fallback| Step::Fallback(fallback, panic))
    }
}

/// Those pairs that have one of these keys.
fn only<'p>(
    pairs: &[(&'p str, &'p Value)],
    keys: &BTreeSet<Box<str>>,
) -> Vec<(&'p str, &'p Value)> {
    pairs.iter().copied().filter(|(key, _)| keys.contains(*key)).collect()
}

/// What an endpoint has under each of the keys; none if it lacks one. Where lists mean each of their values, every
/// combination of them.
fn combinations(
    object: &Map<String, Value>,
    keys: &BTreeSet<Box<str>>,
    list_as_any: bool,
) -> Vec<SubsetValues> {
    let mut all: Vec<SubsetValues> = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let Some(value) = object.get(&**key) else { return Vec::new() };
        let values = match value {
            Value::Array(list) if list_as_any => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let before = if at == 0 { vec![SubsetValues::new()] } else { all };
        let longer = before.iter().flat_map(|before| {
            values.iter().map(|value| {
                let mut longer = before.clone();
                longer.push((key.clone(), value.to_string()));
                longer
            })
        });
        all = longer.take(MOST_COMBINATIONS + 1).collect();
        if all.len() > MOST_COMBINATIONS {
            tracing::warn!(
                %key,
                "the metadata of an endpoint has more combinations of values than {MOST_COMBINATIONS}: the rest has no subset"
            );
            all.truncate(MOST_COMBINATIONS);
        }
    }
    all
}

/// Whether an endpoint has all of these values. A list has a value that is one of its own, where it means each of them.
fn holds(object: &Map<String, Value>, wanted: &Map<String, Value>, list_as_any: bool) -> bool {
    wanted.iter().all(|(key, value)| match object.get(key) {
        Some(Value::Array(list)) if list_as_any => list.contains(value),
        Some(own) => own == value,
        None => false,
    })
}

/// The members at these places of the list of all endpoints, in the same priorities and localities.
fn restrict(whole: &HostSet, places: &[usize], scale: bool) -> Vec<Members> {
    let mut places = places.iter().copied().peekable();
    let mut start = 0;
    let mut restricted = Vec::with_capacity(whole.priorities.len());
    for priority in &whole.priorities {
        let list = &priority.all.list;
        let end = start + list.len();
        let mut kept = Vec::new();
        while let Some(place) = places.next_if(|&place| place < end) {
            kept.push(place - start);
        }
        start = end;
        let localities = priority.localities.iter().map(|group| {
            let first = kept.partition_point(|&place| place < group.start);
            let last = kept.partition_point(|&place| place < group.start + group.count);
            let count = last - first;
            let weight = group
                .weight
                .map(|weight| if scale { scaled(weight, count, group.count) } else { weight });
            LocalityHosts { locality: Arc::clone(&group.locality), weight, start: first, count }
        });
        restricted.push(Members {
            localities: localities.collect(),
            all: kept.iter().filter_map(|&place| list.get(place).cloned()).collect(),
        });
    }
    restricted
}

/// The weight of a locality of which `part` of `all` endpoints are left, rounded; half up.
fn scaled(weight: u32, part: usize, all: usize) -> u32 {
    let (part, all) = (part as u64, all as u64);
    let doubled = (2 * u64::from(weight) * part + all).checked_div(2 * all).unwrap_or(0);
    u32::try_from(doubled).unwrap_or(u32::MAX)
}
