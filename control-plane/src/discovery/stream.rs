//! One stream: the five types of a client, their order, and what it has in effect. Pure: time and views are handed in.

use crate::discovery::cache::{Resource, View};
use crate::discovery::effect::{self, Differences};
use crate::discovery::ordering::{self, TypeState};
use crate::discovery::resource_type::ResourceType;
use crate::discovery::subscription::{Ledger, Pending, Subscription, Taken};
use crate::discovery::wire::RawResponse;
use std::sync::Arc;
use tokio::time::Instant;

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    /// By [`ResourceType::index`].
    types: [S; 5],
    /// What is pending by type; absent when it has to be found out again.
    pending: [Option<Pending>; 5],
    view: Option<Arc<View>>,
    /// Of the last response, of whichever type.
    nonce: u64,
    /// The newest revision that the client has in effect.
    revision: u64,
    /// The newest version of the registry whose endpoints the client has taken, or had its time to.
    endpoints_taken: u64,
}

/// How a client stands with one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has what there is.
    Ok,
    /// Something is to be sent, or to be answered.
    Pending,
    /// It rejected something that has not been replaced since.
    Rejected(String),
}

/// How a client stands with one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Uptake {
    /// It has it as it is now.
    Accepted,
    /// It has not said so yet.
    Pending,
    /// It refused it as it is now, saying this.
    Rejected(Arc<str>),
}

impl<S: Subscription> Default for Stream<S> {
    fn default() -> Self {
        Self {
            types: ResourceType::ALL.map(S::new),
            pending: [None; 5],
            view: None,
            nonce: 0,
            revision: 0,
            endpoints_taken: 0,
        }
    }
}

impl<S: Subscription> Stream<S> {
    /// A request for this type came in.
    pub(crate) fn on_request(&mut self, kind: ResourceType, request: &S::Request) {
        let index = kind.index();
        if self.types[index].on_request(request) {
            self.pending[index] = None;
        }
    }

    /// From now on this is what there is. A view that was not sent yet is skipped.
    pub(crate) fn on_view(&mut self, view: Arc<View>) {
        for kind in ResourceType::ALL {
            let index = kind.index();
            let same = self
                .view
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(&old.of(kind).resources, &view.of(kind).resources));
            if !same {
                self.types[index].on_view(view.of(kind));
                self.pending[index] = None;
            }
        }
        self.view = Some(view);
    }

    /// The next response that may be sent now, taken to be sent.
    pub(crate) fn next(&mut self, now: Instant) -> Option<RawResponse> {
        let view = self.view.clone()?;
        let states = ResourceType::ALL.map(|kind| self.state(kind, &view, now));
        let Some(step) = ordering::next(&states) else {
            self.settle(&view, &states);
            return None;
        };
        let kind = step.kind;
        let plan = self.types[kind.index()].plan(view.of(kind), step.removals);
        // A changed cluster is warmed again, and waits for endpoints that did not change.
        let rewarmed: Vec<Arc<str>> = match kind {
            ResourceType::Cluster => {
                let ledger = self.types[kind.index()].ledger();
                let changed = plan.resources.iter().filter(|cluster| !ledger.has(cluster));
                changed.map(|cluster| cluster.name.clone()).collect()
            }
            _ => Vec::new(),
        };
        self.nonce += 1;
        self.types[kind.index()].sent(&plan, self.nonce, now);
        self.pending[kind.index()] = None;
        if !rewarmed.is_empty() {
            let endpoints = ResourceType::Endpoint.index();
            rewarmed.iter().for_each(|name| self.types[endpoints].resend(name));
            self.pending[endpoints] = None;
        }
        Some(S::encode(kind, view.of(kind), &plan, self.nonce))
    }

    /// When [`Stream::next`] may have something to send that it does not have now.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.types.iter().filter_map(|it| it.ledger().patience_ends());
        waits.filter(|at| *at > now).min()
    }

    fn state(&mut self, kind: ResourceType, view: &View, now: Instant) -> TypeState {
        let index = kind.index();
        let subscription = &self.types[index];
        let pending =
            *self.pending[index].get_or_insert_with(|| subscription.pending(view.of(kind)));
        TypeState { pending, in_flight: subscription.ledger().in_flight(now) }
    }

    fn settle(&mut self, view: &View, states: &[TypeState; 5]) {
        let endpoints = ResourceType::Endpoint.index();
        if !states[endpoints].in_flight && states[endpoints].pending == Pending::default() {
            self.endpoints_taken = view.live;
        }
        let nothing_pending = states.iter().all(|state| state.pending == Pending::default());
        let taken = |ledger: &Ledger| !ledger.unanswered() && ledger.rejected().is_none();
        if nothing_pending && self.types.iter().all(|it| taken(it.ledger())) {
            self.revision = view.revision;
        }
    }

    /// The newest revision that the client has in effect, whole.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest version of the registry whose endpoints the client has taken, or had its time to.
    /// `None`: it has no view yet, and so no endpoints to leave.
    pub(crate) fn endpoints_taken(&self) -> Option<u64> {
        self.view.is_some().then_some(self.endpoints_taken)
    }

    /// How the client stands with a type.
    pub(crate) fn standing(&self, kind: ResourceType) -> Standing {
        let subscription = &self.types[kind.index()];
        let ledger = subscription.ledger();
        if let Some(reason) = ledger.rejected() {
            return Standing::Rejected(reason.to_owned());
        }
        let nothing = |view: &Arc<View>| subscription.pending(view.of(kind)) == Pending::default();
        match &self.view {
            Some(view) if !ledger.unanswered() && nothing(view) => Standing::Ok,
            None if !ledger.unanswered() => Standing::Ok,
            _ => Standing::Pending,
        }
    }

    /// What becomes of the client's resources when one view follows another.
    pub(crate) fn effect(&self, now: &View, then: &View) -> Differences {
        effect::differences(now, then, &|kind, resource| self.types[kind.index()].wants(resource))
    }

    /// How the client stands with each resource of its view that it asked for and that satisfies the condition.
    pub(crate) fn uptake(&self, condition: impl Fn(&Resource) -> bool) -> Vec<Uptake> {
        let Some(view) = &self.view else { return Vec::new() };
        let mut uptake = Vec::new();
        for kind in ResourceType::ALL {
            let subscription = &self.types[kind.index()];
            for resource in view.of(kind).resources.values() {
                if !condition(resource) || !subscription.wants(resource) {
                    continue;
                }
                let entry = subscription.ledger().get(&resource.name);
                let entry = entry.filter(|entry| entry.version == resource.version);
                uptake.push(match entry.map(|entry| &entry.taken) {
                    Some(Taken::Accepted) => Uptake::Accepted,
                    Some(Taken::Rejected(reason)) => Uptake::Rejected(reason.clone()),
                    Some(Taken::Unknown) | None => Uptake::Pending,
                });
            }
        }
        uptake
    }
}

#[cfg(test)]
#[path = "stream_tests/mod.rs"]
mod tests;
