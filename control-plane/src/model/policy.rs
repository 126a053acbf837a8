//! Kind `Policy`: who may talk to whom.

use super::mesh::Action;
use super::object::Labels;
use serde::{Serialize, Serializer};
use std::fmt;

/// A verdict on some requests. `deny` wins over `allow`; what no `allow` names has the mesh's default action.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// A DNS label.
    #[serde(skip)]
    pub name: String,
    /// Labels of the object.
    #[serde(skip)]
    pub labels: Labels,
    /// The services whose requests it judges. At least one.
    pub to: Vec<ServiceRef>,
    /// The verdict.
    pub action: Action,
    /// The callers it names, by the service in their certificate. Empty: anyone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ServiceRef>,
    /// Methods, in upper case. Empty: any. Judged on HTTP ports only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths. Empty: any. Judged on HTTP ports only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
}

/// A service, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// Its name.
    pub service: String,
}

/// A path, or the beginning of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path, whole. Begins with `/`.
    Exact(String),
    /// Paths that begin with this, byte by byte; written with a `*` at its end. Begins with `/`.
    Prefix(String),
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}*"),
        }
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
