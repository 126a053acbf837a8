//! What is wanted of a type.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What we want of a type. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) enum Interest {
    /// Nothing yet: the server is not asked.
    #[default]
    None,
    /// All there is (listeners and clusters).
    Everything,
    /// All there is, and these by their names: they need not be in what the server takes for everything.
    EverythingAnd(Arc<BTreeSet<Arc<str>>>),
    /// These. May be empty.
    Names(Arc<BTreeSet<Arc<str>>>),
}

impl PartialEq for Interest {
    /// Sets of ten thousand names are compared with each answer: mostly they are one and the same.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Everything, Self::Everything) => true,
            (Self::Names(a), Self::Names(b)) | (Self::EverythingAnd(a), Self::EverythingAnd(b)) => {
                Arc::ptr_eq(a, b) || a == b
            }
            _ => false,
        }
    }
}

impl Interest {
    pub(super) fn includes(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Everything | Self::EverythingAnd(_) => true,
            Self::Names(names) => names.contains(name),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::Everything | Self::EverythingAnd(_) => false,
            Self::Names(names) => names.is_empty(),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        match self {
            // An empty list is the wildcard that every server knows, as long as no name was ever sent.
            Self::None | Self::Everything => Vec::new(),
            Self::Names(names) => names.iter().map(|name| name.to_string()).collect(),
            Self::EverythingAnd(names) => {
                let names = names.iter().map(|name| name.to_string());
                std::iter::once("*".to_owned()).chain(names).collect()
            }
        }
    }

    /// Names that are asked for by themselves.
    pub(super) fn explicit(&self) -> Option<&Arc<BTreeSet<Arc<str>>>> {
        match self {
            Self::None | Self::Everything => None,
            Self::Names(names) | Self::EverythingAnd(names) => Some(names),
        }
    }
}
