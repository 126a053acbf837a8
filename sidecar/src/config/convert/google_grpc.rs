//! `GoogleGrpc`: a discovery server that is named by its address instead of by a cluster.
//!
//! What Envoy leaves to gRPC's own library is done here as for any cluster: the target becomes one of a single endpoint.

use std::net::IpAddr;
use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3 as cluster;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::grpc_service::GoogleGrpc;
use outrigger_proto::envoy::config::core::v3::grpc_service::google_grpc::call_credentials;
use outrigger_proto::envoy::config::core::v3::grpc_service::google_grpc::channel_credentials::CredentialSpecifier;
use outrigger_proto::envoy::config::core::v3::grpc_service::google_grpc::{
    CallCredentials, ChannelCredentials, GoogleLocalCredentials, SslCredentials,
};
use outrigger_proto::envoy::config::endpoint::v3 as endpoint;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrigger_proto::envoy::r#type::matcher::v3::StringMatcher;
use outrigger_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Message;

use crate::config::Problems;
use crate::config::bootstrap::GrpcChannel;

use super::common::{header_value, text, unsupported};
use super::data_source;

/// Port of a target that names none, as in gRPC.
const DEFAULT_PORT: u16 = 443;

/// Whom a stream goes to.
pub(super) struct Target {
    pub(super) cluster: Arc<str>,
    pub(super) channel: Option<GrpcChannel>,
    pub(super) authority: Option<Box<str>>,
}

/// A target, and what its credentials add to the metadata of calls.
pub(super) struct Google {
    pub(super) target: Target,
    pub(super) metadata: Vec<(Box<str>, Box<str>)>,
}

/// A server by its address.
pub(super) fn convert(problems: &mut Problems, proto: GoogleGrpc) -> Option<Google> {
    let GoogleGrpc {
        target_uri,
        channel_credentials,
        channel_credentials_plugin,
        call_credentials,
        call_credentials_plugin,
        stat_prefix,
        credentials_factory_name,
        config,
        per_stream_buffer_limit_bytes: _, // of what waits to be written; requests of discovery wait for tokens only
        channel_args,
    } = proto;
    // Envoy passes the plugins over: whoever writes credentials there would speak in the clear without knowing.
    unsupported!(problems; channel_credentials_plugin, call_credentials_plugin, credentials_factory_name, config,
        channel_args);
    // Of statistics of gRPC's own library, which is not used here.
    text(problems, "stat_prefix", stat_prefix);
    let place = place(problems, target_uri);
    let tls = channel_credentials.and_then(|proto| {
        problems.field("channel_credentials", |problems| channel(problems, proto))
    });
    let has_tls = tls.is_some();
    let calls = call_credentials.into_iter().enumerate();
    let metadata = calls
        .filter_map(|(index, proto)| {
            problems.element("call_credentials", index, |problems| call(problems, proto, has_tls))
        })
        .collect();
    let place = place?;
    let authority = place.authority();
    let proto = place.cluster(tls);
    let channel = GrpcChannel { encoded: proto.encode_to_vec().into() };
    let cluster = match channel.cluster() {
        Ok(cluster) => cluster,
        Err(rejected) => {
            let about = if has_tls { "channel_credentials" } else { "target_uri" };
            rejected.into_iter().for_each(|it| problems.reject_field(about, it.reason));
            return None;
        }
    };
    let target = Target { cluster: Arc::clone(&cluster.name), channel: Some(channel), authority };
    Some(Google { target, metadata })
}

/// Where a target is.
enum Place {
    Host { host: String, port: u16 },
    Socket(String),
}

/// `host`, `host:port`, `[v6]:port`, each with `dns:`, `ipv4:` or `ipv6:` before, or `unix:path`: the names that need no
/// resolver of gRPC's own (its "Name Resolution" page).
fn place(problems: &mut Problems, uri: String) -> Option<Place> {
    let uri = text(problems, "target_uri", uri);
    if uri.is_empty() {
        return None;
    }
    if let Some(path) = uri.strip_prefix("unix:") {
        return Some(Place::Socket(path.strip_prefix("//").unwrap_or(path).to_owned()));
    }
    let rest = ["dns:", "ipv4:", "ipv6:"].iter().find_map(|scheme| uri.strip_prefix(scheme));
    let rest = rest.unwrap_or(&uri);
    let rest = rest.strip_prefix("///").unwrap_or(rest);
    let found = host_and_port(rest);
    if found.is_none() {
        problems.reject_field(
            "target_uri",
            format!("{uri:?} is not supported: host:port, dns:, ipv4:, ipv6: or unix:"),
        );
    }
    found
}

fn host_and_port(text: &str) -> Option<Place> {
    if text.is_empty() || text.contains(['/', ',']) {
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Place::Host { host: address.to_string(), port: DEFAULT_PORT });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = !host.is_empty() && (host.parse::<IpAddr>().is_ok() || !host.contains(':'));
    is_host.then(|| Place::Host { host: host.to_owned(), port })
}

impl Place {
    /// `:authority` of the calls, as gRPC makes it.
    fn authority(&self) -> Option<Box<str>> {
        match self {
            Self::Host { host, port } if host.contains(':') => {
                Some(format!("[{host}]:{port}").into())
            }
            Self::Host { host, port } => Some(format!("{host}:{port}").into()),
            Self::Socket(_) => Some("localhost".into()),
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Host { host, .. } => host,
            Self::Socket(_) => "localhost",
        }
    }

    /// A cluster of this one endpoint.
    fn cluster(&self, tls: Option<Credentials>) -> cluster::Cluster {
        let (discovery, address) = match self {
            Self::Host { host, port } => {
                let discovery = match host.parse::<IpAddr>() {
                    Ok(_) => cluster::cluster::DiscoveryType::Static,
                    Err(_) => cluster::cluster::DiscoveryType::StrictDns,
                };
                let port = core::socket_address::PortSpecifier::PortValue(u32::from(*port));
                let socket = core::SocketAddress {
                    address: host.clone(),
                    port_specifier: Some(port),
                    ..Default::default()
                };
                (discovery, core::address::Address::SocketAddress(socket))
            }
            Self::Socket(path) => {
                let pipe = core::Pipe { path: path.clone(), mode: 0 };
                (cluster::cluster::DiscoveryType::Static, core::address::Address::Pipe(pipe))
            }
        };
        let endpoint = endpoint::Endpoint {
            address: Some(core::Address { address: Some(address) }),
            ..Default::default()
        };
        let endpoint = endpoint::LbEndpoint {
            host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        };
        let locality =
            endpoint::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
        let name = format!("google_grpc:{}", self.authority().unwrap_or_default());
        cluster::Cluster {
            name: name.clone(),
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
                discovery.into(),
            )),
            load_assignment: Some(endpoint::ClusterLoadAssignment {
                cluster_name: name,
                endpoints: vec![locality],
                ..Default::default()
            }),
            transport_socket: tls.map(|tls| tls.transport_socket(self.host())),
            ..Default::default()
        }
    }
}

/// What TLS needs.
struct Credentials {
    roots: core::DataSource,
    certificate: Option<tls::TlsCertificate>,
}

impl Credentials {
    fn transport_socket(self, host: &str) -> core::TransportSocket {
        let exact = StringMatcher {
            match_pattern: Some(MatchPattern::Exact(host.to_owned())),
            ..Default::default()
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let kind = match is_address {
            true => tls::subject_alt_name_matcher::SanType::IpAddress,
            false => tls::subject_alt_name_matcher::SanType::Dns,
        };
        let name = tls::SubjectAltNameMatcher {
            san_type: kind.into(),
            matcher: Some(exact),
            ..Default::default()
        };
        let validation = tls::CertificateValidationContext {
            trusted_ca: Some(self.roots),
            match_typed_subject_alt_names: vec![name],
            ..Default::default()
        };
        let common = tls::CommonTlsContext {
            alpn_protocols: vec!["h2".to_owned()],
            tls_certificates: self.certificate.into_iter().collect(),
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::ValidationContext(validation),
            ),
            ..Default::default()
        };
        let context = tls::UpstreamTlsContext {
            common_tls_context: Some(common),
            sni: if is_address { String::new() } else { host.to_owned() },
            ..Default::default()
        };
        core::TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(any::pack(&context))),
        }
    }
}

/// `channel_credentials`; `None` in the clear.
fn channel(problems: &mut Problems, proto: ChannelCredentials) -> Option<Credentials> {
    let ChannelCredentials { credential_specifier } = proto;
    match credential_specifier {
        None | Some(CredentialSpecifier::LocalCredentials(GoogleLocalCredentials {})) => None,
        Some(CredentialSpecifier::GoogleDefault(_)) => {
            problems.reject_field(
                "google_default",
                "not supported by this version of Outrigger: use ssl_credentials",
            );
            None
        }
        Some(CredentialSpecifier::SslCredentials(proto)) => {
            problems.field("ssl_credentials", |problems| ssl(problems, proto))
        }
    }
}

fn ssl(problems: &mut Problems, proto: SslCredentials) -> Option<Credentials> {
    let SslCredentials { root_certs, private_key, cert_chain } = proto;
    let Some(roots) = root_certs else {
        problems.reject_field("root_certs", "required: there is no store of trusted roots here");
        return None;
    };
    // Read here as well, so that a file that is not there is named by its field.
    problems.field("root_certs", |problems| data_source::read(problems, roots.clone()))?;
    let certificate = match (private_key, cert_chain) {
        (Some(key), Some(chain)) => {
            problems.field("private_key", |problems| data_source::read(problems, key.clone()))?;
            problems.field("cert_chain", |problems| data_source::read(problems, chain.clone()))?;
            Some(tls::TlsCertificate {
                certificate_chain: Some(chain),
                private_key: Some(key),
                ..Default::default()
            })
        }
        (None, None) => None,
        (Some(_), None) => {
            problems.reject_field("cert_chain", "required with private_key");
            None
        }
        (None, Some(_)) => {
            problems.reject_field("private_key", "required with cert_chain");
            None
        }
    };
    Some(Credentials { roots, certificate })
}

/// One of `call_credentials`, as the metadata that it stands for.
fn call(
    problems: &mut Problems,
    proto: CallCredentials,
    has_tls: bool,
) -> Option<(Box<str>, Box<str>)> {
    let CallCredentials { credential_specifier } = proto;
    match credential_specifier {
        Some(call_credentials::CredentialSpecifier::AccessToken(token)) => {
            if !has_tls {
                problems.reject_field("access_token", "needs channel_credentials.ssl_credentials");
            }
            let value = format!("Bearer {token}");
            header_value(problems, "access_token", value.as_bytes())?;
            Some(("authorization".into(), value.into()))
        }
        Some(other) => {
            let name = match other {
                call_credentials::CredentialSpecifier::AccessToken(_) => "access_token",
                call_credentials::CredentialSpecifier::GoogleComputeEngine(_) => {
                    "google_compute_engine"
                }
                call_credentials::CredentialSpecifier::GoogleRefreshToken(_) => {
                    "google_refresh_token"
                }
                call_credentials::CredentialSpecifier::ServiceAccountJwtAccess(_) => {
                    "service_account_jwt_access"
                }
                call_credentials::CredentialSpecifier::GoogleIam(_) => "google_iam",
                call_credentials::CredentialSpecifier::FromPlugin(_) => "from_plugin",
                call_credentials::CredentialSpecifier::StsService(_) => "sts_service",
            };
            problems.reject_field(
                name,
                "not supported by this version of Outrigger: use access_token or initial_metadata",
            );
            None
        }
        None => {
            problems.reject("one of the credentials is required");
            None
        }
    }
}
