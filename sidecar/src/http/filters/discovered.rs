//! A filter whose configuration is discovered (ECDS): which one it is may change between two requests.

use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;

use super::{Filter, Passage};
use crate::access_log::ResponseFlags;
use crate::config::extension::{DiscoveredFilter, Extension};
use crate::config::http_filters::HttpFilter;
use crate::http::local_reply::{LocalReply, Reason};
use crate::http::router::Refusal;
use crate::local::Local;
use crate::stats::Registry;

/// The place of such a filter in one connection manager.
pub(crate) struct Slot {
    name: Arc<str>,
    config: Arc<DiscoveredFilter>,
    prefix: Arc<str>,
    current: ArcSwap<Current>,
}

/// What is in force.
pub(super) enum Current {
    /// A filter.
    Filter(Filter),
    /// A filter that does nothing.
    Nothing,
    /// There is no configuration, and no default.
    Missing,
}

impl Slot {
    /// With the default, if there is one.
    pub(super) fn new(
        name: &Arc<str>,
        config: &Arc<DiscoveredFilter>,
        registry: &Arc<Registry>,
        prefix: &Arc<str>,
        control: &Rc<Local>,
    ) -> Self {
        let slot = Self {
            name: Arc::clone(name),
            config: Arc::clone(config),
            prefix: Arc::clone(prefix),
            current: ArcSwap::from_pointee(Current::Missing),
        };
        slot.set(None, registry, control);
        slot
    }

    /// The name of the filter, and of what is discovered.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Puts a configuration into force, or the default where there is none that this filter takes. Requests that are in
    /// the filter, or have passed it, are not affected.
    pub(crate) fn set(
        &self,
        extension: Option<&Arc<Extension>>,
        registry: &Arc<Registry>,
        control: &Rc<Local>,
    ) {
        let taken = extension.filter(|extension| self.config.takes(&extension.message));
        let current = match taken.or(self.config.default.as_ref()) {
            None => Current::Missing,
            Some(extension) => match &extension.kind {
                None => Current::Nothing,
                Some(kind) => {
                    let (name, kind) = (Arc::clone(&self.name), kind.clone());
                    // Whether it is off, the place says where it stands.
                    let config = HttpFilter { name, disabled: false, kind };
                    Current::Filter(Filter::build(&config, registry, &self.prefix, control))
                }
            },
        };
        self.current.store(Arc::new(current));
    }

    /// What is in force, for one request.
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    pub(super) fn after_refusal(&self, passage: &mut Passage<'_>) {
        if let Current::Filter(filter) = &**self.current.load() {
            filter.after_refusal(passage);
        }
    }
}

/// The answer to a request where there is no filter, as in Envoy.
pub(super) fn missing() -> Refusal {
    let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "");
    let reply = reply.because(Reason::NoFilterConfig);
    Box::new(reply.flagged(ResponseFlags::NO_FILTER_CONFIG_FOUND))
}
