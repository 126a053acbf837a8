//! How long resources live that came with a time to live: until then the server has to send them again, or a heartbeat.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::Kind;
use crate::config::config_source::Origin;

/// A resource: type, name, and where it came from.
pub(super) type Mortal = (Kind, Arc<str>, Origin);

/// Resources with an end.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    ends: HashMap<Mortal, Instant>,
    queue: BTreeSet<(Instant, Mortal)>,
}

impl Lifetimes {
    /// A resource lives until then; `None`: for ever.
    pub(super) fn set(&mut self, resource: Mortal, end: Option<Instant>) {
        if let Some(end) = self.ends.remove(&resource) {
            self.queue.remove(&(end, resource.clone()));
        }
        if let Some(end) = end {
            self.queue.insert((end, resource.clone()));
            self.ends.insert(resource, end);
        }
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(end, _)| *end)
    }

    /// Those that end at `now` or before.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<Mortal> {
        let mut ended = Vec::new();
        while let Some((end, _)) = self.queue.first()
            && *end <= now
            && let Some((_, resource)) = self.queue.pop_first()
        {
            self.ends.remove(&resource);
            ended.push(resource);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_heartbeat_begins_a_new_life_and_one_without_an_end_lives_for_ever() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let resource = |name: &str| (Kind::Cluster, Arc::from(name), Origin::Ads);
        let mut lifetimes = Lifetimes::default();
        lifetimes.set(resource("a"), Some(at(1)));
        lifetimes.set(resource("b"), Some(at(2)));
        lifetimes.set(resource("c"), Some(at(1)));
        lifetimes.set(resource("a"), Some(at(3)));
        lifetimes.set(resource("c"), None);
        assert_eq!(lifetimes.next(), Some(at(2)));
        assert_eq!(lifetimes.take_ended(at(2)), [resource("b")]);
        assert_eq!(lifetimes.take_ended(at(9)), [resource("a")]);
        assert_eq!(lifetimes.next(), None);
    }
}
