//! One type of resource on one stream: names, versions, nonces, ACK and NACK. Pure: no I/O, no time.
//!
//! Both variants of the protocol, by the rules of Envoy's "xDS REST and gRPC protocol" page. What is ours on top:
//! a response is applied resource by resource, and what is bad in it is named, all of it, in one NACK.
//!
//! The life of a response: [`Subscription::receive`] takes it apart, the caller applies what is in it, and
//! [`Subscription::finish`] learns what was refused. [`Subscription::next_request`] then has the answer.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::google::rpc::Status;
use prost::Message;

use super::{Kind, Refusal};
use crate::config::Rejected;
use crate::config::bootstrap::Variant;

/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// Longest text of a NACK. A server logs it for each client: it has to name what is bad, not to be complete.
const NACK_TEXT_LIMIT: usize = 8 << 10;

/// What we want of a type. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) enum Interest {
    /// Nothing yet: the server is not asked.
    #[default]
    None,
    /// All there is (listeners and clusters).
    Everything,
    /// These. May be empty.
    Names(Arc<BTreeSet<Arc<str>>>),
}

impl PartialEq for Interest {
    /// Sets of ten thousand names are compared with each answer: mostly they are one and the same.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Everything, Self::Everything) => true,
            (Self::Names(a), Self::Names(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

impl Interest {
    fn includes(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Everything => true,
            Self::Names(names) => names.contains(name),
        }
    }

    fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::Everything => false,
            Self::Names(names) => names.is_empty(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            // An empty list is the wildcard that every server knows, as long as no name was ever sent.
            Self::None | Self::Everything => Vec::new(),
            Self::Names(names) => names.iter().map(|name| name.to_string()).collect(),
        }
    }
}

/// A request of either variant, without the node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// State of the world.
    StateOfTheWorld(DiscoveryRequest),
    /// Incremental.
    Delta(DeltaDiscoveryRequest),
}

/// A response of either variant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Response {
    /// State of the world.
    StateOfTheWorld(DiscoveryResponse),
    /// Incremental.
    Delta(DeltaDiscoveryResponse),
}

impl Response {
    /// Which type it is about.
    pub(crate) fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(response) => &response.type_url,
            Self::Delta(response) => &response.type_url,
        }
    }

    /// Who answered, if the server says so (`control_plane.identifier`).
    pub(crate) fn control_plane(&self) -> Option<&str> {
        let control_plane = match self {
            Self::StateOfTheWorld(response) => &response.control_plane,
            Self::Delta(response) => &response.control_plane,
        };
        control_plane.as_ref().map(|control_plane| control_plane.identifier.as_str())
    }
}

/// A response taken apart: what is to be applied.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Update {
    /// Resources that we asked for, each name once.
    pub(crate) resources: Vec<Incoming>,
    /// Names that do not exist, or not any more. For listeners and clusters: removed. For other types: never known, or
    /// no longer known to the server; what uses them decides what that means.
    pub(crate) removed: Vec<Arc<str>>,
    /// Resources that cannot even be read.
    pub(crate) refused: Vec<Refusal>,
    /// Why the response as a whole is refused; nothing else is in here then.
    pub(crate) malformed: Option<String>,
    /// Version of the response.
    pub(crate) version: String,
    nonce: String,
}

/// One resource of a response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its version; in the state-of-the-world variant that of the response, unless it has its own.
    pub(crate) version: String,
    /// The resource; `None` is a heartbeat: what we have stays as it is.
    pub(crate) body: Option<Any>,
    /// How long it lives unless it is sent again, or a heartbeat; `None`: for ever.
    pub(crate) ttl: Option<Duration>,
}

/// A resource that cannot be read, with its name if that could be.
type Unreadable = (Option<Arc<str>>, Rejected);

/// Name, body and time to live of a resource.
type Parts = (Arc<str>, Option<Any>, Option<Duration>);

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

/// The name is field 1 of all our types: enough to name a resource whose rest does not decode.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
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
        let Self { accepted, forgotten, wanted, answers, .. } = self;
        accepted.retain(|name, _| {
            let keep = told.includes(name)
                || wanted.includes(name)
                || answers.iter().any(|answer| answer.wanted.includes(name));
            if !keep {
                forgotten.push(Arc::clone(name));
            }
            keep
        });
    }

    fn sotw_request(&self, wanted: &Interest, answer: Option<Answer>) -> DiscoveryRequest {
        let (version_info, response_nonce, error_detail) = match answer {
            Some(answer) => (answer.version, answer.nonce, answer.error),
            None => (self.version.clone(), self.nonce.clone(), None),
        };
        DiscoveryRequest {
            version_info,
            resource_names: wanted.names(),
            type_url: self.kind.type_url().to_owned(),
            response_nonce,
            error_detail,
            ..DiscoveryRequest::default()
        }
    }

    fn delta_request(&self, answer: Option<Answer>) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: self.kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        if let Some(answer) = answer {
            request.response_nonce = answer.nonce;
            request.error_detail = answer.error;
        }
        match &self.told {
            None => {
                request.resource_names_subscribe = self.wanted.names();
                request.initial_resource_versions = self
                    .accepted
                    .iter()
                    .filter(|(_, version)| !version.is_empty())
                    .map(|(name, version)| (name.to_string(), version.clone()))
                    .collect();
            }
            Some(Interest::Names(told)) => {
                if let Interest::Names(wanted) = &self.wanted
                    && !Arc::ptr_eq(wanted, told)
                {
                    let strings = |name: &Arc<str>| name.to_string();
                    request.resource_names_subscribe =
                        wanted.difference(told).map(strings).collect();
                    request.resource_names_unsubscribe =
                        told.difference(wanted).map(strings).collect();
                }
            }
            // A wildcard stays one for as long as the stream lives.
            Some(Interest::Everything | Interest::None) => {}
        }
        request
    }

    /// Takes a response apart.
    pub(crate) fn receive(&mut self, response: Response) -> Update {
        match response {
            Response::StateOfTheWorld(response) => self.receive_sotw(response),
            Response::Delta(response) => self.receive_delta(response),
        }
    }

    fn receive_sotw(&mut self, response: DiscoveryResponse) -> Update {
        self.nonce.clone_from(&response.nonce);
        let mut update = Update {
            version: response.version_info.clone(),
            nonce: response.nonce,
            ..Update::default()
        };
        let mut seen = HashSet::new();
        let mut unnamed = false;
        let mut heartbeats = 0;
        let count = response.resources.len();
        for (index, wrapped) in response.resources.into_iter().enumerate() {
            let (version, name, body, ttl) = match self.unwrap_sotw(wrapped, &response.version_info)
            {
                Ok((version, (name, body, ttl))) => (version, name, body, ttl),
                Err((name, rejected)) => {
                    unnamed |= name.is_none();
                    if let Some(name) = &name {
                        seen.insert(Arc::clone(name));
                    }
                    let name = name.unwrap_or_else(|| format!("resources[{index}]").into());
                    update.refused.push(Refusal {
                        kind: self.kind,
                        name,
                        rejected: vec![rejected],
                    });
                    continue;
                }
            };
            if !seen.insert(Arc::clone(&name)) {
                if self.kind.is_wildcard() {
                    return self.malformed(update, &name);
                }
                // As Envoy: the first one counts.
                tracing::warn!(kind = %self.kind, %name, "twice in one response: the first one counts");
                continue;
            }
            heartbeats += usize::from(body.is_none());
            if self.concerns_us(&name) {
                update.resources.push(Incoming { name, version, body, ttl });
            }
        }
        // Heartbeats alone are not all there is: servers send them for those resources only that have a time to live.
        let is_whole = count == 0 || heartbeats < count;
        // A resource that cannot be named could be any of those that seem to be missing.
        if self.kind.is_wildcard() && is_whole && !unnamed {
            let gone = self.accepted.keys().filter(|name| !seen.contains(*name));
            update.removed = gone.map(Arc::clone).collect();
            update.removed.sort_unstable();
        }
        update
    }

    /// An entry of `DiscoveryResponse.resources`, with its version.
    fn unwrap_sotw(
        &self,
        wrapped: Any,
        response_version: &str,
    ) -> Result<(String, Parts), Unreadable> {
        if !any::holds::<Resource>(&wrapped) {
            let name = self.name_of(&wrapped)?;
            return Ok((response_version.to_owned(), (name, Some(wrapped), None)));
        }
        let resource: Resource =
            any::unpack(&wrapped).map_err(|e| (None, rejected(e.to_string())))?;
        let version = if resource.version.is_empty() {
            response_version.to_owned()
        } else {
            resource.version.clone()
        };
        Ok((version, self.unwrap_resource(resource)?))
    }

    fn receive_delta(&mut self, response: DeltaDiscoveryResponse) -> Update {
        let mut update = Update {
            version: response.system_version_info,
            nonce: response.nonce,
            ..Update::default()
        };
        let mut seen: HashSet<Arc<str>> = HashSet::new();
        for (index, resource) in response.resources.into_iter().enumerate() {
            let version = resource.version.clone();
            let outer: Arc<str> = resource.name.as_str().into();
            let (name, body, ttl) = match self.unwrap_resource(resource) {
                Ok(parts) => parts,
                Err((name, rejected)) => {
                    let name = name.unwrap_or_else(|| format!("resources[{index}]").into());
                    if !seen.insert(Arc::clone(&name)) {
                        return self.malformed(update, &name);
                    }
                    if outer.is_empty() || self.concerns_us(&name) {
                        let rejected = vec![rejected];
                        update.refused.push(Refusal { kind: self.kind, name, rejected });
                    }
                    continue;
                }
            };
            if !seen.insert(Arc::clone(&name)) {
                return self.malformed(update, &name);
            }
            if self.concerns_us(&name) {
                update.resources.push(Incoming { name, version, body, ttl });
            }
        }
        for name in response.removed_resources {
            let name: Arc<str> = name.into();
            if !seen.insert(Arc::clone(&name)) {
                return self.malformed(update, &name);
            }
            if self.concerns_us(&name) {
                update.removed.push(name);
            }
        }
        update
    }

    /// Whether a resource was asked for. One that the server was not yet told to leave out still counts: should it be
    /// wanted again before that, the server will not repeat it.
    fn concerns_us(&self, name: &str) -> bool {
        self.wanted.includes(name) || self.told.as_ref().is_some_and(|told| told.includes(name))
    }

    fn unwrap_resource(&self, resource: Resource) -> Result<Parts, Unreadable> {
        let ttl = resource.ttl.map(|ttl| {
            // A negative one is over at once.
            let (seconds, nanos) = (ttl.seconds.try_into(), ttl.nanos.try_into());
            Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0).min(999_999_999))
        });
        let outer: Option<Arc<str>> =
            (!resource.name.is_empty()).then(|| resource.name.as_str().into());
        let Some(body) = resource.resource else {
            return match outer {
                Some(name) => Ok((name, None, ttl)),
                None => Err((None, rejected("has neither a name nor a resource".to_owned()))),
            };
        };
        let inner = match self.name_of(&body) {
            Ok(name) => name,
            Err((inner, rejected)) => return Err((outer.or(inner), rejected)),
        };
        match outer {
            Some(outer) if outer != inner => {
                let reason = format!("the resource calls itself {inner:?}");
                Err((Some(outer), Rejected { path: "name".to_owned(), reason }))
            }
            _ => Ok((inner, Some(body), ttl)),
        }
    }

    fn name_of(&self, body: &Any) -> Result<Arc<str>, Unreadable> {
        let named = Named::decode(body.value.as_slice());
        if any::message_name(&body.type_url) != any::message_name(self.kind.type_url()) {
            let reason = format!("is a {}", any::message_name(&body.type_url));
            let name = named.ok().filter(|named| !named.name.is_empty());
            return Err((
                name.map(|named| named.name.into()),
                Rejected { path: "type_url".to_owned(), reason },
            ));
        }
        match named {
            Ok(named) if named.name.is_empty() => {
                let path = if self.kind == Kind::Endpoint { "cluster_name" } else { "name" };
                Err((None, Rejected { path: path.to_owned(), reason: "is empty".to_owned() }))
            }
            Ok(named) => Ok(named.name.into()),
            Err(error) => Err((None, rejected(error.to_string()))),
        }
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
            if resource.body.is_some() && !bad.contains(&*resource.name) {
                self.accepted.insert(resource.name, resource.version);
            }
        }
        for name in &update.removed {
            if self.kind.is_wildcard() {
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
            self.answer(update.nonce, Some(describe(refused)));
        }
    }

    fn answer(&mut self, nonce: String, error: Option<String>) {
        let error =
            error.map(|message| Status { code: INVALID_ARGUMENT, message, ..Status::default() });
        let (version, wanted) = (self.version.clone(), self.wanted.clone());
        self.answers.push_back(Answer { nonce, version, error, wanted });
    }
}

fn rejected(reason: String) -> Rejected {
    Rejected { path: String::new(), reason }
}

/// The text of a NACK: every bad resource with type, name, field and reason, a line each.
fn describe(refused: &[Refusal]) -> String {
    let mut text = String::new();
    let mut lines = refused.iter().flat_map(|refusal| {
        let Refusal { kind, name, rejected } = refusal;
        rejected.iter().map(move |rejected| format!("{kind} {name:?}: {rejected}"))
    });
    while let Some(line) = lines.next() {
        if text.len() + line.len() > NACK_TEXT_LIMIT && !text.is_empty() {
            text.push_str(&format!("\n... and {} more", 1 + lines.count()));
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.extend(line.chars().take(NACK_TEXT_LIMIT));
    }
    text
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
