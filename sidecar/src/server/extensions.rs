//! Discovered configuration of HTTP filters: what came, and the connection managers that it goes to.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::config::extension::Extension;
use crate::http::filters::discovered::Slot;
use crate::listener::{Listener, Terminal};
use crate::local::Local;
use crate::stats::Registry;

/// Every discovered configuration by name, and who takes it.
#[derive(Default)]
pub(super) struct Extensions {
    known: HashMap<Arc<str>, Arc<Extension>>,
    /// Also of chains that drain: their requests go through the filter that is in force.
    slots: HashMap<Arc<str>, Vec<Weak<Slot>>>,
}

impl Extensions {
    /// Puts a configuration into force.
    pub(super) fn set(
        &mut self,
        extension: Arc<Extension>,
        registry: &Arc<Registry>,
        control: &Rc<Local>,
    ) {
        for slot in self.slots_of(&extension.name) {
            slot.set(Some(&extension), registry, control);
        }
        self.known.insert(Arc::clone(&extension.name), extension);
    }

    /// There is no configuration any more.
    pub(super) fn lose(&mut self, name: &Arc<str>, registry: &Arc<Registry>, control: &Rc<Local>) {
        self.known.remove(name);
        for slot in self.slots_of(name) {
            slot.set(None, registry, control);
        }
    }

    /// Nobody needs to know a configuration any more. Whoever drains keeps it.
    pub(super) fn forget(&mut self, name: &Arc<str>) {
        self.known.remove(name);
    }

    /// A listener was built: its filters get what is known, and what comes.
    pub(super) fn connect(
        &mut self,
        listener: &Listener,
        registry: &Arc<Registry>,
        control: &Rc<Local>,
    ) {
        for chain in listener.all_chains() {
            let Terminal::Http(manager) = &chain.terminal else { continue };
            for slot in manager.filters.iter().filter_map(|filter| filter.discovered()) {
                let slots = self.slots.entry(Arc::clone(slot.name())).or_default();
                slots.retain(|other| other.strong_count() > 0);
                // A chain that stays was connected with the version of the listener that it came with.
                if !slots.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(slot))) {
                    slots.push(Arc::downgrade(slot));
                    slot.set(self.known.get(slot.name()), registry, control);
                }
            }
        }
    }

    /// Lets go of connection managers that are gone.
    pub(super) fn collect(&mut self) {
        self.slots.retain(|_, slots| {
            slots.retain(|slot| slot.strong_count() > 0);
            !slots.is_empty()
        });
    }

    fn slots_of(&self, name: &str) -> impl Iterator<Item = Arc<Slot>> {
        self.slots.get(name).into_iter().flatten().filter_map(Weak::upgrade)
    }
}
