//! Route tables by id. A discovered route configuration keeps its id for ever; an inline one has its own for as long as
//! something serves with it: a chain that drains still routes by the table it began with.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::config::http_connection_manager::RouteSource;
use crate::config::route::RouteConfiguration;
use crate::http::RouteTable;
use crate::http::connection_manager::ConnectionManager;
use crate::listener::{Listener, Terminal};
use crate::snapshot::RouteConfigId;

/// All route tables.
#[derive(Default)]
pub(super) struct Routes {
    tables: Vec<Option<Arc<RouteTable>>>,
    by_name: HashMap<Arc<str>, RouteConfigId>,
    inline: Vec<(RouteConfigId, Weak<ConnectionManager>)>,
    free: Vec<RouteConfigId>,
}

/// Inline route configurations of a listener that is being built.
pub(super) type Inline = Vec<(RouteConfigId, Arc<RouteConfiguration>)>;

impl Routes {
    /// The id of a source. Inline ones are added to `inline`, to be filled in when the listener is built.
    pub(super) fn id(&mut self, source: &RouteSource, inline: &mut Inline) -> RouteConfigId {
        match source {
            RouteSource::Inline(config) => {
                let id = self.allocate();
                inline.push((id, Arc::clone(config)));
                id
            }
            RouteSource::Rds { name, .. } => self.named(name),
        }
    }

    /// The id of a discovered route configuration. It need not have come yet.
    pub(super) fn named(&mut self, name: &Arc<str>) -> RouteConfigId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.allocate();
        self.by_name.insert(Arc::clone(name), id);
        id
    }

    fn allocate(&mut self) -> RouteConfigId {
        self.free.pop().unwrap_or_else(|| {
            self.tables.push(None);
            RouteConfigId((self.tables.len() - 1) as u32)
        })
    }

    /// Puts a table at an id, or takes it away.
    pub(super) fn set(&mut self, id: RouteConfigId, table: Option<Arc<RouteTable>>) {
        if let Some(slot) = self.tables.get_mut(id.index()) {
            *slot = table;
        }
    }

    /// A listener was built: its inline ids live as long as its connection managers do.
    pub(super) fn keep(&mut self, listener: &Listener, inline: &Inline) {
        for chain in listener.all_chains() {
            let Terminal::Http(manager) = &chain.terminal else { continue };
            if inline.iter().any(|(id, _)| *id == manager.routes) {
                self.inline.push((manager.routes, Arc::downgrade(manager)));
            }
        }
    }

    /// A listener could not be built: its inline ids are free.
    pub(super) fn give_up(&mut self, inline: Inline) {
        self.free.extend(inline.into_iter().map(|(id, _)| id));
    }

    /// Frees the ids of connection managers that are gone.
    pub(super) fn collect(&mut self) {
        let Self { tables, inline, free, .. } = self;
        inline.retain(|(id, manager)| {
            let alive = manager.strong_count() > 0;
            if !alive {
                if let Some(slot) = tables.get_mut(id.index()) {
                    *slot = None;
                }
                free.push(*id);
            }
            alive
        });
    }

    /// All tables, for the next snapshot.
    pub(super) fn tables(&self) -> Box<[Option<Arc<RouteTable>>]> {
        self.tables.as_slice().into()
    }
}
