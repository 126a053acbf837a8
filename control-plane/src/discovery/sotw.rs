//! State of the world: one resource type on one stream.

use crate::discovery::cache::{Names, Resource, TypeView};
use crate::discovery::resource_type::ResourceType;
use crate::discovery::subscription::{Ledger, Pending, Plan, Subscription};
use crate::discovery::wire::{RawResponse, control_plane};
use outrigger_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// The state machine. Listeners and clusters are answered with all that was asked for, and what is missing is gone; the
/// other types with what changed, and nothing is ever said about what is gone.
#[derive(Debug)]
pub(crate) struct Sotw {
    kind: ResourceType,
    wildcard: bool,
    named: Names,
    /// A name was given once: from then on an empty list means nothing, not everything.
    explicit: bool,
    /// Of the last response; requests with another one are out of date.
    last_nonce: Option<String>,
    /// A complete answer is owed.
    must_answer: bool,
    /// Names that are owed an answer as soon as they exist, whatever was sent before.
    due: Names,
    ledger: Ledger,
}

impl Sotw {
    fn interests(&self, resource: &Resource) -> bool {
        (self.wildcard && resource.in_wildcard) || self.named.contains(&resource.name)
    }

    /// Everything that exists of what was asked for.
    fn desired(&self, view: &TypeView) -> BTreeMap<Arc<str>, Arc<Resource>> {
        let resources = view.resources.values();
        if self.wildcard {
            let of_interest = resources.filter(|resource| self.interests(resource));
            of_interest.map(|resource| (resource.name.clone(), resource.clone())).collect()
        } else {
            let named = self.named.iter().filter_map(|name| view.resources.get(name));
            named.map(|resource| (resource.name.clone(), resource.clone())).collect()
        }
    }

    /// What a type that is answered in parts has to send.
    fn parts<'a>(&'a self, view: &'a TypeView) -> impl Iterator<Item = &'a Arc<Resource>> {
        let existing = self.named.iter().filter_map(|name| view.resources.get(name));
        existing.filter(|it| self.due.contains(&it.name) || !self.ledger.has(it))
    }
}

impl Subscription for Sotw {
    type Request = DiscoveryRequest;

    fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            wildcard: false,
            named: Names::new(),
            explicit: false,
            last_nonce: None,
            must_answer: false,
            due: Names::new(),
            ledger: Ledger::default(),
        }
    }

    fn on_request(&mut self, request: &DiscoveryRequest) -> bool {
        let nonce = &request.response_nonce;
        let error = request.error_detail.as_ref().map(|status| status.message.as_str());
        self.ledger.answered(nonce, error);
        let first = nonce.is_empty();
        if !first && self.last_nonce.as_ref() != Some(nonce) {
            return false;
        }
        if first {
            self.ledger = Ledger::default();
        }

        let full_state = self.kind.is_full_state();
        self.explicit |= !request.resource_names.is_empty();
        let star = request.resource_names.iter().any(|name| name == "*");
        let wildcard = full_state && (star || !self.explicit);
        // An empty name names nothing, but says that the list is meant.
        let names = request.resource_names.iter().filter(|name| !name.is_empty());
        let named: Names = names
            .filter(|name| !full_state || *name != "*")
            .map(|name| name.as_str().into())
            .collect();

        let added: Names =
            if first { named.clone() } else { named.difference(&self.named).cloned().collect() };
        let wants_more = !added.is_empty() || (wildcard && (first || !self.wildcard));
        let changed = first || wants_more || named != self.named || wildcard != self.wildcard;
        self.wildcard = wildcard;
        self.named = named;
        if !changed {
            return false;
        }
        if full_state {
            self.must_answer |= wants_more;
        } else {
            self.due.retain(|name| self.named.contains(name));
            self.due.extend(added);
        }
        // What is not of interest any more is not sent, and its absence not reported.
        let (wildcard, named) = (self.wildcard, &self.named);
        self.ledger.retain(|name, entry| {
            let in_wildcard = entry.resource.as_ref().is_none_or(|it| it.in_wildcard);
            named.contains(name) || (wildcard && in_wildcard)
        });
        true
    }

    fn on_view(&mut self, view: &TypeView) {
        if !self.kind.is_full_state() {
            self.ledger
                .retain(|name, _| view.resources.contains_key(name) || view.held.contains(name));
        }
    }

    fn pending(&self, view: &TypeView) -> Pending {
        if !self.kind.is_full_state() {
            let due = self.due.iter().any(|name| view.resources.contains_key(name));
            return Pending { due, upserts: self.parts(view).next().is_some(), removals: false };
        }
        let desired = self.desired(view);
        Pending {
            due: self.must_answer,
            upserts: desired.values().any(|resource| !self.ledger.has(resource)),
            removals: self.ledger.entries().any(|(name, _)| !desired.contains_key(name)),
        }
    }

    fn plan(&self, view: &TypeView, removals: bool) -> Plan {
        if !self.kind.is_full_state() {
            return Plan { resources: self.parts(view).cloned().collect(), ..Plan::default() };
        }
        let mut desired = self.desired(view);
        let mut keeps_removed = false;
        if !removals {
            for (name, entry) in self.ledger.entries() {
                if let Some(resource) = &entry.resource
                    && !desired.contains_key(name)
                {
                    keeps_removed = true;
                    desired.insert(name.clone(), resource.clone());
                }
            }
        }
        let resources = desired.into_values().collect();
        Plan { resources, removed: Vec::new(), keeps_removed }
    }

    fn sent(&mut self, plan: &Plan, nonce: u64, now: Instant) {
        self.last_nonce = Some(nonce.to_string());
        self.must_answer = false;
        for resource in &plan.resources {
            self.due.remove(&resource.name);
        }
        if self.kind.is_full_state() {
            let names: Names = plan.resources.iter().map(|it| it.name.clone()).collect();
            self.ledger.retain(|name, _| names.contains(name));
        }
        self.ledger.sent(plan, nonce, now);
    }

    fn resend(&mut self, name: &Arc<str>) {
        if self.ledger.get(name).is_some() {
            self.due.insert(name.clone());
        }
    }

    fn wants(&self, resource: &Resource) -> bool {
        self.interests(resource)
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn encode(kind: ResourceType, view: &TypeView, plan: &Plan, nonce: u64) -> RawResponse {
        // A version stands for one content: what still holds the old and the new is neither.
        let suffix = if plan.keeps_removed { "+removing" } else { "" };
        let head = DiscoveryResponse {
            version_info: format!("{}{suffix}", view.version),
            type_url: kind.url().to_owned(),
            nonce: nonce.to_string(),
            control_plane: control_plane(),
            ..Default::default()
        };
        RawResponse {
            head: head.encode_to_vec(),
            resources: plan.resources.iter().map(|it| it.as_any().clone()).collect(),
        }
    }
}
