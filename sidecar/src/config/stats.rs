//! `StatsConfig`: which statistics are kept, and what is said of them.

use std::net::SocketAddr;
use std::time::Duration;

use regex::Regex;

use super::matcher::StringMatcher;

/// A validated `envoy.config.metrics.v3.StatsConfig`.
#[derive(Debug, Clone)]
pub struct StatsConfig {
    /// Which statistics there are; `None`: all.
    pub matcher: Option<StatsMatcher>,
    /// Whether Envoy's own tags are told from names. Default true.
    pub default_tags: bool,
    /// Tags beside those.
    pub tags: Vec<StatTag>,
    /// Bounds of the buckets of histograms; the first whose names match counts.
    pub buckets: Vec<HistogramBuckets>,
}

impl Default for StatsConfig {
    fn default() -> Self {
        Self { matcher: None, default_tags: true, tags: Vec::new(), buckets: Vec::new() }
    }
}

/// Where statistics are sent (`stats_sinks`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsdSink {
    /// The server, over UDP.
    pub address: SocketAddr,
    /// What names begin with, without the dot behind. Default `envoy`.
    pub prefix: Box<str>,
}

/// When the interval of histograms ends and statistics are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsFlush {
    /// So often. Default 5 s.
    Every(Duration),
    /// When the admin interface is asked for statistics, and only then.
    OnAdmin,
}

impl Default for StatsFlush {
    fn default() -> Self {
        Self::Every(Duration::from_secs(5))
    }
}

/// Which statistics there are, by their full names.
#[derive(Debug, Clone)]
pub enum StatsMatcher {
    /// None.
    RejectAll,
    /// All but those that one of these matches.
    Exclusion(Vec<StringMatcher>),
    /// Only those that one of these matches.
    Inclusion(Vec<StringMatcher>),
}

impl StatsMatcher {
    /// Whether there is a statistic of this name.
    pub fn keeps(&self, name: &str) -> bool {
        let any =
            |matchers: &[StringMatcher]| matchers.iter().any(|it| it.matches(name.as_bytes()));
        match self {
            Self::RejectAll => false,
            Self::Exclusion(matchers) => !any(matchers),
            Self::Inclusion(matchers) => any(matchers),
        }
    }
}

/// A tag of statistics.
#[derive(Debug, Clone)]
pub struct StatTag {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: StatTagValue,
}

/// Where the value of a tag comes from.
#[derive(Debug, Clone)]
pub enum StatTagValue {
    /// The same for all statistics.
    Fixed(Box<str>),
    /// From the name: the first group is taken out of it, and the second, or else the first, is the value.
    Regex(Regex),
}

/// Bounds of the buckets of some histograms.
#[derive(Debug, Clone)]
pub struct HistogramBuckets {
    /// Which, by their full names.
    pub names: StringMatcher,
    /// The bounds, in order.
    pub bounds: Box<[f64]>,
}
