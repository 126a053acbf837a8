//! What both protocol variants share: the rules of one resource type on one stream, as pure state machines without I/O.
//!
//! A machine is told of each request ([`Subscription::on_request`]) and asked what a view gives reason to send
//! ([`Subscription::pending`], [`Subscription::plan`]). It never decides *when*: that is the stream's business, see
//! [`super::ordering`]. The two machines are [`super::sotw`] and [`super::delta`]; both keep their books in a [`Ledger`].

use crate::discovery::cache::{Names, Resource, TypeView};
use crate::discovery::resource_type::ResourceType;
use crate::discovery::wire::RawResponse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For so long an unanswered response holds back what should follow it.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(1);

/// Unanswered responses that are remembered; of older ones an answer says nothing any more.
const OUTSTANDING: usize = 32;

/// One resource type on one stream.
pub(crate) trait Subscription: Send + 'static {
    /// A request of this protocol variant.
    type Request: Request;

    /// Before the first request.
    fn new(kind: ResourceType) -> Self;

    /// Takes a request in. Returns whether it changed what is pending.
    fn on_request(&mut self, request: &Self::Request) -> bool;

    /// Drops from the books what the view does not have any more and the client is never told about.
    fn on_view(&mut self, view: &TypeView);

    /// What there is to send.
    fn pending(&self, view: &TypeView) -> Pending;

    /// The next response; with `removals` it says what is gone, without it keeps still about that.
    fn plan(&self, view: &TypeView, removals: bool) -> Plan;

    /// The plan is on its way.
    fn sent(&mut self, plan: &Plan, nonce: u64, now: Instant);

    /// This resource, if it was sent, is to be sent again though it did not change.
    fn resend(&mut self, name: &Arc<str>);

    /// Whether the client asked for it, by name or by wildcard.
    fn wants(&self, resource: &Resource) -> bool;

    /// The books.
    fn ledger(&self) -> &Ledger;

    /// The plan on the wire.
    fn encode(kind: ResourceType, view: &TypeView, plan: &Plan, nonce: u64) -> RawResponse;
}

/// What the requests of both variants have in common.
pub(crate) trait Request: prost::Message + Default + 'static {
    /// Type URL; may be empty where the service implies it.
    fn type_url(&self) -> &str;
    /// Who asks; only certain in the first request of a stream.
    fn node(&self) -> Option<&outrigger_proto::envoy::config::core::v3::Node>;
}

/// What there is to send of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Something that the client asked for and that can be answered now.
    pub(crate) due: bool,
    /// Something new or changed.
    pub(crate) upserts: bool,
    /// Something gone.
    pub(crate) removals: bool,
}

/// The content of one response.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) removed: Vec<Arc<str>>,
    /// It still holds what is to be removed, which a later response will do.
    pub(crate) keeps_removed: bool,
}

/// What was sent of one type, and how the client took it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: HashMap<Arc<str>, Entry>,
    /// Responses without an answer, oldest first.
    outstanding: VecDeque<Outstanding>,
    /// Of the last answer, if it rejected a response that held no resource to blame.
    rejection: Option<Arc<str>>,
    /// Removals in responses that were rejected: whether the client carried them out is not known.
    doubtful_removals: Names,
}

/// What the client was last sent under a name, or told us that it has.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Hash of the content.
    pub(crate) version: Arc<str>,
    /// Absent if the client brought it from an earlier stream.
    pub(crate) resource: Option<Arc<Resource>>,
    /// How it was taken.
    pub(crate) taken: Taken,
}

/// How a client took a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has not said.
    Unknown,
    /// It has it.
    Accepted,
    /// It refused it, saying this.
    Rejected(Arc<str>),
}

#[derive(Debug)]
struct Outstanding {
    nonce: u64,
    resources: Vec<Arc<Resource>>,
    removed: Vec<Arc<str>>,
    sent_at: Instant,
}

impl Ledger {
    /// What the client has under this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Whether the client was sent, or has, exactly this.
    pub(crate) fn has(&self, resource: &Resource) -> bool {
        self.get(&resource.name).is_some_and(|entry| entry.version == resource.version)
    }

    /// Everything by name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.iter()
    }

    /// The client has this from an earlier stream.
    pub(crate) fn brought(&mut self, name: &str, version: &str) {
        let entry = Entry { version: version.into(), resource: None, taken: Taken::Accepted };
        self.entries.insert(name.into(), entry);
    }

    /// Forgets what does not satisfy the condition.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Arc<str>, &Entry) -> bool) {
        self.entries.retain(|name, entry| keep(name, entry));
    }

    /// Forgets a name.
    pub(crate) fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// A response is on its way.
    pub(crate) fn sent(&mut self, plan: &Plan, nonce: u64, now: Instant) {
        for name in plan.resources.iter().map(|it| &it.name).chain(&plan.removed) {
            self.doubtful_removals.remove(name);
        }
        for name in &plan.removed {
            self.entries.remove(name);
        }
        for resource in &plan.resources {
            // A full response repeats what the client took before.
            let taken = match self.entries.get(&resource.name) {
                Some(entry)
                    if entry.version == resource.version && entry.taken == Taken::Accepted =>
                {
                    Taken::Accepted
                }
                _ => Taken::Unknown,
            };
            let entry = Entry {
                version: resource.version.clone(),
                resource: Some(resource.clone()),
                taken,
            };
            self.entries.insert(resource.name.clone(), entry);
        }
        if self.outstanding.len() == OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding {
            nonce,
            resources: plan.resources.clone(),
            removed: plan.removed.clone(),
            sent_at: now,
        });
    }

    /// The client answered a response of this type; of another one if the nonce is not found, which says nothing.
    pub(crate) fn answered(&mut self, nonce: &str, error: Option<&str>) {
        let Ok(nonce) = nonce.parse::<u64>() else { return };
        let Some(position) = self.outstanding.iter().position(|it| it.nonce == nonce) else {
            return;
        };
        // An answer to a later response says that the earlier ones were seen, not how they were taken.
        let Some(response) = self.outstanding.drain(..=position).next_back() else { return };
        let Some(error) = error else {
            self.rejection = None;
            self.take(&response.resources, |_| Taken::Accepted);
            return;
        };
        self.doubtful_removals.extend(response.removed);
        let reason: Arc<str> = error.trim().into();
        let named = response.resources.iter().any(|it| names(error, &it.name));
        self.rejection = response.resources.is_empty().then(|| reason.clone());
        self.take(&response.resources, |resource| {
            if !named || names(error, &resource.name) {
                Taken::Rejected(reason.clone())
            } else {
                Taken::Accepted
            }
        });
    }

    fn take(&mut self, resources: &[Arc<Resource>], how: impl Fn(&Resource) -> Taken) {
        for resource in resources {
            if let Some(entry) = self.entries.get_mut(&resource.name)
                && entry.version == resource.version
            {
                entry.taken = how(resource);
            }
        }
    }

    /// Removals in responses that were rejected, to be said again with the next response.
    pub(crate) fn doubtful_removals(&self) -> impl Iterator<Item = &Arc<str>> {
        self.doubtful_removals.iter()
    }

    /// Whether the last response is neither answered nor too old to wait for.
    pub(crate) fn in_flight(&self, now: Instant) -> bool {
        self.patience_ends().is_some_and(|at| now < at)
    }

    /// Until when the last response, if it is unanswered, is waited for.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        self.outstanding.back().map(|last| last.sent_at + ACK_PATIENCE)
    }

    /// Whether an answer is awaited, however long ago the response was sent.
    pub(crate) fn unanswered(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Why something is rejected that has not been replaced since.
    pub(crate) fn rejected(&self) -> Option<&str> {
        let entry = self.entries.values().find_map(|entry| match &entry.taken {
            Taken::Rejected(reason) => Some(reason),
            Taken::Unknown | Taken::Accepted => None,
        });
        entry.or(self.rejection.as_ref()).map(|reason| &**reason)
    }
}

/// Whether an error message speaks of a resource: its name stands in it, not as a part of a longer name.
fn names(message: &str, name: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '|' | '.');
    !name.is_empty()
        && message.match_indices(name).any(|(start, found)| {
            let before = message[..start].chars().next_back();
            let mut after = message[start + found.len()..].chars();
            // A full stop ends a sentence more often than it goes on with a name.
            let next = match after.next() {
                Some('.') => after.next(),
                next => next,
            };
            !before.is_some_and(of_a_name) && !next.is_some_and(of_a_name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_attributed_by_whole_names() {
        assert!(names("Error adding/updating listener(s) outbound|80: bad", "outbound|80"));
        assert!(names("cluster api. Gone", "api"));
        assert!(!names("cluster api-2: bad", "api"));
        assert!(!names("cluster outbound|80||api: bad", "api"));
        assert!(!names("anything", ""));
    }
}
