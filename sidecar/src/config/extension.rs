//! HTTP filters whose configuration is discovered (ECDS).

pub use super::convert::extension as from_proto;

use std::sync::Arc;

use super::config_source::ConfigSource;
use super::http_filters::FilterKind;

/// A validated `TypedExtensionConfig`: what ECDS says of a filter.
#[derive(Debug, Clone)]
pub struct Extension {
    /// Its name: that of the filter.
    pub name: Arc<str>,
    /// Full name of the message that configures it.
    pub message: Box<str>,
    /// What the filter does; `None`: nothing.
    pub kind: Option<FilterKind>,
}

/// A validated `ExtensionConfigSource`: where the configuration of a filter comes from.
#[derive(Debug, Clone)]
pub struct DiscoveredFilter {
    /// Who is asked.
    pub source: ConfigSource,
    /// What the filter does until there is an answer, and where there is none. Without one, requests are answered 500.
    pub default: Option<Arc<Extension>>,
    /// The listener does not wait for the first answer: `default` is good enough.
    pub without_warming: bool,
    /// Full names of the messages that may configure it.
    pub messages: Box<[Box<str>]>,
}

impl DiscoveredFilter {
    /// Whether this message may configure the filter.
    pub fn takes(&self, message: &str) -> bool {
        self.messages.iter().any(|known| **known == *message)
    }
}
