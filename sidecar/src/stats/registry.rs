//! The scopes that are alive, and how they are read.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::cell::{Counter, Gauge, gauge_sum};
use super::histogram::{Histogram, Snapshot};
use super::scope::Scope;
use super::settings::Settings;
use super::sharded::Sharded;

/// A struct of cells with the names of its fields. Implemented by the macro in [`cells`](super::cells).
pub(crate) trait Cells: Default + Send + Sync + Sized + 'static {
    /// The cells that are printed as they are.
    const METRICS: &'static [Metric<Self>];

    /// Prints what is computed from cells.
    fn derived(_shards: &[&Self], _sink: &mut Sink<'_>) {}
}

/// One cell of `C`.
pub(crate) struct Metric<C> {
    /// Name within the scope.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) kind: MetricKind<C>,
}

/// Where a cell is in its struct.
pub(crate) enum MetricKind<C> {
    /// A counter.
    Counter(fn(&C) -> &Counter),
    /// A gauge.
    Gauge(fn(&C) -> &Gauge),
    /// A histogram.
    Histogram(fn(&C) -> &Histogram),
}

/// The name of one statistic within its scope.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    /// As it stands in `/stats`, behind the scope's prefix and a dot.
    pub(crate) text: &'a str,
    /// As it stands in Prometheus, behind the scope's stem: without what is a tag there.
    pub(crate) stem: &'a str,
    /// Tags beside those of the scope.
    pub(crate) tags: &'a [(&'static str, &'a str)],
}

impl<'a> Name<'a> {
    /// A name without tags of its own.
    pub(crate) fn plain(text: &'a str) -> Self {
        Self { text, stem: text, tags: &[] }
    }
}

/// The value of one statistic, summed over the threads.
#[derive(Clone, Copy)]
pub(crate) enum Reading<'a> {
    /// Only grows.
    Counter {
        /// What was counted.
        value: u64,
        /// Ever counted.
        used: bool,
    },
    /// Goes up and down.
    Gauge {
        /// What it stands at.
        value: u64,
        /// Ever written.
        used: bool,
    },
    /// Everything recorded so far.
    Histogram(&'a Snapshot),
    /// A text readout.
    Text(&'a str),
}

/// Takes statistics one by one.
pub(crate) type Sink<'a> = dyn FnMut(Name<'_>, Reading<'_>) + 'a;

/// Something that has statistics to print.
pub(crate) trait Source: Any + Send + Sync {
    /// Gives every statistic to `sink`.
    fn read(&self, sink: &mut Sink<'_>);

    /// Whether nothing was ever written: there is no histogram to look at then.
    fn is_unused(&self) -> bool {
        false
    }
}

impl<C: Cells> Source for Sharded<C> {
    fn is_unused(&self) -> bool {
        self.used().next().is_none()
    }

    fn read(&self, sink: &mut Sink<'_>) {
        let shards: Vec<&C> = self.used().collect();
        for metric in C::METRICS {
            let name = Name::plain(metric.name);
            match metric.kind {
                MetricKind::Counter(cell) => {
                    let value =
                        shards.iter().fold(0u64, |sum, c| sum.wrapping_add(cell(c).value()));
                    sink(name, Reading::Counter { value, used: value != 0 });
                }
                MetricKind::Gauge(cell) => {
                    let value = gauge_sum(shards.iter().map(|cells| cell(cells).raw().0));
                    let used = shards.iter().any(|cells| cell(cells).raw().1);
                    sink(name, Reading::Gauge { value, used });
                }
                MetricKind::Histogram(cell) => {
                    let mut snapshot = Snapshot::default();
                    shards.iter().for_each(|cells| cell(cells).add_to(&mut snapshot));
                    sink(name, Reading::Histogram(&snapshot));
                }
            }
        }
        C::derived(&shards, sink);
    }
}

/// The scopes that are alive. One for a process; tests make their own.
///
/// A scope lives as long as someone holds its cells. Asking for the same scope twice gives the same cells, so counts
/// survive every configuration change that keeps the name.
pub(crate) struct Registry {
    shards: usize,
    pub(super) settings: Settings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<(Scope, TypeId), Entry>,
    named: HashMap<(Scope, String), Weak<dyn Source>>,
    sweep_at: usize,
}

struct Entry {
    source: Weak<dyn Source>,
    since: Option<Box<Since>>,
}

/// What a scope stood at earlier.
#[derive(Default)]
struct Since {
    /// Counters at the last reset.
    counters: HashMap<String, u64>,
    /// Histograms at the last flush, and what came between the flush before it and that one.
    histograms: HashMap<String, (Snapshot, Snapshot)>,
}

/// One statistic of [`Registry::visit`].
pub(crate) struct Sample<'a> {
    /// Its owner.
    pub(crate) scope: &'a Scope,
    /// `scope.prefix()`.
    pub(crate) prefix: &'a str,
    /// Its name within the scope.
    pub(crate) name: Name<'a>,
    /// Its value.
    pub(crate) reading: Reading<'a>,
    /// For a histogram: what was recorded in the last full interval.
    pub(crate) interval: Option<&'a Snapshot>,
}

impl Registry {
    /// For a process with `workers` worker threads.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Self::with(workers, Settings::default())
    }

    /// The same, as the operator wants it.
    pub(crate) fn with(workers: usize, settings: Settings) -> Arc<Self> {
        Arc::new(Self { shards: workers + 1, settings, state: Mutex::default() })
    }

    /// Threads that write: the control thread and the workers.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// The cells `C` of `scope`: those that are there, or new ones.
    pub(crate) fn scope<C: Cells>(&self, scope: Scope) -> Arc<Sharded<C>> {
        let key = (scope, TypeId::of::<Sharded<C>>());
        let mut state = self.lock();
        if let Some(cells) = state.entries.get(&key).and_then(|entry| entry.source.upgrade()) {
            let cells: Arc<dyn Any + Send + Sync> = cells;
            if let Ok(cells) = cells.downcast::<Sharded<C>>() {
                return cells;
            }
        }
        let cells = Arc::new(Sharded::<C>::new(self.shards));
        let source: Arc<dyn Source> = Arc::clone(&cells) as _;
        state.insert(key, Arc::downgrade(&source));
        cells
    }

    /// Adds statistics that are computed when they are read. They are printed for as long as `source` is alive, and
    /// take the place of an earlier source of the same type and scope.
    pub(crate) fn add_source<S: Source>(&self, scope: Scope, source: &Arc<S>) {
        let source: Arc<dyn Source> = Arc::clone(source) as _;
        self.lock().insert((scope, TypeId::of::<S>()), Arc::downgrade(&source));
    }

    /// A counter whose name is only known at run time. Any thread may write it; not for every request.
    #[cfg(test)]
    pub(crate) fn counter(&self, scope: Scope, name: NamedAs) -> Arc<NamedCounter> {
        self.named(scope, name, |name| NamedCounter { name, value: AtomicU64::new(0) })
    }

    /// A text whose name is only known at run time: `cluster_manager.cds.version_text`.
    pub(crate) fn text(&self, scope: Scope, name: NamedAs) -> Arc<NamedText> {
        self.named(scope, name, |name| NamedText { name, value: Mutex::default() })
    }

    fn named<S: Source>(
        &self,
        scope: Scope,
        name: NamedAs,
        make: impl FnOnce(NamedAs) -> S,
    ) -> Arc<S> {
        let mut state = self.lock();
        let key = (scope, name.text());
        if let Some(source) = state.named.get(&key).and_then(Weak::upgrade) {
            let source: Arc<dyn Any + Send + Sync> = source;
            if let Ok(source) = source.downcast::<S>() {
                return source;
            }
        }
        let made = Arc::new(make(name));
        let source: Arc<dyn Source> = Arc::clone(&made) as _;
        state.named.retain(|_, source| source.strong_count() > 0);
        state.named.insert(key, Arc::downgrade(&source));
        made
    }

    /// Gives every statistic to `visit`: scopes in the order of their prefixes, and each scope's in order of their names.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(Sample<'_>)) {
        type Owned = (Scope, Vec<(TypeId, Arc<dyn Source>)>);
        let mut scopes: HashMap<String, Owned> = HashMap::new();
        {
            let state = self.lock();
            for ((scope, kind), entry) in &state.entries {
                if let Some(source) = entry.source.upgrade() {
                    let (_, sources) =
                        scopes.entry(scope.prefix()).or_insert_with(|| (scope.clone(), Vec::new()));
                    sources.push((*kind, source));
                }
            }
            for ((scope, _), source) in &state.named {
                if let Some(source) = source.upgrade() {
                    let (_, sources) =
                        scopes.entry(scope.prefix()).or_insert_with(|| (scope.clone(), Vec::new()));
                    sources.push((TypeId::of::<()>(), source));
                }
            }
        }
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.sort_by(|a, b| a.0.cmp(&b.0));
        for (prefix, (scope, sources)) in scopes {
            let mut samples = Vec::new();
            for (kind, source) in sources {
                let since = self.since(&scope, kind);
                source.read(&mut |name, reading| {
                    samples.push(OwnedSample::new(name, reading, since.as_ref()));
                });
            }
            samples.sort_by(|a, b| a.text.cmp(&b.text));
            for sample in &samples {
                let full = match prefix.as_str() {
                    "" => sample.text.clone(),
                    prefix => format!("{prefix}.{}", sample.text),
                };
                if !self.settings.keeps(&full) {
                    continue;
                }
                sample.lend(&scope, &prefix, visit);
            }
        }
    }

    fn since(&self, scope: &Scope, kind: TypeId) -> Option<Since> {
        let state = self.lock();
        let since = state.entries.get(&(scope.clone(), kind))?.since.as_deref()?;
        Some(Since { counters: since.counters.clone(), histograms: since.histograms.clone() })
    }

    /// Ends the interval of histograms and begins the next. Called every few seconds, as Envoy flushes
    /// (`stats_flush_interval`, 5 s).
    pub(crate) fn flush_histograms(&self) {
        for entry in self.lock().entries.values_mut() {
            let Some(source) = entry.source.upgrade().filter(|source| !source.is_unused()) else {
                continue;
            };
            source.read(&mut |name, reading| {
                let Reading::Histogram(now) = reading else { return };
                if now.is_empty() {
                    return;
                }
                let since = entry.since.get_or_insert_default();
                match since.histograms.get_mut(name.text) {
                    Some((before, interval)) => {
                        *interval = now.since(before);
                        before.clone_from(now);
                    }
                    None => {
                        since.histograms.insert(name.text.to_owned(), (now.clone(), now.clone()));
                    }
                }
            });
        }
    }

    /// Makes every counter start again from 0, for those who read; the cells themselves go on.
    pub(crate) fn reset_counters(&self) {
        let mut state = self.lock();
        for entry in state.entries.values_mut() {
            let Some(source) = entry.source.upgrade() else { continue };
            source.read(&mut |name, reading| {
                if let Reading::Counter { value, .. } = reading
                    && value > 0
                {
                    let since = entry.since.get_or_insert_default();
                    since.counters.insert(name.text.to_owned(), value);
                }
            });
        }
        for source in state.named.values().filter_map(Weak::upgrade) {
            let source: Arc<dyn Any + Send + Sync> = source;
            if let Ok(counter) = source.downcast::<NamedCounter>() {
                counter.value.store(0, Relaxed);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Inserts, and now and then takes out what has died: its cost is spread over insertions.
    fn insert(&mut self, key: (Scope, TypeId), source: Weak<dyn Source>) {
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, entry| entry.source.strong_count() > 0);
            self.sweep_at = 2 * self.entries.len() + 64;
        }
        self.entries.insert(key, Entry { source, since: None });
    }
}

/// A sample between being read and being sorted.
struct OwnedSample {
    text: String,
    stem: String,
    tags: Vec<(&'static str, String)>,
    value: OwnedReading,
}

enum OwnedReading {
    Counter(u64, bool),
    Gauge(u64, bool),
    Histogram(Snapshot, Option<Snapshot>),
    Text(String),
}

impl OwnedSample {
    fn new(name: Name<'_>, reading: Reading<'_>, since: Option<&Since>) -> Self {
        let value = match reading {
            Reading::Counter { value, used } => {
                let before = since.and_then(|since| since.counters.get(name.text));
                OwnedReading::Counter(value.wrapping_sub(before.copied().unwrap_or(0)), used)
            }
            Reading::Gauge { value, used } => OwnedReading::Gauge(value, used),
            Reading::Histogram(snapshot) => {
                let interval = since.and_then(|since| since.histograms.get(name.text));
                OwnedReading::Histogram(snapshot.clone(), interval.map(|(_, last)| last.clone()))
            }
            Reading::Text(text) => OwnedReading::Text(text.to_owned()),
        };
        Self {
            text: name.text.to_owned(),
            stem: name.stem.to_owned(),
            tags: name.tags.iter().map(|&(tag, value)| (tag, value.to_owned())).collect(),
            value,
        }
    }

    fn lend(&self, scope: &Scope, prefix: &str, visit: &mut dyn FnMut(Sample<'_>)) {
        let tags: Vec<_> = self.tags.iter().map(|(tag, value)| (*tag, value.as_str())).collect();
        let name = Name { text: &self.text, stem: &self.stem, tags: &tags };
        let (reading, interval) = match &self.value {
            OwnedReading::Counter(value, used) => {
                (Reading::Counter { value: *value, used: *used }, None)
            }
            OwnedReading::Gauge(value, used) => {
                (Reading::Gauge { value: *value, used: *used }, None)
            }
            OwnedReading::Histogram(all, interval) => (Reading::Histogram(all), interval.as_ref()),
            OwnedReading::Text(text) => (Reading::Text(text), None),
        };
        visit(Sample { scope, prefix, name, reading, interval });
    }
}

/// A name that is only known at run time, with the part of it that is a tag in Prometheus.
#[derive(Debug, Clone)]
pub(crate) struct NamedAs {
    /// What the name begins with, and all of it in Prometheus: `ssl.versions`.
    pub(crate) stem: &'static str,
    /// Tag and value, which follows the stem behind a dot: `envoy_ssl_version`, `TLSv1.3`.
    pub(crate) tag: Option<(&'static str, String)>,
}

impl NamedAs {
    /// A name without a tag.
    pub(crate) fn plain(stem: &'static str) -> Self {
        Self { stem, tag: None }
    }

    #[cfg(test)]
    /// `STEM.VALUE`, where the value is the tag `tag`.
    pub(crate) fn tagged(stem: &'static str, tag: &'static str, value: impl Into<String>) -> Self {
        Self { stem, tag: Some((tag, value.into())) }
    }

    fn text(&self) -> String {
        match &self.tag {
            Some((_, value)) => format!("{}.{value}", self.stem),
            None => self.stem.to_owned(),
        }
    }

    fn read(&self, reading: Reading<'_>, sink: &mut Sink<'_>) {
        let text = self.text();
        let tags: Vec<_> = self.tag.iter().map(|(tag, value)| (*tag, value.as_str())).collect();
        sink(Name { text: &text, stem: self.stem, tags: &tags }, reading);
    }
}

/// A counter with a name of its own. Dropped from the statistics when the last holder drops it.
pub(crate) struct NamedCounter {
    name: NamedAs,
    value: AtomicU64,
}

#[cfg(test)]
impl NamedCounter {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.value.fetch_add(1, Relaxed);
    }
}

impl Source for NamedCounter {
    fn read(&self, sink: &mut Sink<'_>) {
        let value = self.value.load(Relaxed);
        self.name.read(Reading::Counter { value, used: value != 0 }, sink);
    }
}

/// A text with a name of its own.
pub(crate) struct NamedText {
    name: NamedAs,
    value: Mutex<String>,
}

impl NamedText {
    /// Replaces it.
    pub(crate) fn set(&self, value: impl Into<String>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

impl Source for NamedText {
    fn read(&self, sink: &mut Sink<'_>) {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.name.read(Reading::Text(&value), sink);
    }
}
