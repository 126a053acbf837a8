//! One proxy with its upstreams, running.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;

use super::observation::{Observation, normal};
use super::{Group, UpstreamKind};
use crate::address;
use crate::als::LogServer;
use crate::bootstrap::Values;
use crate::client::Request;
use crate::lrs::LoadServer;
use crate::pki::{Authority, Leaf};
use crate::proxy::{Kind, Proxy};
use crate::rls::LimitServer;
use crate::tcp::TcpUpstream;
use crate::udp::UdpServer;
use crate::upstream::Upstream;

/// One proxy with its upstreams, running.
///
/// `${DIR}` holds, each as `NAME.crt` and `NAME.key`: `server` (DNS `server.example`, `*.wild.example`), `other` (DNS
/// `other.example`), `spiffe` (URI `spiffe://test/server`), `both` (DNS
/// `server.example` and URI `spiffe://test/server`), `client` (URI `spiffe://test/client`), all of `ca.crt`; and
/// `foreign` (URI `spiffe://test/client`) of `foreign-ca.crt`. `${PEM_NAME}` is the text of `NAME.crt` as a YAML string,
/// `${KEY_NAME}` that of `NAME.key`.
pub struct World {
    /// The proxy.
    pub proxy: Proxy,
    /// What was filled into the bootstrap.
    pub values: Values,
    /// Where the files are.
    pub folder: TempDir,
    /// The authority that the proxy is told to trust.
    pub authority: Authority,
    /// An authority that nobody trusts.
    pub foreign: Authority,
    leaves: HashMap<&'static str, Leaf>,
    addresses: HashMap<String, SocketAddr>,
    upstreams: HashMap<&'static str, Upstream>,
    tcp: HashMap<&'static str, TcpUpstream>,
    logs: HashMap<&'static str, LogServer>,
    loads: HashMap<&'static str, LoadServer>,
    limits: HashMap<&'static str, LimitServer>,
    udp: HashMap<&'static str, UdpServer>,
}

impl World {
    /// Starts the upstreams, then the proxy.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start(group: &Group, kind: Kind) -> Result<World> {
        let folder = tempfile::tempdir()?;
        let (authority, foreign) = (Authority::new("ca")?, Authority::new("foreign")?);
        let leaves = write_certificates(folder.path(), &authority, &foreign)?;
        let mut values = Values::new();
        let mut addresses = HashMap::new();
        values.text("DIR", &folder.path().display().to_string());
        values.text("PEM_ca", &quoted(&authority.pem())?);
        for (name, leaf) in &leaves {
            values.text(&format!("PEM_{name}"), &quoted(&leaf.certificate)?);
            values.text(&format!("KEY_{name}"), &quoted(&leaf.key)?);
        }
        for name in places(&group.bootstrap) {
            let address = address::free()?;
            values.address(&name, address);
            addresses.insert(name, address);
        }
        let mut upstreams = HashMap::new();
        let mut tcp = HashMap::new();
        let mut logs = HashMap::new();
        let mut loads = HashMap::new();
        let mut limits = HashMap::new();
        let mut udp = HashMap::new();
        for (name, upstream) in &group.upstreams {
            let address = match upstream {
                UpstreamKind::Closed => address::free()?,
                UpstreamKind::AccessLog => {
                    let server = LogServer::start().await?;
                    let address = server.address();
                    logs.insert(*name, server);
                    address
                }
                UpstreamKind::LoadReports => {
                    let server = LoadServer::start().await?;
                    let address = server.address();
                    loads.insert(*name, server);
                    address
                }
                UpstreamKind::RateLimits => {
                    let server = LimitServer::start().await?;
                    let address = server.address();
                    limits.insert(*name, server);
                    address
                }
                UpstreamKind::Udp => {
                    let server = UdpServer::start().await?;
                    let address = server.address();
                    udp.insert(*name, server);
                    address
                }
                UpstreamKind::Tcp => {
                    let upstream = TcpUpstream::start(name).await?;
                    let address = upstream.address();
                    tcp.insert(*name, upstream);
                    address
                }
                kind => {
                    let tls = server_tls(*kind, &leaves, &authority)?;
                    let address = match kind {
                        UpstreamKind::Localhost => (Ipv4Addr::LOCALHOST, 0).into(),
                        _ => address::free()?,
                    };
                    let upstream = Upstream::start_with(name, address, tls).await?;
                    let address = upstream.address();
                    upstreams.insert(*name, upstream);
                    address
                }
            };
            values.address(name, address);
            addresses.insert((*name).to_owned(), address);
        }
        let proxy = Proxy::start(kind, &values.fill(&group.bootstrap)).await?;
        Ok(World {
            proxy,
            values,
            folder,
            authority,
            foreign,
            leaves,
            addresses,
            upstreams,
            tcp,
            logs,
            loads,
            limits,
            udp,
        })
    }

    /// The address under this name.
    ///
    /// # Errors
    /// The bootstrap has no such place.
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        self.addresses.get(name).copied().with_context(|| format!("no address {name}"))
    }

    /// The HTTP upstream of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn upstream(&self, name: &str) -> Result<&Upstream> {
        self.upstreams.get(name).with_context(|| format!("no upstream {name}"))
    }

    /// The TCP upstream of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn tcp_upstream(&self, name: &str) -> Result<&TcpUpstream> {
        self.tcp.get(name).with_context(|| format!("no TCP upstream {name}"))
    }

    /// The server of access logs of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn log_server(&self, name: &str) -> Result<&LogServer> {
        self.logs.get(name).with_context(|| format!("no server of access logs {name}"))
    }

    /// The server of load reports of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn load_server(&self, name: &str) -> Result<&LoadServer> {
        self.loads.get(name).with_context(|| format!("no server of load reports {name}"))
    }

    /// The service of rate limits of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn limit_server(&self, name: &str) -> Result<&LimitServer> {
        self.limits.get(name).with_context(|| format!("no service of rate limits {name}"))
    }

    /// The server of datagrams of this name.
    ///
    /// # Errors
    /// The group has none.
    pub fn udp_server(&self, name: &str) -> Result<&UdpServer> {
        self.udp.get(name).with_context(|| format!("no server of datagrams {name}"))
    }

    /// A client configuration that trusts [`World::authority`] and shows the certificate of this name, if any.
    ///
    /// # Errors
    /// There is no such certificate.
    pub fn client_tls(
        &self,
        certificate: Option<&str>,
        alpn: &[&str],
    ) -> Result<Arc<rustls::ClientConfig>> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.authority.roots()?);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let leaf = self.leaves.get(name).with_context(|| format!("no leaf {name}"))?;
                let (chain, key) = leaf.to_rustls()?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Sends a request and records what came back and what the upstreams got. Returns both in short:
    /// status and upstream names in the order they were reached.
    ///
    /// # Errors
    /// The bootstrap has no such listener.
    pub async fn send(
        &self,
        observation: &mut Observation,
        step: &str,
        listener: &str,
        request: &Request,
    ) -> Result<String> {
        let outcome = request.send(self.address(listener)?).await;
        observation.outcome(step, &outcome, &self.values);
        let mut all = Vec::new();
        for upstream in self.upstreams.values() {
            all.extend(upstream.take().into_iter().map(|got| (upstream.name(), got)));
        }
        all.sort_by_key(|(_, got)| got.sequence);
        for (index, (name, got)) in all.iter().enumerate() {
            let prefix = format!("upstream[{index}]");
            observation.recorded(step, &prefix, name, got, &self.values);
        }
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let names = if names.is_empty() { "-".to_owned() } else { names.join(",") };
        let status = outcome.status();
        Ok(if status == 0 { "failed".to_owned() } else { format!("{status} {names}") })
    }

    /// Text without what differs between two runs of one proxy.
    pub fn normal(&self, text: &str) -> String {
        normal(text, &self.values)
    }

    /// Forgets what is left of a case: scripts and recorded requests.
    pub(super) fn settle(&self) {
        for upstream in self.upstreams.values() {
            upstream.take();
            upstream.default_reply(None);
        }
    }
}

/// The places of a bootstrap that are listener addresses: `${LISTEN...}`, without a `.port` or `.host` behind.
fn places(bootstrap: &str) -> Vec<String> {
    let mut names: Vec<String> = bootstrap
        .split("${LISTEN")
        .skip(1)
        .filter_map(|rest| rest.split(['}', '.']).next())
        .map(|rest| format!("LISTEN{rest}"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A JSON string, which is a YAML string too.
fn quoted(text: &str) -> Result<String> {
    Ok(serde_json::to_string(text)?)
}

fn write_certificates(
    folder: &Path,
    authority: &Authority,
    foreign: &Authority,
) -> Result<HashMap<&'static str, Leaf>> {
    authority.write(folder, "ca")?;
    foreign.write(folder, "foreign-ca")?;
    let leaves = HashMap::from([
        ("server", authority.leaf(&["server.example", "*.wild.example"])?),
        ("other", authority.leaf(&["other.example"])?),
        ("spiffe", authority.leaf(&["spiffe://test/server"])?),
        ("both", authority.leaf(&["server.example", "spiffe://test/server"])?),
        ("client", authority.leaf(&["spiffe://test/client"])?),
        ("foreign", foreign.leaf(&["spiffe://test/client"])?),
    ]);
    for (name, leaf) in &leaves {
        leaf.write(folder, name)?;
    }
    Ok(leaves)
}

fn server_tls(
    kind: UpstreamKind,
    leaves: &HashMap<&'static str, Leaf>,
    authority: &Authority,
) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let (name, mutual) = match kind {
        UpstreamKind::Plain
        | UpstreamKind::Localhost
        | UpstreamKind::Tcp
        | UpstreamKind::Closed
        | UpstreamKind::LoadReports
        | UpstreamKind::RateLimits
        | UpstreamKind::Udp
        | UpstreamKind::AccessLog => return Ok(None),
        UpstreamKind::Tls(name) => (name, false),
        UpstreamKind::MutualTls(name) => (name, true),
    };
    let leaf = leaves.get(name).with_context(|| format!("no leaf {name}"))?;
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?;
    let builder = if mutual {
        let roots = authority.roots()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = leaf.to_rustls()?;
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// One provider, named: nothing in the tests depends on a process-wide default.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
