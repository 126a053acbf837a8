//! The layers of the runtime: of two that have a key, the later one wins.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Values, key};
use crate::config::config_source::ConfigSource;

/// A validated `RuntimeLayer`.
#[derive(Debug, Clone)]
pub struct RuntimeLayer {
    /// Its name, which no other layer has.
    pub name: Arc<str>,
    /// Where its values come from.
    pub source: LayerSource,
}

/// Where the values of a layer come from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// They stand in the bootstrap.
    Static(Values),
    /// Files in this folder, one a key; read again when the link `watched` leads elsewhere.
    Disk {
        /// The link (`symlink_root`).
        watched: PathBuf,
        /// The folder below it.
        folder: PathBuf,
    },
    /// `POST /runtime_modify`. At most one layer is such.
    Admin,
    /// RTDS.
    Rtds {
        /// Name of the resource.
        name: Arc<str>,
        /// Who is asked for it.
        source: ConfigSource,
    },
}

/// All layers with what is in them.
#[derive(Debug, Default)]
pub struct Layers {
    layers: Vec<(Arc<str>, Values)>,
    in_force: Values,
}

/// One key with its value in each layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// As text; empty where a layer does not have it.
    pub layers: Vec<Box<str>>,
    /// The one in force.
    pub last: Box<str>,
}

impl Layers {
    /// With what the bootstrap says; the other layers are empty.
    pub fn new(layers: &[RuntimeLayer]) -> Self {
        let values = |layer: &RuntimeLayer| match &layer.source {
            LayerSource::Static(values) => values.clone(),
            LayerSource::Disk { .. } | LayerSource::Admin | LayerSource::Rtds { .. } => {
                Values::new()
            }
        };
        let layers = layers.iter().map(|layer| (Arc::clone(&layer.name), values(layer))).collect();
        let mut layers = Self { layers, in_force: Values::new() };
        layers.put_into_force();
        layers
    }

    /// What is in a layer.
    pub fn values(&self, index: usize) -> Option<&Values> {
        self.layers.get(index).map(|(_, values)| values)
    }

    /// Changes a layer; what is in force follows.
    pub fn set(&mut self, index: usize, values: Values) {
        if let Some((_, layer)) = self.layers.get_mut(index) {
            *layer = values;
            self.put_into_force();
        }
    }

    /// The names of the layers.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.layers.iter().map(|(name, _)| name)
    }

    /// Every key.
    pub fn entries(&self) -> Vec<Entry> {
        let text = |values: &Values, key: &str| {
            values.get(key).map_or_else(Box::default, |value| value.raw.clone())
        };
        self.merged()
            .into_iter()
            .map(|(key, value)| Entry {
                layers: self.layers.iter().map(|(_, values)| text(values, &key)).collect(),
                last: value.raw,
                key,
            })
            .collect()
    }

    fn merged(&self) -> Values {
        let all = self.layers.iter().flat_map(|(_, values)| values);
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn put_into_force(&mut self) {
        let now = self.merged();
        key::put_into_force(&self.in_force, &now);
        self.in_force = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RuntimeFlag, RuntimeFraction, RuntimeNumber, of_text};
    use super::*;

    fn values(of: &[(&str, &str)]) -> Values {
        of.iter().map(|(key, text)| (Box::from(*key), of_text(text))).collect()
    }

    #[test]
    fn the_last_layer_with_a_key_wins_and_whoever_reads_it_sees_the_change() {
        let layer = |name: &str, source| RuntimeLayer { name: name.into(), source };
        let first = values(&[("t.share", "10"), ("t.number", "3"), ("t.text", "x")]);
        let mut layers = Layers::new(&[
            layer("static", LayerSource::Static(first)),
            layer("admin", LayerSource::Admin),
        ]);
        let share = RuntimeFraction::new((1, 1000), "t.share");
        let number = RuntimeNumber::new(7.0, "t.number");
        let absent = RuntimeFraction::new((1, 1000), "t.absent");
        let text = RuntimeNumber::new(5.0, "t.text");
        let flag = RuntimeFlag::new(true, "t.flag");
        let unnamed = RuntimeFraction::new((2, 100), "");
        assert_eq!((share.current(), number.whole()), ((10, 100), 3));
        assert_eq!((absent.current(), text.current()), ((1, 1000), 5.0));
        layers.set(
            1,
            values(&[
                ("t.share", "{numerator: 5, denominator: MILLION}"),
                ("t.number", "2.5"),
                ("t.flag", "False"),
            ]),
        );
        assert_eq!(share.current(), (5, 1_000_000));
        assert!(!flag.current());
        assert_eq!((number.current(), number.whole()), (2.5, 7), "no whole number is none");
        let entries = layers.entries();
        let entry = entries.iter().find(|entry| &*entry.key == "t.number").unwrap();
        assert_eq!(
            (entry.layers.as_slice(), &*entry.last),
            (["3".into(), "2.5".into()].as_slice(), "2.5")
        );
        layers.set(1, Values::new());
        layers.set(0, Values::new());
        assert_eq!((share.current(), number.whole()), ((1, 1000), 7));
        assert!(flag.current());
        assert_eq!(unnamed.current(), (2, 100));
    }
}
