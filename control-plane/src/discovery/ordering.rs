//! The order in which the types of one stream are pushed, make before break:
//! CDS -> EDS -> LDS -> RDS, and what is gone last.
//!
//! - What the client asked for is answered at once.
//! - Endpoints wait for nobody: a rejected or unanswered cluster never holds back the endpoints of others.
//! - Listeners and routes wait until the clusters before them were answered, or
//!   [`ACK_PATIENCE`](super::subscription::ACK_PATIENCE) has passed; a rejection is an answer.
//! - Clusters and endpoints are taken away once listeners and routes without them were answered, or the patience is over.
//! - One type has one unanswered push at a time; what changed meanwhile goes into the next, the newest state only.

use crate::discovery::resource_type::ResourceType;
use crate::discovery::subscription::Pending;

/// Where one type of a stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TypeState {
    /// What there is to send.
    pub(crate) pending: Pending,
    /// The last response is unanswered, and not for too long yet.
    pub(crate) in_flight: bool,
}

impl TypeState {
    fn idle(self) -> bool {
        !self.in_flight && !self.pending.upserts && !self.pending.removals
    }
}

/// What to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Of this type.
    pub(crate) kind: ResourceType,
    /// Whether it says what is gone.
    pub(crate) removals: bool,
}

/// The next step of a stream whose types stand so, by [`ResourceType::index`].
pub(crate) fn next(types: &[TypeState; 5]) -> Option<Step> {
    use ResourceType::{Cluster, Endpoint, Listener, Route};
    let of = |kind: ResourceType| types[kind.index()];
    let traffic_settled = of(Listener).idle() && of(Route).idle();
    let clusters_settled = !of(Cluster).pending.upserts && !of(Cluster).in_flight;
    let may_remove = |kind| match kind {
        Cluster => traffic_settled,
        Endpoint => traffic_settled && !of(Cluster).pending.removals,
        _ => true,
    };

    if let Some(kind) = ResourceType::ALL.into_iter().find(|kind| of(*kind).pending.due) {
        return Some(Step { kind, removals: may_remove(kind) });
    }
    for kind in ResourceType::ALL {
        let TypeState { pending, in_flight } = of(kind);
        let turn = match kind {
            Listener => clusters_settled,
            Route => clusters_settled && !of(Listener).pending.upserts,
            _ => true,
        };
        let removals = may_remove(kind);
        if turn && !in_flight && (pending.upserts || (pending.removals && removals)) {
            return Some(Step { kind, removals });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Endpoint, Listener, Route};

    #[derive(Default)]
    struct Types([TypeState; 5]);

    impl Types {
        fn upserts(mut self, kind: ResourceType) -> Self {
            self.0[kind.index()].pending.upserts = true;
            self
        }

        fn removals(mut self, kind: ResourceType) -> Self {
            self.0[kind.index()].pending.removals = true;
            self
        }

        fn due(mut self, kind: ResourceType) -> Self {
            self.0[kind.index()].pending.due = true;
            self
        }

        fn in_flight(mut self, kind: ResourceType) -> Self {
            self.0[kind.index()].in_flight = true;
            self
        }

        fn next(&self) -> Option<(ResourceType, bool)> {
            next(&self.0).map(|step| (step.kind, step.removals))
        }
    }

    #[test]
    fn clusters_come_before_endpoints_listeners_and_routes() {
        let all =
            || Types::default().upserts(Cluster).upserts(Endpoint).upserts(Listener).upserts(Route);
        assert_eq!(all().next().unwrap().0, Cluster);
        let mut types = all();
        types.0[Cluster.index()] = TypeState::default();
        assert_eq!(types.next().unwrap().0, Endpoint);
        types.0[Endpoint.index()] = TypeState::default();
        assert_eq!(types.next().unwrap().0, Listener);
        types.0[Listener.index()] = TypeState::default();
        assert_eq!(types.next().unwrap().0, Route);
    }

    #[test]
    fn a_route_waits_for_the_answer_to_the_clusters() {
        assert_eq!(Types::default().upserts(Route).in_flight(Cluster).next(), None);
        assert_eq!(Types::default().upserts(Route).next(), Some((Route, true)));
    }

    #[test]
    fn endpoints_wait_for_no_other_type() {
        let types = Types::default().upserts(Endpoint).in_flight(Cluster).upserts(Route);
        assert_eq!(types.next().unwrap().0, Endpoint);
    }

    #[test]
    fn a_cluster_is_removed_after_listeners_and_routes_were_answered() {
        let types = Types::default().removals(Cluster).upserts(Route);
        assert_eq!(types.next(), Some((Route, true)));
        assert_eq!(Types::default().removals(Cluster).in_flight(Route).next(), None);
        assert_eq!(Types::default().removals(Cluster).next(), Some((Cluster, true)));
    }

    #[test]
    fn a_cluster_that_is_added_while_another_goes_does_not_take_it_along() {
        let types = Types::default().upserts(Cluster).removals(Cluster).upserts(Route);
        assert_eq!(types.next(), Some((Cluster, false)));
    }

    #[test]
    fn one_push_of_a_type_is_unanswered_at_a_time() {
        assert_eq!(Types::default().upserts(Endpoint).in_flight(Endpoint).next(), None);
    }

    #[test]
    fn what_the_client_asked_for_waits_for_nothing() {
        let types = Types::default().due(Route).in_flight(Route).in_flight(Cluster);
        assert_eq!(types.next().unwrap().0, Route);
    }
}
