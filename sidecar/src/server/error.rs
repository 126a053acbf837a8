//! Why the process cannot serve.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Rejected;
use crate::config::address::Address;
use crate::config::bootstrap::ConfigError;
use crate::mesh;
use crate::xds::Kind;

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bootstrap cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A part of it cannot be put into effect.
    #[error("{what} {name:?}: {}", list(.rejected))]
    Static {
        /// `listener` and so on.
        what: Kind,
        /// Its name.
        name: Arc<str>,
        /// Why.
        rejected: Vec<Rejected>,
    },
    /// The descriptors for `--reject-unknown-dynamic-fields` cannot be loaded.
    #[error("descriptors: {0}")]
    Descriptors(#[from] outrigger_proto::json::JsonError),
    /// The discovery service cannot be spoken to.
    #[error("the cluster of the discovery service: {0}")]
    Discovery(Rejected),
    /// The mesh does not take this sidecar.
    #[error("{0}")]
    Mesh(#[from] mesh::Error),
    /// The admin interface cannot be opened.
    #[error("admin interface at {address}: {source}")]
    Admin {
        /// Where.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the command line cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses something.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

fn list(rejected: &[Rejected]) -> String {
    rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
