//! Delta: one resource type on one stream.

use crate::discovery::cache::{Names, Resource, TypeView};
use crate::discovery::resource_type::ResourceType;
use crate::discovery::subscription::{Ledger, Pending, Plan, Subscription};
use crate::discovery::wire::{RawResponse, control_plane};
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use prost::Message;
use std::sync::Arc;
use tokio::time::Instant;

/// A response is cut off behind the resource that makes it as large as this; the rest follows once it is answered.
/// gRPC clients refuse messages above 4 MiB unless told otherwise.
const RESPONSE_SIZE: usize = 2 << 20;

/// The state machine. The ledger holds what the client has; the difference to the view is what there is to send.
#[derive(Debug)]
pub(crate) struct Delta {
    kind: ResourceType,
    started: bool,
    wildcard: bool,
    named: Names,
    /// The first answer to a wildcard is given even if there is nothing to say.
    must_answer: bool,
    /// Names that are owed an answer, whatever the client has: it may have dropped it.
    due: Names,
    ledger: Ledger,
}

impl Delta {
    fn interests(&self, resource: &Resource) -> bool {
        (self.wildcard && resource.in_wildcard) || self.named.contains(&resource.name)
    }

    /// What is new or changed to the client, or owed to it.
    fn upserts<'a>(&'a self, view: &'a TypeView) -> impl Iterator<Item = &'a Arc<Resource>> {
        let by_wildcard = self.wildcard.then(|| view.resources.values()).into_iter().flatten();
        let by_wildcard = by_wildcard.filter(|it| it.in_wildcard && !self.named.contains(&it.name));
        let by_name = self.named.iter().filter_map(|name| view.resources.get(name));
        let of_interest = by_name.chain(by_wildcard);
        of_interest.filter(|it| self.due.contains(&it.name) || !self.ledger.has(it))
    }

    /// What the client has and the view has not.
    fn removals<'a>(&'a self, view: &'a TypeView) -> impl Iterator<Item = &'a Arc<str>> {
        let gone =
            |name: &Arc<str>| !view.resources.contains_key(name) && !view.held.contains(name);
        self.ledger.entries().map(|(name, _)| name).filter(move |name| gone(name))
    }

    /// Names that are owed the answer that they do not exist.
    fn missing<'a>(&'a self, view: &'a TypeView) -> impl Iterator<Item = &'a Arc<str>> {
        self.due
            .iter()
            .filter(|name| !view.resources.contains_key(*name) && !view.held.contains(*name))
    }

    fn subscribe(&mut self, name: &str) {
        if name == "*" && self.kind.is_full_state() {
            self.must_answer |= !self.wildcard;
            self.wildcard = true;
        } else if !name.is_empty() {
            self.named.insert(name.into());
            self.due.insert(name.into());
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == "*" && self.kind.is_full_state() {
            self.wildcard = false;
            let named = &self.named;
            self.ledger.retain(|name, _| named.contains(name));
            self.due.retain(|name| named.contains(name));
        } else if self.named.remove(name) {
            if self.wildcard {
                // The wildcard may still hold it: the client has to know.
                self.due.insert(name.into());
            } else {
                self.due.remove(name);
                self.ledger.forget(name);
            }
        }
    }
}

impl Subscription for Delta {
    type Request = DeltaDiscoveryRequest;

    fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            started: false,
            wildcard: false,
            named: Names::new(),
            must_answer: false,
            due: Names::new(),
            ledger: Ledger::default(),
        }
    }

    fn on_request(&mut self, request: &DeltaDiscoveryRequest) -> bool {
        let error = request.error_detail.as_ref().map(|status| status.message.as_str());
        self.ledger.answered(&request.response_nonce, error);
        let first = !self.started;
        self.started = true;
        // Names are taken in whatever the nonce says: a stale one must not lose a subscription.
        if first && request.resource_names_subscribe.is_empty() && self.kind.is_full_state() {
            self.wildcard = true;
            self.must_answer = true;
        }
        request.resource_names_subscribe.iter().for_each(|name| self.subscribe(name));
        request.resource_names_unsubscribe.iter().for_each(|name| self.unsubscribe(name));
        if first {
            for (name, version) in &request.initial_resource_versions {
                if self.named.contains(name.as_str()) {
                    // It says what it has: answered already, if it is that.
                    self.due.remove(name.as_str());
                } else if !self.wildcard {
                    continue;
                }
                self.ledger.brought(name, version);
            }
        }
        first
            || !request.resource_names_subscribe.is_empty()
            || !request.resource_names_unsubscribe.is_empty()
    }

    /// A removal in a response that was rejected is said again once something changed, as a resource would be.
    fn on_view(&mut self, view: &TypeView) {
        let absent = |name: &&Arc<str>| !view.resources.contains_key(*name);
        let subscribed = |name: &&Arc<str>| self.wildcard || self.named.contains(*name);
        let again = self.ledger.doubtful_removals().filter(absent).filter(subscribed);
        self.due.extend(again.cloned());
    }

    fn pending(&self, view: &TypeView) -> Pending {
        let owed = self.due.iter().any(|name| !view.held.contains(name));
        Pending {
            due: self.must_answer || owed,
            upserts: self.upserts(view).next().is_some(),
            removals: self.removals(view).next().is_some(),
        }
    }

    fn plan(&self, view: &TypeView, removals: bool) -> Plan {
        let mut size = 0;
        let resources = self.upserts(view).take_while(|resource| {
            let room = size < RESPONSE_SIZE;
            size += resource.as_delta().len();
            room
        });
        let resources = resources.cloned().collect();
        let mut removed: Names = self.missing(view).cloned().collect();
        if removals {
            removed.extend(self.removals(view).cloned());
        }
        let absent =
            |name: &&Arc<str>| !view.resources.contains_key(*name) && !view.held.contains(*name);
        let subscribed = |name: &&Arc<str>| self.wildcard || self.named.contains(*name);
        let doubtful = self.ledger.doubtful_removals().filter(absent).filter(subscribed);
        removed.extend(doubtful.cloned());
        Plan { resources, removed: removed.into_iter().collect(), keeps_removed: false }
    }

    fn sent(&mut self, plan: &Plan, nonce: u64, now: Instant) {
        self.must_answer = false;
        for name in plan.resources.iter().map(|it| &it.name).chain(&plan.removed) {
            self.due.remove(name);
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
        let head = DeltaDiscoveryResponse {
            system_version_info: view.version.to_string(),
            type_url: kind.url().to_owned(),
            removed_resources: plan.removed.iter().map(|name| name.to_string()).collect(),
            nonce: nonce.to_string(),
            control_plane: control_plane(),
            ..Default::default()
        };
        RawResponse {
            head: head.encode_to_vec(),
            resources: plan.resources.iter().map(|it| it.as_delta().clone()).collect(),
        }
    }
}
