//! The bootstrap: what a sidecar starts from.

pub use super::convert::bootstrap as from_proto;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::json::{Document, JsonError, Position, Schema, parse_document};
use prost::Message;

use super::address::Address;
use super::bind_config::BindConfig;
use super::cluster::Cluster;
use super::config_source::ConfigSource;
use super::endpoint::Locality;
use super::listener::Listener;
use super::problem::Rejected;
use super::runtime::RuntimeLayer;
use super::secret::Secret;
use super::stats::{StatsConfig, StatsFlush, StatsdSink};

/// A validated `envoy.config.bootstrap.v3.Bootstrap`.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Who we are, as discovery servers are told.
    pub node: Node,
    /// Address of the admin interface, and the permissions of the file of a Unix domain socket; `None`: there is none.
    pub admin: Option<(Address, Option<u32>)>,
    /// Listeners that stand in the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Clusters that stand in the file.
    pub clusters: Vec<Arc<Cluster>>,
    /// Secrets that stand in the file.
    pub secrets: Vec<Secret>,
    /// The aggregated discovery service.
    pub ads: Option<DiscoveryService>,
    /// Listeners are discovered.
    pub lds: Option<ConfigSource>,
    /// Clusters are discovered.
    pub cds: Option<ConfigSource>,
    /// Who is told how much load there was (`cluster_manager.load_stats_config`).
    pub load_stats: Option<DiscoveryService>,
    /// Where ejections are written to (`cluster_manager.outlier_detection.event_log_path`).
    pub outlier_event_log: Option<PathBuf>,
    /// Where connections to endpoints come from, of clusters that do not say.
    pub bind: Option<Arc<BindConfig>>,
    /// The cluster of the sidecars of our own kind, for zone aware routing. It stands in the file.
    pub local_cluster: Option<Arc<str>>,
    /// Which statistics are kept, and what is said of them.
    pub stats: StatsConfig,
    /// Where statistics are sent.
    pub stats_sinks: Vec<StatsdSink>,
    /// When they are sent.
    pub stats_flush: StatsFlush,
    /// The layers of the runtime, of which the last one with a key wins.
    pub runtime: Vec<RuntimeLayer>,
    /// The message as it was read, encoded: what `/config_dump` shows.
    pub encoded: Vec<u8>,
}

/// Who we are, as spans and logs that are sent away say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalInfo {
    /// `node.id`
    pub id: String,
    /// `node.cluster`
    pub cluster: String,
    /// `node.locality.zone`
    pub zone: String,
    /// The whole node, encoded.
    pub node: Vec<u8>,
}

impl Bootstrap {
    /// Who we are.
    pub fn local_info(&self) -> LocalInfo {
        let Node { id, cluster, locality, .. } = &self.node;
        let zone = locality.as_ref().map(|locality| locality.zone.clone()).unwrap_or_default();
        let node = self.node.encode_to_vec();
        LocalInfo { id: id.clone(), cluster: cluster.clone(), zone, node }
    }

    /// Where we are, if the node says.
    pub fn locality(&self) -> Option<Locality> {
        self.node.locality.as_ref().map(|locality| Locality {
            region: locality.region.as_str().into(),
            zone: locality.zone.as_str().into(),
            sub_zone: locality.sub_zone.as_str().into(),
        })
    }
}

/// A discovery server and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoveryService {
    /// Name of the cluster (`envoy_grpc.cluster_name`); it stands in the bootstrap and is not itself discovered. With
    /// `channel` it is the name of that one, for people.
    pub cluster: Arc<str>,
    /// The server itself (`google_grpc`), instead of a cluster of the bootstrap.
    pub channel: Option<GrpcChannel>,
    /// `:authority` of the calls; `None`: the cluster's name.
    pub authority: Option<Box<str>>,
    /// The protocol variant.
    pub variant: Variant,
    /// The node is sent only in the first request of a stream.
    pub set_node_on_first_message_only: bool,
    /// Metadata of the call.
    pub initial_metadata: Vec<(Box<str>, Box<str>)>,
    /// Back-off of reconnects: base and maximum. Default 500 ms and 30 s.
    pub backoff: (Duration, Duration),
    /// How many requests the server takes (`rate_limit_settings`); `None`: any number.
    pub rate_limit: Option<RequestRate>,
}

/// Requests that a server takes: a bucket of tokens, of which each costs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestRate {
    /// So many at once. At least 1; default 100.
    pub burst: u32,
    /// The time in which one token comes. Default 100 ms, at most a year.
    pub interval: Duration,
}

/// A gRPC server that needs no cluster of the bootstrap: its address and its TLS (`google_grpc`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcChannel {
    /// In the form of a cluster of one endpoint, encoded: two channels that say the same are one.
    pub(super) encoded: Arc<[u8]>,
}

impl GrpcChannel {
    /// The cluster of its own.
    ///
    /// # Errors
    /// If a file that it names cannot be read any more.
    pub fn cluster(&self) -> Result<Arc<Cluster>, Vec<Rejected>> {
        super::convert::channel(&self.encoded).map(Arc::new)
    }
}

/// The two variants of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// State of the world (`GRPC`).
    StateOfTheWorld,
    /// Incremental (`DELTA_GRPC`).
    Delta,
}

/// What the command line adds to a bootstrap file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--service-node`: instead of `node.id`.
    pub service_node: Option<String>,
    /// `--service-cluster`: instead of `node.cluster`.
    pub service_cluster: Option<String>,
    /// `--service-zone`: instead of `node.locality.zone`.
    pub service_zone: Option<String>,
    /// `--allow-unknown-static-fields`: a key that a message does not have is skipped instead of refused.
    pub allow_unknown_static_fields: bool,
}

/// Why a bootstrap could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a file nor a text was named.
    #[error("no configuration: name a file with --config-path, or give it with --config-yaml")]
    Nothing,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text is not YAML or JSON.
    #[error("{origin}: {source}")]
    Text {
        /// The file, or `--config-yaml`.
        origin: String,
        /// What is wrong with it.
        source: JsonError,
    },
    /// It is not a bootstrap, or not one that can be run.
    #[error("{}", list(.0))]
    Rejected(Vec<Located>),
}

/// A refused field and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file, or `--config-yaml`.
    pub origin: String,
    /// Line and column of the field, or of the nearest part of the text that it would be in. Unknown where two texts
    /// were merged.
    pub position: Option<Position>,
    /// The field, and what is wrong with it.
    pub problem: Rejected,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "{}:{position}: {}", self.origin, self.problem),
            None => write!(f, "{}: {}", self.origin, self.problem),
        }
    }
}

fn list(problems: &[Located]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads a bootstrap from a file (YAML or JSON) and `--config-yaml`, whichever are given. The latter is merged over the
/// file as protos merge: messages field by field, repeated fields by appending.
///
/// # Errors
/// With everything that is wrong at once, where the text is a bootstrap at all.
pub fn read(
    path: Option<&Path>,
    overlay: Option<&str>,
    options: &Options,
) -> Result<Bootstrap, ConfigError> {
    let file = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            Some(Text::parse(path.display().to_string(), &text)?)
        }
        None => None,
    };
    let overlay = overlay.map(|text| Text::parse("--config-yaml".to_owned(), text)).transpose()?;
    let (file, overlay) = match (file, overlay) {
        (None, None) => return Err(ConfigError::Nothing),
        (None, Some(only)) | (Some(only), None) => (only, None),
        (Some(file), Some(overlay)) => (file, Some(overlay)),
    };
    let schema = Schema::load()
        .map_err(|source| ConfigError::Text { origin: file.origin.clone(), source })?;
    let mut problems = Vec::new();
    let mut proto = file.read(&schema, options, &mut problems)?;
    if let Some(overlay) = &overlay {
        merge(&mut proto, &overlay.read(&schema, options, &mut problems)?);
    }
    if !problems.is_empty() {
        return Err(ConfigError::Rejected(problems));
    }
    override_node(&mut proto, options);
    let encoded = proto.encode_to_vec();
    let deny_unknown_fields = !options.allow_unknown_static_fields;
    let bootstrap = super::typed_struct::resolve_message(proto, deny_unknown_fields)
        .and_then(super::convert::bootstrap_of_file);
    bootstrap.map(|bootstrap| Bootstrap { encoded, ..bootstrap }).map_err(|rejected| {
        let located = |problem: Rejected| Located {
            origin: file.origin.clone(),
            position: file.position(&problem.path).filter(|_| overlay.is_none()),
            problem,
        };
        let mut problems: Vec<Located> = rejected.into_iter().map(located).collect();
        // As they stand in the file, for whoever mends it from top to bottom.
        problems.sort_by_key(|located| located.position.map(|at| (at.line, at.column)));
        ConfigError::Rejected(problems)
    })
}

/// One of the texts that make up a bootstrap.
struct Text {
    origin: String,
    document: Document,
}

impl Text {
    fn parse(origin: String, text: &str) -> Result<Self, ConfigError> {
        match parse_document(text) {
            Ok(document) => Ok(Self { origin, document }),
            Err(source) => Err(ConfigError::Text { origin, source }),
        }
    }

    fn position(&self, path: &str) -> Option<Position> {
        self.document.positions.of(path)
    }

    /// The message in the text; an empty one and the problems, if it does not fit.
    fn read(
        &self,
        schema: &Schema,
        options: &Options,
        problems: &mut Vec<Located>,
    ) -> Result<BootstrapProto, ConfigError> {
        let value = self.document.value.clone();
        // An empty file is an empty bootstrap, and not an object only by its looks.
        let value = if value.is_null() { serde_json::json!({}) } else { value };
        match schema.read_value(value, !options.allow_unknown_static_fields) {
            Ok(proto) => Ok(proto),
            Err(JsonError::Mapping(found)) => {
                problems.extend(found.into_iter().map(|problem| Located {
                    origin: self.origin.clone(),
                    position: self.position(&problem.path),
                    problem: Rejected { path: problem.path, reason: problem.reason },
                }));
                Ok(BootstrapProto::default())
            }
            Err(source) => Err(ConfigError::Text { origin: self.origin.clone(), source }),
        }
    }
}

/// As every protobuf runtime merges: fields that are set replace, messages merge, lists append.
fn merge(proto: &mut BootstrapProto, overlay: &BootstrapProto) {
    // What was just encoded decodes again.
    let _ = proto.merge(overlay.encode_to_vec().as_slice());
}

fn override_node(proto: &mut BootstrapProto, options: &Options) {
    let Options { service_node, service_cluster, service_zone, allow_unknown_static_fields: _ } =
        options;
    let node = proto.node.get_or_insert_default();
    if let Some(id) = service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = service_zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "node: {id: a, cluster: b}
static_resources:
  clusters:
  - name: one
    connect_timeout: 1s
";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn names(bootstrap: &Bootstrap) -> Vec<&str> {
        bootstrap.clusters.iter().map(|cluster| &*cluster.name).collect()
    }

    #[test]
    fn an_overlay_replaces_fields_and_adds_to_lists() {
        let file = file(FILE);
        let overlay = "{node: {id: x}, static_resources: {clusters: [{name: two}]}}";
        let bootstrap = read(Some(file.path()), Some(overlay), &Options::default()).unwrap();
        assert_eq!((&*bootstrap.node.id, &*bootstrap.node.cluster), ("x", "b"));
        assert_eq!(names(&bootstrap), ["one", "two"]);
        let alone = read(None, Some(overlay), &Options::default()).unwrap();
        assert_eq!(names(&alone), ["two"]);
        assert!(matches!(read(None, None, &Options::default()), Err(ConfigError::Nothing)));
    }

    #[test]
    fn flags_name_the_node() {
        let options = Options {
            service_node: Some("n".to_owned()),
            service_cluster: Some("c".to_owned()),
            service_zone: Some("z".to_owned()),
            allow_unknown_static_fields: false,
        };
        let bootstrap = read(Some(file(FILE).path()), None, &options).unwrap();
        assert_eq!((&*bootstrap.node.id, &*bootstrap.node.cluster), ("n", "c"));
        assert_eq!(bootstrap.node.locality.unwrap().zone, "z");
    }

    #[test]
    fn json_is_a_bootstrap_too() {
        let file = file(r#"{"static_resources": {"clusters": [{"name": "j"}]}}"#);
        assert_eq!(names(&read(Some(file.path()), None, &Options::default()).unwrap()), ["j"]);
    }

    #[test]
    fn a_refused_field_is_named_with_its_line() {
        let text = FILE.replace("1s", "-1s").replace("one", "\"\"");
        let file = file(&text);
        let error = read(Some(file.path()), None, &Options::default()).unwrap_err().to_string();
        let name = file.path().display();
        assert!(
            error.contains(&format!(
                "{name}:5:22: static_resources.clusters[0].connect_timeout: must not be negative"
            )),
            "{error}"
        );
        let first = format!("{name}:4:11: static_resources.clusters[0].name");
        assert!(error.starts_with(&first), "in the order of the file: {error}");
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line_unless_it_is_allowed() {
        let text = FILE.replace("connect_timeout", "connect_timeuot");
        let file = file(&text);
        let error = read(Some(file.path()), None, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(":5:"), "{error}");
        assert!(error.contains("did you mean connect_timeout?"), "{error}");
        let options = Options { allow_unknown_static_fields: true, ..Options::default() };
        assert!(read(Some(file.path()), None, &options).is_ok());
    }

    #[test]
    fn what_is_not_there_or_not_yaml_is_told() {
        let missing = read(Some(Path::new("/nowhere.yaml")), None, &Options::default());
        assert!(missing.unwrap_err().to_string().contains("cannot read /nowhere.yaml"));
        let broken = read(None, Some("a: [1"), &Options::default()).unwrap_err();
        assert!(broken.to_string().starts_with("--config-yaml: "), "{broken}");
    }
}
