//! [`Kind`], and [`Object`]: one of any kind.

use super::{Endpoint, Gateway, Mesh, Policy, Route, Service};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Labels: free names and values, in order of name.
pub type Labels = BTreeMap<String, String>;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Defaults of the whole mesh. One object, `default`.
    Mesh,
    /// A service: its ports, and how to talk to it.
    Service,
    /// Where requests go.
    Route,
    /// A door into the mesh.
    Gateway,
    /// Who may talk to whom.
    Policy,
    /// An instance that has no sidecar.
    Endpoint,
}

impl Kind {
    /// Every kind, in the order in which `export` writes them: what is referred to comes first.
    pub const ALL: [Self; 6] =
        [Self::Mesh, Self::Service, Self::Gateway, Self::Route, Self::Policy, Self::Endpoint];

    /// The name as documents spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Service => "Service",
            Self::Route => "Route",
            Self::Gateway => "Gateway",
            Self::Policy => "Policy",
            Self::Endpoint => "Endpoint",
        }
    }

    /// The name as the API's paths spell it, lower-case plural.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Mesh => "meshes",
            Self::Service => "services",
            Self::Route => "routes",
            Self::Gateway => "gateways",
            Self::Policy => "policies",
            Self::Endpoint => "endpoints",
        }
    }

    /// The kind that documents call `name`.
    pub fn from_document(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind that the API's paths call `plural`.
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One object of any kind. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Defaults of the whole mesh.
    Mesh(Arc<Mesh>),
    /// A service.
    Service(Arc<Service>),
    /// Where requests go.
    Route(Arc<Route>),
    /// A door into the mesh.
    Gateway(Arc<Gateway>),
    /// Who may talk to whom.
    Policy(Arc<Policy>),
    /// An instance that has no sidecar.
    Endpoint(Arc<Endpoint>),
}

/// What a document holds.
#[derive(Serialize)]
struct Document<'a, T> {
    kind: Kind,
    name: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a Labels,
    spec: &'a T,
}

impl Object {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Mesh(_) => Kind::Mesh,
            Self::Service(_) => Kind::Service,
            Self::Route(_) => Kind::Route,
            Self::Gateway(_) => Kind::Gateway,
            Self::Policy(_) => Kind::Policy,
            Self::Endpoint(_) => Kind::Endpoint,
        }
    }

    /// Its name, unique within its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Mesh(it) => &it.name,
            Self::Service(it) => &it.name,
            Self::Route(it) => &it.name,
            Self::Gateway(it) => &it.name,
            Self::Policy(it) => &it.name,
            Self::Endpoint(it) => &it.name,
        }
    }
}

/// As a document: `kind`, `name`, `labels` (if any), `spec` with every default written out.
impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn document<'a, T>(
            kind: Kind,
            name: &'a str,
            labels: &'a Labels,
            spec: &'a T,
        ) -> Document<'a, T> {
            Document { kind, name, labels, spec }
        }
        let kind = self.kind();
        match self {
            Self::Mesh(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
            Self::Service(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
            Self::Route(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
            Self::Gateway(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
            Self::Policy(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
            Self::Endpoint(it) => document(kind, &it.name, &it.labels, &**it).serialize(serializer),
        }
    }
}
