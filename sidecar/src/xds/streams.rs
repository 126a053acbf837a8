//! Which streams there are: the aggregated one, and one for each type that another source is asked for.
//!
//! A stream of its own is opened when something first needs a name from its source, and closed when nothing does any
//! more. Opening and closing is the business of whoever runs the [`Client`](super::Client)s: see [`Streams::take_opened`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Kind;
use super::subscription::{Request, Subscription};
use crate::config::bootstrap::Variant;
use crate::config::config_source::Origin;

/// Names a stream for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(u64);

/// A stream that is to be opened, and kept open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Its name.
    pub(crate) id: StreamId,
    /// To whom.
    pub(crate) origin: Origin,
    /// The one type it is about; `None`: all of them (ADS).
    pub(crate) kind: Option<Kind>,
}

/// One stream: its types, and where requests go.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) origin: Origin,
    pub(super) subscriptions: Vec<Subscription>,
    /// Requests of the current connection go in here.
    pub(super) sender: Option<mpsc::UnboundedSender<Request>>,
    /// The current outage was reported.
    pub(super) outage_reported: bool,
}

impl Stream {
    /// The one type that this is about; `None`: all of them.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.subscriptions.as_slice() {
            [only] => Some(only.kind()),
            _ => None,
        }
    }

    pub(super) fn subscription(&mut self, kind: Kind) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.kind() == kind)
    }

    /// Whether nothing is wanted from here any more.
    fn is_idle(&self) -> bool {
        self.origin != Origin::Ads && self.subscriptions.iter().all(Subscription::is_idle)
    }
}

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    all: BTreeMap<StreamId, Stream>,
    by_source: HashMap<(Kind, Origin), StreamId>,
    next: u64,
    opened: Vec<Opened>,
    closed: Vec<StreamId>,
}

impl Streams {
    /// With the aggregated one, of this variant, if there is one.
    pub(super) fn new(ads: Option<Variant>) -> Self {
        let mut streams = Self {
            all: BTreeMap::new(),
            by_source: HashMap::new(),
            next: 0,
            opened: Vec::new(),
            closed: Vec::new(),
        };
        if let Some(variant) = ads {
            let subscriptions = Kind::ALL.map(|kind| Subscription::new(kind, variant));
            streams.open(Origin::Ads, None, subscriptions.into());
        }
        streams
    }

    fn open(
        &mut self,
        origin: Origin,
        kind: Option<Kind>,
        subscriptions: Vec<Subscription>,
    ) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        for subscription in &subscriptions {
            self.by_source.insert((subscription.kind(), origin.clone()), id);
        }
        self.opened.push(Opened { id, origin: origin.clone(), kind });
        let stream = Stream { origin, subscriptions, sender: None, outage_reported: false };
        self.all.insert(id, stream);
        id
    }

    /// The stream of this name, unless it was closed.
    pub(super) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.all.get_mut(&id)
    }

    /// Every stream.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.values_mut()
    }

    /// The subscription of a type at a source; `None` if that is ADS and there is none. Another stream is opened if need be.
    pub(super) fn subscription(
        &mut self,
        kind: Kind,
        origin: &Origin,
    ) -> Option<&mut Subscription> {
        let id = match (self.by_source.get(&(kind, origin.clone())), origin) {
            (Some(id), _) => *id,
            (None, Origin::Ads) => return None,
            (None, Origin::Service(service)) => {
                let subscription = Subscription::new(kind, service.variant);
                self.open(origin.clone(), Some(kind), vec![subscription])
            }
            (None, Origin::File(_)) => {
                let subscription = Subscription::new(kind, Variant::StateOfTheWorld);
                self.open(origin.clone(), Some(kind), vec![subscription])
            }
        };
        self.all.get_mut(&id)?.subscription(kind)
    }

    /// Closes the streams that nothing is wanted from any more.
    pub(super) fn close_idle(&mut self) {
        let Self { all, by_source, opened, closed, .. } = self;
        all.retain(|id, stream| {
            if !stream.is_idle() {
                return true;
            }
            for subscription in &stream.subscriptions {
                by_source.remove(&(subscription.kind(), stream.origin.clone()));
            }
            let count = opened.len();
            opened.retain(|opened| opened.id != *id);
            if opened.len() == count {
                closed.push(*id);
            }
            false
        });
    }

    /// Streams to open that were not asked for before.
    pub(super) fn take_opened(&mut self) -> Vec<Opened> {
        std::mem::take(&mut self.opened)
    }

    /// Streams to close, of those that were opened.
    pub(super) fn take_closed(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.closed)
    }
}

/// What was forgotten on a stream: its type, source and name.
pub(super) type Forgotten = (Kind, Origin, Arc<str>);
