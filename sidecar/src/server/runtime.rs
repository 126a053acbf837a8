//! The runtime of the process: its layers, and who changes them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::runtime::{Entry, LayerSource, Layers, RuntimeLayer, Values, of_text};
use crate::stats::{Registry, RuntimeCells, Scope, Sharded};

mod disk;

pub(super) use disk::DiskLayer;

/// Keys that the admin interface may set, at most, and bytes of one with its value.
const MAX_OVERRIDES: usize = 10_000;
const MAX_OVERRIDE: usize = 4096;

/// The layers of the runtime, counted.
pub(super) struct Runtime {
    layers: Layers,
    sources: Vec<LayerSource>,
    /// Layers on disk whose folders are there.
    folders: BTreeSet<usize>,
    /// Keys that were warned of.
    unread: BTreeSet<Box<str>>,
    cells: Arc<Sharded<RuntimeCells>>,
}

impl Runtime {
    /// With what stands in the bootstrap and on disk.
    pub(super) fn new(layers: &[RuntimeLayer], registry: &Registry) -> Self {
        let cells: Arc<Sharded<RuntimeCells>> = registry.scope(Scope::Root("runtime"));
        let mut runtime = Self {
            layers: Layers::new(layers),
            sources: layers.iter().map(|layer| layer.source.clone()).collect(),
            folders: BTreeSet::new(),
            unread: BTreeSet::new(),
            cells,
        };
        runtime.cells.local().num_layers.set(layers.len() as u64);
        for index in 0..layers.len() {
            runtime.load_disk(index);
        }
        runtime.loaded();
        runtime
    }

    /// The layers that are on disk.
    pub(super) fn disk_layers(&self) -> Vec<DiskLayer> {
        let sources = self.sources.iter().enumerate();
        let layers = sources.filter_map(|(index, source)| match source {
            LayerSource::Disk { watched, .. } => {
                Some(DiskLayer { index, watched: watched.clone() })
            }
            _ => None,
        });
        layers.collect()
    }

    /// Reads a layer from disk again.
    pub(super) fn read_disk(&mut self, index: usize) {
        if self.load_disk(index) {
            self.loaded();
        }
    }

    /// Returns whether that could be done; where there is no folder the layer is empty.
    fn load_disk(&mut self, index: usize) -> bool {
        let Some(LayerSource::Disk { folder, .. }) = self.sources.get(index) else { return true };
        match disk::read(folder) {
            Ok(values) => {
                match values {
                    Some(_) => self.folders.insert(index),
                    None => self.folders.remove(&index),
                };
                self.layers.set(index, values.unwrap_or_default());
                true
            }
            Err(error) => {
                self.cells.local().load_error.inc();
                let folder = folder.display();
                tracing::error!(%folder, %error, "a layer of the runtime cannot be read");
                false
            }
        }
    }

    /// Takes what RTDS says of a resource.
    pub(super) fn set_discovered(&mut self, resource: &str, values: &Values) {
        for (index, source) in self.sources.iter().enumerate() {
            if matches!(source, LayerSource::Rtds { name, .. } if **name == *resource) {
                self.layers.set(index, values.clone());
            }
        }
        self.loaded();
    }

    /// Sets keys by the admin interface; an empty value takes one back.
    ///
    /// # Errors
    /// If there is no layer for that, or no room.
    pub(super) fn modify(&mut self, changes: &[(String, String)]) -> Result<(), String> {
        let admin = self.sources.iter().position(|source| matches!(source, LayerSource::Admin));
        let Some(index) = admin else { return Err("No admin layer specified".to_owned()) };
        let mut values = self.layers.values(index).cloned().unwrap_or_default();
        for (key, value) in changes {
            if value.is_empty() {
                values.remove(key.as_str());
            } else if key.len() + value.len() > MAX_OVERRIDE || values.len() >= MAX_OVERRIDES {
                return Err(format!("{key}: there is no room for it"));
            } else {
                values.insert(key.as_str().into(), of_text(value));
            }
        }
        self.cells.local().admin_overrides_active.set(u64::from(!values.is_empty()));
        self.layers.set(index, values);
        self.loaded();
        Ok(())
    }

    /// The names of the layers, and every key.
    pub(super) fn entries(&self) -> (Vec<Arc<str>>, Vec<Entry>) {
        (self.layers.names().map(Arc::clone).collect(), self.layers.entries())
    }

    /// Says once of each key of Envoy's own that it changes nothing here.
    fn warn_of_unread_keys(&mut self) {
        let (_, entries) = self.entries();
        let unread = entries.into_iter().map(|entry| entry.key).filter(|key| is_envoys_own(key));
        let new: Vec<Box<str>> = unread.filter(|key| !self.unread.contains(key)).collect();
        let room = MAX_OVERRIDES.saturating_sub(self.unread.len());
        if new.is_empty() || room == 0 {
            return;
        }
        let keys = new.join(", ");
        tracing::warn!(keys, "the runtime has keys of Envoy's own that nothing here reads");
        self.unread.extend(new.into_iter().take(room));
    }

    fn loaded(&mut self) {
        self.warn_of_unread_keys();
        let cells = self.cells.local();
        cells.load_success.inc();
        // As Envoy counts it: from the second folder on, one overrides another.
        let overrides = self.folders.len() > 1;
        if overrides { &cells.override_dir_exists } else { &cells.override_dir_not_exists }.inc();
        cells.num_keys.set(self.layers.entries().len() as u64);
    }
}

/// Whether Envoy reads a key though no configuration names it, and we do not. Keys that stand for defaults of a filter
/// (`fault.http.…`), and those of zone aware routing, are read here too.
fn is_envoys_own(key: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "circuit_breakers.",
        "envoy.",
        "health_check.",
        "outlier_detection.",
        "overload.",
        "re2.",
        "tracing.",
        "upstream.",
    ];
    !key.starts_with("upstream.zone_routing.")
        && PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_interface_overrides_and_takes_back() {
        let registry = Registry::new(1);
        let layers = [RuntimeLayer { name: "admin".into(), source: LayerSource::Admin }];
        let mut runtime = Runtime::new(&layers, &registry);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        runtime.modify(&[pair("t.admin", "5"), pair("t.other", "x")]).unwrap();
        let (_, entries) = runtime.entries();
        assert_eq!(entries.len(), 2);
        assert_eq!(&*entries[0].last, "5");
        runtime.modify(&[pair("t.admin", "")]).unwrap();
        assert_eq!(runtime.entries().1.len(), 1);
        assert!(runtime.modify(&[pair("t.big", &"x".repeat(MAX_OVERRIDE))]).is_err());
        let mut fixed = Runtime::new(&[], &registry);
        assert_eq!(fixed.modify(&[pair("a", "1")]).unwrap_err(), "No admin layer specified");
    }

    #[test]
    fn a_key_of_envoys_own_is_warned_of_once_and_others_are_not() {
        let registry = Registry::new(1);
        let layers = [RuntimeLayer { name: "admin".into(), source: LayerSource::Admin }];
        let mut runtime = Runtime::new(&layers, &registry);
        let set = |runtime: &mut Runtime, key: &str| {
            runtime.modify(&[(key.to_owned(), "1".to_owned())]).unwrap();
            runtime.unread.iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert!(set(&mut runtime, "routing.share").is_empty());
        assert!(set(&mut runtime, "fault.http.max_active_faults").is_empty());
        assert!(set(&mut runtime, "upstream.zone_routing.enabled").is_empty());
        let unread = ["overload.global_downstream_max_connections"];
        assert_eq!(set(&mut runtime, unread[0]), unread);
        assert_eq!(set(&mut runtime, "routing.other"), unread);
    }
}
