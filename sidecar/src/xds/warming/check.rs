//! Whether what waits is complete.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::slot::{Slot, Waiting};
use super::{Waiter, Warming};
use crate::xds::needs::{Need, Needs, Wait};

impl Warming {
    /// Activates what waits, if it waits for nothing more; else notes what it waits for, and until when.
    pub(super) fn check(&mut self, waiter: &Waiter, now: Instant) {
        match waiter {
            Waiter::Cluster(name) => {
                let Some(active) = self.check_slot(waiter, name, now, |all| &mut all.clusters)
                else {
                    return;
                };
                self.changes.clusters.push(active);
            }
            Waiter::Listener(name) => {
                let Some(active) = self.check_slot(waiter, name, now, |all| &mut all.listeners)
                else {
                    return;
                };
                self.changes.listeners.push(active);
            }
        }
    }

    fn check_slot<T: Needs>(
        &mut self,
        waiter: &Waiter,
        name: &Arc<str>,
        now: Instant,
        slots: fn(&mut Self) -> &mut HashMap<Arc<str>, Slot<T>>,
    ) -> Option<Arc<T>> {
        let waiting = slots(self).get_mut(name)?.warming.take()?;
        let needs = waiting.config.needs();
        self.stop_waiting(waiter, &needs, waiting.deadline);
        let missing: Vec<&(Need, Wait)> = needs
            .iter()
            .filter(|(need, wait)| *wait != Wait::Not && !self.here.contains(need))
            .collect();
        // It is over when the longest of the waits is over; one without an end has none.
        let deadline = match missing.iter().map(|(_, wait)| *wait).max() {
            Some(Wait::For(longest)) => Some(waiting.since + longest),
            None | Some(Wait::Not | Wait::Forever) => None,
        };
        let in_time = deadline.is_none_or(|deadline| deadline > now);
        if !missing.is_empty() && in_time {
            for (need, _) in &missing {
                self.waiting.entry(need.clone()).or_default().insert(waiter.clone());
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, waiter.clone()));
            }
            let slot = slots(self).get_mut(name)?;
            slot.warming = Some(Waiting { deadline, ..waiting });
            return None;
        }
        *self.warming_count(waiter) -= 1;
        self.timed_out.extend(missing.into_iter().map(|(need, _)| need.clone()));
        let slot = slots(self).get_mut(name)?;
        slot.previous = slot.active.replace(Arc::clone(&waiting.config));
        if let Some(previous) = slot.previous.clone() {
            self.remove_uses(&previous.needs());
        }
        Some(waiting.config)
    }

    pub(super) fn warming_count(&mut self, waiter: &Waiter) -> &mut usize {
        match waiter {
            Waiter::Cluster(_) => &mut self.warming_clusters,
            Waiter::Listener(_) => &mut self.warming_listeners,
        }
    }

    /// A version that waited is of no interest any more.
    pub(super) fn give_up<T: Needs>(&mut self, waiter: &Waiter, waiting: &Waiting<T>) {
        let needs = waiting.config.needs();
        self.stop_waiting(waiter, &needs, waiting.deadline);
        self.remove_uses(&needs);
    }

    fn stop_waiting(&mut self, waiter: &Waiter, needs: &[(Need, Wait)], deadline: Option<Instant>) {
        for (need, _) in needs {
            if let Some(waiters) = self.waiting.get_mut(need) {
                waiters.remove(waiter);
                if waiters.is_empty() {
                    self.waiting.remove(need);
                }
            }
        }
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, waiter.clone()));
        }
    }
}
