//! One type of resource on one stream: names, versions, nonces, ACK and NACK. Pure: no I/O, no time.
//!
//! Both variants of the protocol, by the rules of Envoy's "xDS REST and gRPC protocol" page. What is ours on top:
//! a response is applied resource by resource, and what is bad in it is named, all of it, in one NACK.
//!
//! The life of a response: [`Subscription::receive`] takes it apart, the caller applies what is in it, and
//! [`Subscription::finish`] learns what was refused. [`Subscription::next_request`] then has the answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use outrigger_proto::google::rpc::Status;

pub(crate) use self::interest::Interest;
pub(crate) use self::messages::{Incoming, Request, Response, Update};
use super::{Kind, Refusal};
use crate::config::bootstrap::Variant;

mod delta;
mod interest;
mod messages;
mod nack;
mod resource;
mod sotw;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;

/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// ACK or NACK that is not sent yet.
#[derive(Debug)]
struct Answer {
    nonce: String,
    version: String,
    error: Option<Status>,
    /// What was wanted when the response was read. A state-of-the-world answer says so even if that has changed since:
    /// what was ignored for being unwanted must be seen to be missing, or it is never sent again.
    wanted: Interest,
}

/// The state of one type.
#[derive(Debug)]
pub(crate) struct Subscription {
    kind: Kind,
    variant: Variant,
    wanted: Interest,
    /// What the server was told on this stream; `None`: nothing yet.
    told: Option<Interest>,
    /// Names that we have, with the version last accepted; empty: the server has none. Survives the stream.
    accepted: HashMap<Arc<str>, String>,
    /// State of the world: version of the last response that was accepted. Survives the stream.
    version: String,
    /// State of the world: nonce of the last response on this stream.
    nonce: String,
    answers: VecDeque<Answer>,
    /// `wanted` was changed since unwanted names were last forgotten.
    unsettled: bool,
    forgotten: Vec<Arc<str>>,
}

impl Subscription {
    /// A type that nothing is known of.
    pub(crate) fn new(kind: Kind, variant: Variant) -> Self {
        Self {
            kind,
            variant,
            wanted: Interest::None,
            told: None,
            accepted: HashMap::new(),
            version: String::new(),
            nonce: String::new(),
            answers: VecDeque::new(),
            unsettled: false,
            forgotten: Vec::new(),
        }
    }

    /// Its type.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether nothing is wanted, and nothing kept that would have to be forgotten yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.wanted.is_none() && self.accepted.is_empty() && self.forgotten.is_empty()
    }

    /// Forgets what is not wanted, whether the server was told or not: it will be no more.
    pub(crate) fn abandon(&mut self) {
        self.answers.clear();
        self.forget_all_but(&Interest::None);
    }

    /// Takes over what was accepted in an earlier life, before the first stream.
    pub(crate) fn restore(
        &mut self,
        version: String,
        resources: impl IntoIterator<Item = (Arc<str>, String)>,
    ) {
        self.version = version;
        self.accepted.extend(resources);
    }

    /// Whether nothing is wanted.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.wanted.is_none()
    }

    /// Says what is wanted from now on. A name that is no longer wanted stays until the server was told so: see
    /// [`Subscription::take_forgotten`].
    pub(crate) fn want(&mut self, interest: Interest) {
        self.wanted = interest;
        self.unsettled = true;
    }

    /// Names and versions of what is accepted.
    #[cfg(test)]
    pub(crate) fn accepted(&self) -> &HashMap<Arc<str>, String> {
        &self.accepted
    }

    /// A new stream: nonces and what the server was told belonged to the old one.
    pub(crate) fn connected(&mut self) {
        self.told = None;
        self.nonce.clear();
        self.answers.clear();
    }

    /// The time to live of a resource is over: should it come again, it is new.
    pub(crate) fn expired(&mut self, name: &str) {
        if self.kind.is_wildcard() {
            self.accepted.remove(name);
        } else if let Some(version) = self.accepted.get_mut(name) {
            version.clear();
        }
    }

    /// The next request to send, or `None` when the server knows all there is to know. Call it until it is.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        let first = self.told.is_none();
        if first && self.wanted.is_none() {
            if self.wanted != Interest::None {
                self.forget_all_but(&self.wanted.clone());
            }
            return None;
        }
        let answer = self.answers.pop_front();
        let now = match (&answer, self.variant) {
            (Some(answer), Variant::StateOfTheWorld) => answer.wanted.clone(),
            _ => self.wanted.clone(),
        };
        let changed = self.told.as_ref() != Some(&now);
        if changed || self.unsettled {
            self.forget_all_but(&now);
            self.unsettled = now != self.wanted || !self.answers.is_empty();
        }
        if answer.is_none() && !changed {
            return None;
        }
        let request = match self.variant {
            Variant::StateOfTheWorld => Request::StateOfTheWorld(self.sotw_request(&now, answer)),
            Variant::Delta => Request::Delta(self.delta_request(answer)),
        };
        self.told = Some(now);
        Some(request)
    }

    /// Names that the server was told to leave out: they may come again only after they were asked for again, so what
    /// was kept of them has to go.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.forgotten)
    }

    /// Forgets what the server was told to leave out, unless a request that is still to come names it: whether the server
    /// will repeat it then depends on which requests it finds stale.
    fn forget_all_but(&mut self, told: &Interest) {
        let Self { accepted, forgotten, wanted, answers, kind, .. } = self;
        accepted.retain(|name, _| {
            let keep = covers(*kind, told, name)
                || covers(*kind, wanted, name)
                || answers.iter().any(|answer| covers(*kind, &answer.wanted, name));
            if !keep {
                forgotten.push(Arc::clone(name));
            }
            keep
        });
    }

    /// Takes a response apart.
    pub(crate) fn receive(&mut self, response: Response) -> Update {
        match response {
            Response::StateOfTheWorld(response) => self.receive_sotw(response),
            Response::Delta(response) => self.receive_delta(response),
        }
    }

    /// Whether a resource was asked for. One that the server was not yet told to leave out still counts: should it be
    /// wanted again before that, the server will not repeat it.
    fn concerns_us(&self, name: &str) -> bool {
        covers(self.kind, &self.wanted, name)
            || self.told.as_ref().is_some_and(|told| covers(self.kind, told, name))
    }

    fn malformed(&self, update: Update, name: &str) -> Update {
        Update {
            malformed: Some(format!("{} {name:?} is in the response more than once", self.kind)),
            version: update.version,
            nonce: update.nonce,
            ..Update::default()
        }
    }

    /// Takes note of what became of an update, and queues the answer. `refused` is all that was refused, also while it
    /// was applied.
    pub(crate) fn finish(&mut self, update: Update, refused: &[Refusal]) {
        if let Some(reason) = update.malformed {
            self.answer(update.nonce, Some(reason));
            return;
        }
        let bad: HashSet<&str> = refused.iter().map(|refusal| &*refusal.name).collect();
        for resource in update.resources {
            if resource.body.is_none() && self.kind.has_prefixes() {
                // Not a heartbeat: there is no such thing.
                self.accepted.remove(&resource.name);
            } else if resource.body.is_some() && !bad.contains(&*resource.name) {
                self.accepted.insert(resource.name, resource.version);
            }
        }
        for name in &update.removed {
            if self.kind.is_wildcard() || self.kind.has_prefixes() {
                self.accepted.remove(name);
            } else if let Some(version) = self.accepted.get_mut(name) {
                // Whatever uses it keeps it, but it is no version that the server could compare with.
                version.clear();
            }
        }
        if refused.is_empty() {
            self.version = update.version;
            self.answer(update.nonce, None);
        } else {
            self.answer(update.nonce, Some(nack::describe(refused)));
        }
    }

    fn answer(&mut self, nonce: String, error: Option<String>) {
        let error =
            error.map(|message| Status { code: INVALID_ARGUMENT, message, ..Status::default() });
        let (version, wanted) = (self.version.clone(), self.wanted.clone());
        self.answers.push_back(Answer { nonce, version, error, wanted });
    }
}

/// Whether a name is asked for, by itself or by one that stands for all that begin with it.
fn covers(kind: Kind, interest: &Interest, name: &str) -> bool {
    interest.includes(name)
        || kind.has_prefixes()
            && name.rsplit_once('/').is_some_and(|(prefix, _)| interest.includes(prefix))
}
