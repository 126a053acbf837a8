//! What the API answers. Unknown members are left alone, so that an older client understands a newer server.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// `{"items": [...]}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

/// Answer to an apply.
#[derive(Debug, Deserialize)]
pub(crate) struct Applied {
    pub(crate) revision: u64,
    #[serde(default)]
    pub(crate) objects: Vec<Change>,
    /// Sidecars that serve the revision, of those it concerns.
    #[serde(default)]
    pub(crate) acked: u64,
    #[serde(default)]
    pub(crate) total: u64,
    /// What a dry run would change, sidecar by sidecar.
    #[serde(default)]
    pub(crate) effect: Option<Effect>,
    /// Things worth knowing that are no errors.
    #[serde(default)]
    pub(crate) warnings: Vec<FieldError>,
}

/// What a configuration would change at the sidecars.
#[derive(Debug, Deserialize)]
pub(crate) struct Effect {
    pub(crate) changed: u64,
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) sidecars: Vec<SidecarEffect>,
}

/// What would change at one of them.
#[derive(Debug, Deserialize)]
pub(crate) struct SidecarEffect {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) listeners: Difference,
    #[serde(default)]
    pub(crate) routes: Difference,
    #[serde(default)]
    pub(crate) clusters: Difference,
    #[serde(default)]
    pub(crate) endpoints: Difference,
}

/// Resources of one type.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Difference {
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) removed: u64,
}

impl fmt::Display for SidecarEffect {
    /// `clusters ~1, routes +2 -1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = [
            ("listeners", self.listeners),
            ("clusters", self.clusters),
            ("endpoints", self.endpoints),
            ("routes", self.routes),
        ];
        let mut words = Vec::new();
        for (name, Difference { added, changed, removed }) in types {
            let counts = [('+', added), ('~', changed), ('-', removed)];
            let counts = counts.into_iter().filter(|(_, count)| *count > 0);
            let counts: Vec<_> = counts.map(|(sign, count)| format!("{sign}{count}")).collect();
            if !counts.is_empty() {
                words.push(format!("{name} {}", counts.join(" ")));
            }
        }
        f.write_str(&words.join(", "))
    }
}

/// One field of an object before and after.
#[derive(Debug, Deserialize)]
pub(crate) struct FieldChange {
    pub(crate) field: String,
    #[serde(default)]
    pub(crate) before: Option<Value>,
    #[serde(default)]
    pub(crate) after: Option<Value>,
}

impl fmt::Display for FieldChange {
    /// `~ spec.timeouts.request: "1s" -> "2s"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {field}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "+ {field}: {after}"),
            (Some(before), None) => write!(f, "- {field}: {before}"),
            (None, None) => write!(f, "  {field}"),
        }
    }
}

/// What became of one object.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// `created`, `updated`, `unchanged`, `deleted`.
    pub(crate) action: String,
    /// What is other than before.
    #[serde(default)]
    pub(crate) fields: Vec<FieldChange>,
}

/// One object of the mesh.
#[derive(Debug, Deserialize)]
pub(crate) struct Object {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) spec: Value,
    #[serde(default)]
    pub(crate) revision: Option<u64>,
    #[serde(default)]
    pub(crate) status: Option<ObjectStatus>,
}

/// How far an object has come.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ObjectStatus {
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) acked: u64,
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) problems: Vec<Value>,
}

/// Answer to `GET /v1/status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) revision: u64,
    #[serde(default)]
    pub(crate) sidecars: Vec<Sidecar>,
    #[serde(default)]
    pub(crate) objects: Vec<ObjectStatus>,
    #[serde(default)]
    pub(crate) alarms: Vec<Alarm>,
}

/// What will go wrong if nobody does anything.
#[derive(Debug, Deserialize)]
pub(crate) struct Alarm {
    pub(crate) code: String,
    pub(crate) detail: String,
}

/// One sidecar, or a foreign client of discovery.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sidecar {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) instance: String,
    pub(crate) connected: bool,
    #[serde(default)]
    pub(crate) client: String,
    /// The revision it serves.
    #[serde(default)]
    pub(crate) revision: Option<u64>,
    #[serde(default)]
    pub(crate) listeners: Option<TypeState>,
    #[serde(default)]
    pub(crate) routes: Option<TypeState>,
    #[serde(default)]
    pub(crate) clusters: Option<TypeState>,
    #[serde(default)]
    pub(crate) endpoints: Option<TypeState>,
    #[serde(default)]
    pub(crate) secrets: Option<TypeState>,
    /// RFC 3339.
    #[serde(default)]
    pub(crate) certificate_expires: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub(crate) last_contact: Option<String>,
}

impl Sidecar {
    /// The five resource types with their names, in the order of tables.
    pub(crate) fn types(&self) -> [(&'static str, Option<&TypeState>); 5] {
        [
            ("listeners", self.listeners.as_ref()),
            ("routes", self.routes.as_ref()),
            ("clusters", self.clusters.as_ref()),
            ("endpoints", self.endpoints.as_ref()),
            ("secrets", self.secrets.as_ref()),
        ]
    }

    /// Connected, and nothing pending or rejected.
    pub(crate) fn in_sync(&self) -> bool {
        self.connected
            && self.types().iter().all(|(_, state)| state.is_none_or(|state| state.state == "ok"))
    }
}

/// How one resource type stands at one sidecar.
#[derive(Debug, Deserialize)]
pub(crate) struct TypeState {
    /// `ok`, `pending`, `REJECTED`.
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) instance: String,
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) port: u16,
    /// `healthy`, `unhealthy`, `draining`, `ejected`.
    pub(crate) health: String,
    #[serde(default)]
    pub(crate) ejected_until: Option<String>,
    #[serde(default)]
    pub(crate) ejected_because: Option<String>,
    #[serde(default)]
    pub(crate) weight: Option<u64>,
    #[serde(default)]
    pub(crate) active_requests: Option<u64>,
    #[serde(default)]
    pub(crate) locality: Value,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Answer to `POST /v1/tokens`.
#[derive(Debug, Deserialize)]
pub(crate) struct Token {
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) expires: String,
    #[serde(default)]
    pub(crate) uses: u64,
}

/// One revision.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryItem {
    pub(crate) revision: u64,
    #[serde(default)]
    pub(crate) time: String,
    #[serde(default)]
    pub(crate) author: String,
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
}

/// RFC 9457 problem details with our list of errors.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) errors: Vec<FieldError>,
}

impl Problem {
    /// Whether resources are at fault, as opposed to anything else about the call.
    pub(crate) fn is_about_resources(&self) -> bool {
        self.status == 422 || self.status == 400 && !self.errors.is_empty()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title.is_empty(), self.detail.is_empty()) {
            (true, true) => write!(f, "status {}", self.status)?,
            (false, true) => f.write_str(&self.title)?,
            (true, false) => f.write_str(&self.detail)?,
            (false, false) => write!(f, "{}: {}", self.title, self.detail)?,
        }
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong with a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct FieldError {
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Path of the field, e.g. `spec.loadBalancer.policy`.
    #[serde(default)]
    pub(crate) field: Option<String>,
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) suggestion: Option<String>,
    #[serde(default)]
    pub(crate) choices: Option<Vec<String>>,
    /// From 1, in the whole input.
    #[serde(default)]
    pub(crate) line: Option<u64>,
    /// From 1, in characters.
    #[serde(default)]
    pub(crate) column: Option<u64>,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind.as_deref().unwrap_or(""), self.name.as_deref().unwrap_or("")) {
            ("", "") => {}
            (kind, "") => write!(f, "{kind} ")?,
            ("", name) => write!(f, "{name} ")?,
            (kind, name) => write!(f, "{kind}/{name} ")?,
        }
        match self.field.as_deref().unwrap_or("") {
            "" => f.write_str(&self.reason),
            field => write!(f, "{field}: {}", self.reason),
        }
    }
}
