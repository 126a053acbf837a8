//! Who refers to what: the names that sources are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Feed, Warming};
use crate::config::config_source::Origin;
use crate::xds::Kind;
use crate::xds::needs::{Need, Needs, Wait};
use crate::xds::subscription::Interest;

/// How many refer to each name of a type.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) counts: BTreeMap<Arc<str>, usize>,
    pub(super) changed: bool,
}

impl Uses {
    pub(super) fn add(&mut self, name: &Arc<str>) {
        let count = self.counts.entry(Arc::clone(name)).or_insert(0);
        *count += 1;
        self.changed |= *count == 1;
    }

    pub(super) fn remove(&mut self, name: &Arc<str>) {
        if let Some(count) = self.counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
                self.changed = true;
            }
        }
    }
}

impl Warming {
    /// The names that are needed, of each type and source where they changed since this was last called.
    pub(crate) fn take_interests(&mut self) -> Vec<(Feed, Interest)> {
        let mut interests = Vec::new();
        self.uses.retain(|feed, uses| {
            if std::mem::take(&mut uses.changed) {
                let names = uses.counts.keys().map(Arc::clone).collect();
                interests.push((feed.clone(), Interest::Names(Arc::new(names))));
            }
            !uses.counts.is_empty()
        });
        interests
    }

    /// Every name that is needed, and whether its source has said what there is to say of it.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (Kind, &Arc<str>, bool)> {
        self.uses.iter().flat_map(move |((kind, origin), uses)| {
            uses.counts.keys().map(move |name| {
                let need = Need { kind: *kind, name: Arc::clone(name), origin: origin.clone() };
                (*kind, name, self.is_here(&need))
            })
        })
    }

    /// Another source than that of `need` from which this name is taken already, by another cluster or listener than
    /// `user`. Names are known by type: one that comes from two sources would be one of two things.
    pub(crate) fn rival(&self, need: &Need, user: (Kind, &str)) -> Option<&Origin> {
        let own =
            |origin: &Origin| {
                let rival = Need { origin: origin.clone(), ..need.clone() };
                let refers = |needs: Vec<(Need, Wait)>| {
                    usize::from(needs.iter().any(|(need, _)| *need == rival))
                };
                match user {
                    (Kind::Cluster, name) => self.clusters.get(name).map_or(0, |slot| {
                        slot.versions().map(|version| refers(version.needs())).sum()
                    }),
                    (_, name) => self.listeners.get(name).map_or(0, |slot| {
                        slot.versions().map(|version| refers(version.needs())).sum()
                    }),
                }
            };
        self.uses.iter().find_map(|((kind, origin), uses)| {
            let is_other = *kind == need.kind && *origin != need.origin;
            let count = uses.counts.get(&need.name).copied().unwrap_or(0);
            (is_other && count > 0 && count > own(origin)).then_some(origin)
        })
    }

    /// Who is asked for a name, if anybody needs it.
    pub(crate) fn origin_of(&self, kind: Kind, name: &str) -> Option<Origin> {
        let mut feeds = self.uses.iter().filter(|((other, _), _)| *other == kind);
        let (feed, _) = feeds.find(|(_, uses)| uses.counts.contains_key(name))?;
        Some(feed.1.clone())
    }

    /// What the server itself needs, as long as it runs.
    pub(crate) fn need(&mut self, needs: &[(Need, Wait)]) {
        self.add_uses(needs);
    }

    /// What the server itself needs no longer.
    pub(crate) fn need_no_more(&mut self, needs: &[(Need, Wait)]) {
        self.remove_uses(needs);
    }

    /// Whether something was fetched.
    pub(crate) fn is_here(&self, need: &Need) -> bool {
        self.here.contains(need)
    }

    pub(super) fn add_uses(&mut self, needs: &[(Need, Wait)]) {
        for (need, _) in needs {
            self.uses.entry((need.kind, need.origin.clone())).or_default().add(&need.name);
        }
    }

    pub(super) fn remove_uses(&mut self, needs: &[(Need, Wait)]) {
        for (need, _) in needs {
            if let Some(uses) = self.uses.get_mut(&(need.kind, need.origin.clone())) {
                uses.remove(&need.name);
            }
        }
    }
}
