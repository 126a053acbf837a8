//! The live side over real sockets: a control plane on ports of its own, and clients that say just what a test says.
//!
//! Where a test has to show that something does *not* arrive, it makes something else arrive behind it.

mod delta;
mod effect;
mod identity;
mod mesh;
mod refusals;
mod sotw;
mod status;

use super::{LiveSide, Options, ResourceType, start};
use crate::identity::CertificateAuthority;
use crate::model::{Config, plan, read};
use crate::store::{EmbeddedStore, Store};
use hyper_util::rt::TokioIo;
use outrigger_proto::envoy::config::core::v3::Node;
use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_proto::google::rpc::Status as ErrorDetail;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// Nothing in these tests takes so long, unless it hangs.
const HANGS: Duration = Duration::from_secs(20);

/// A running live side.
struct Plane {
    live: LiveSide,
    xds: SocketAddr,
    insecure: SocketAddr,
    config: watch::Sender<Config>,
    store: Arc<dyn Store>,
    stopping: CancellationToken,
    _directory: Arc<tempfile::TempDir>,
}

impl Plane {
    async fn new(documents: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        Self::on(store, directory, applied(&Config::default(), documents)).await
    }

    async fn on(store: Arc<dyn Store>, directory: Arc<tempfile::TempDir>, config: Config) -> Self {
        let (xds, insecure) = (listener().await, listener().await);
        let addresses = (xds.local_addr().unwrap(), insecure.local_addr().unwrap());
        let config = watch::Sender::new(config);
        let stopping = CancellationToken::new();
        let live = start(Options {
            store: store.clone(),
            config: config.subscribe(),
            xds,
            xds_advertised: addresses.0.to_string(),
            xds_insecure: Some(insecure),
            stopping: stopping.clone(),
        });
        Self {
            live: live.unwrap(),
            xds: addresses.0,
            insecure: addresses.1,
            config,
            store,
            stopping,
            _directory: directory,
        }
    }

    /// Applies documents as the next revision.
    fn apply(&self, documents: &str) -> u64 {
        let config = applied(&self.config.borrow(), documents);
        let revision = config.revision();
        self.config.send_replace(config);
        revision
    }

    async fn foreign(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.insecure)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A channel to the mTLS port with an identity minted here.
    async fn member(&self, service: &str, instance: &str) -> Channel {
        let identity = mint(&self.live.authority, service, instance);
        connect(self.xds, trusting(&self.live.authority.roots(), Some(identity))).await.unwrap()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// `config` after these documents.
pub(crate) fn applied(config: &Config, documents: &str) -> Config {
    let (documents, problems) = read::documents(documents);
    assert!(problems.is_empty(), "{problems:?}");
    plan::plan(config, &documents).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

/// Services `a` to `d` on ports 8001 to 8004, an endpoint each.
fn four_services() -> String {
    ["a", "b", "c", "d"].iter().zip(1..).map(|(name, index)| service(name, index, "")).collect()
}

/// A service on port 800N, with more in its spec, and one endpoint.
fn service(name: &str, index: u16, more: &str) -> String {
    format!(
        "---
kind: Service
name: {name}
spec: {{ports: [{{port: 800{index}, protocol: http}}]{more}}}
---
kind: Endpoint
name: {name}-1
spec: {{service: {name}, address: 127.0.0.{index}, port: 9000}}
"
    )
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn mint(authority: &CertificateAuthority, service: &str, instance: &str) -> Pair {
    let life = Duration::from_secs(3600);
    let (leaf, key) = authority.mint("outrigger.local", service, instance, life).unwrap();
    (leaf.chain, key)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn trusting(roots: &[CertificateDer<'static>], identity: Option<Pair>) -> ClientConfig {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let verifier = Arc::new(Chain(
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .unwrap(),
    ));
    verified_by(verifier, identity)
}

fn verified_by(verifier: Arc<dyn ServerCertVerifier>, identity: Option<Pair>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Verifies the chain, and the URI in place of a host name.
#[derive(Debug)]
struct Chain(Arc<rustls::client::WebPkiServerVerifier>);

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The chain holds; names are looked at afterwards.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            ))
            | Ok(_) => {}
            Err(error) => return Err(error),
        }
        let leaf = webpki::EndEntityCert::try_from(end_entity).unwrap();
        let uris: Vec<&str> = leaf.valid_uri_names().collect();
        assert_eq!(uris, ["spiffe://outrigger.local/control-plane"]);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = Connector { address, tls: TlsConnector::from(Arc::new(config)) };
    Endpoint::from_static("http://control-plane").connect_with_connector(connector).await
}

#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            let name = ServerName::try_from("control-plane").unwrap();
            Ok(TokioIo::new(tls.connect(name, socket).await?))
        })
    }
}

/// The service and its two methods for one type.
fn own_service(kind: ResourceType) -> (&'static str, &'static str) {
    match kind {
        ResourceType::Cluster => ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
        ResourceType::Endpoint => {
            ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints")
        }
        ResourceType::Listener => {
            ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners")
        }
        ResourceType::Route => ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
        ResourceType::Secret => ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets"),
    }
}

/// Path of a method; `scope` is the type of a service of its own.
fn path(variant: &str, scope: Option<ResourceType>) -> PathAndQuery {
    let (service, method) = match scope {
        None => ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
        Some(kind) => own_service(kind),
    };
    PathAndQuery::try_from(format!("/{service}/{variant}{method}")).unwrap()
}

/// A bidirectional stream.
struct Stream<Q, R> {
    to: mpsc::Sender<Q>,
    from: Streaming<R>,
}

impl<Q, R> Stream<Q, R>
where
    Q: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
{
    /// Opens with these messages, which go out at once: a server may answer the call only after it saw them.
    async fn open(channel: Channel, path: PathAndQuery, first: Vec<Q>) -> Result<Self, Status> {
        let (to, requests) = mpsc::channel(16);
        for request in first {
            to.send(request).await.unwrap();
        }
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let requests = tonic::Request::new(ReceiverStream::new(requests));
        let call = grpc.streaming(requests, path, ProstCodec::default());
        let answer = tokio::time::timeout(HANGS, call).await.expect("the call hangs")?;
        Ok(Self { to, from: answer.into_inner() })
    }

    async fn send(&self, request: Q) {
        self.to.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<R, Status> {
        let answer = tokio::time::timeout(HANGS, self.from.message()).await;
        answer.expect("no answer comes")?.ok_or_else(|| Status::cancelled("the stream ended"))
    }
}

fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.to_owned(), user_agent_name: "test".to_owned(), ..Default::default() })
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A state-of-the-world client.
struct Sotw {
    stream: Stream<DiscoveryRequest, DiscoveryResponse>,
    versions: HashMap<ResourceType, String>,
    nonces: HashMap<ResourceType, String>,
}

impl Sotw {
    /// Opens with a subscription.
    async fn open(
        channel: Channel,
        scope: Option<ResourceType>,
        kind: ResourceType,
        names: &[&str],
    ) -> Self {
        let first = DiscoveryRequest {
            node: node("test-id"),
            type_url: kind.url().to_owned(),
            resource_names: owned(names),
            ..Default::default()
        };
        let stream = Stream::open(channel, path("Stream", scope), vec![first]).await.unwrap();
        Self { stream, versions: HashMap::new(), nonces: HashMap::new() }
    }

    async fn request(&self, kind: ResourceType, names: &[&str], error: Option<&str>) {
        let detail = |message: &str| ErrorDetail {
            code: 13,
            message: message.to_owned(),
            ..Default::default()
        };
        let request = DiscoveryRequest {
            version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
            type_url: kind.url().to_owned(),
            resource_names: owned(names),
            response_nonce: self.nonces.get(&kind).cloned().unwrap_or_default(),
            error_detail: error.map(detail),
            ..Default::default()
        };
        self.stream.send(request).await;
    }

    /// The next response: its type and the names in it, in order.
    async fn receive(&mut self) -> (ResourceType, Vec<String>, DiscoveryResponse) {
        let response = self.stream.receive().await.unwrap();
        let kind = ResourceType::from_url(&response.type_url).unwrap();
        self.nonces.insert(kind, response.nonce.clone());
        let mut names: Vec<String> =
            response.resources.iter().map(|it| resource_name(kind, &it.value)).collect();
        names.sort();
        (kind, names, response)
    }

    /// Receives what is expected and acknowledges it.
    #[track_caller]
    fn expect<'a>(
        &'a mut self,
        kind: ResourceType,
        names: &'a [&str],
        subscribed: &'a [&str],
    ) -> impl Future<Output = DiscoveryResponse> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (got, held, response) = self.receive().await;
            assert_eq!((got, held), (kind, owned(names)), "at {caller}");
            self.versions.insert(kind, response.version_info.clone());
            self.request(kind, subscribed, None).await;
            response
        }
    }
}

/// The name within an encoded resource.
fn resource_name(kind: ResourceType, bytes: &[u8]) -> String {
    use outrigger_proto::envoy::config::cluster::v3::Cluster;
    use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use outrigger_proto::envoy::config::listener::v3::Listener;
    use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
    use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
    use prost::Message;
    match kind {
        ResourceType::Cluster => Cluster::decode(bytes).unwrap().name,
        ResourceType::Endpoint => ClusterLoadAssignment::decode(bytes).unwrap().cluster_name,
        ResourceType::Listener => Listener::decode(bytes).unwrap().name,
        ResourceType::Route => RouteConfiguration::decode(bytes).unwrap().name,
        ResourceType::Secret => Secret::decode(bytes).unwrap().name,
    }
}

/// A delta client.
struct Delta {
    stream: Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
}

impl Delta {
    /// Opens with a subscription.
    async fn open(
        channel: Channel,
        scope: Option<ResourceType>,
        kind: ResourceType,
        names: &[&str],
    ) -> Self {
        Self::reopen(channel, scope, kind, names, HashMap::new()).await
    }

    /// Opens with a subscription and what is there from an earlier stream.
    async fn reopen(
        channel: Channel,
        scope: Option<ResourceType>,
        kind: ResourceType,
        names: &[&str],
        versions: HashMap<String, String>,
    ) -> Self {
        let first = DeltaDiscoveryRequest {
            node: node("test-id"),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: owned(names),
            initial_resource_versions: versions,
            ..Default::default()
        };
        let stream = Stream::open(channel, path("Delta", scope), vec![first]).await.unwrap();
        Self { stream }
    }

    async fn request(&self, kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) {
        let request = DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            ..Default::default()
        };
        self.stream.send(request).await;
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let detail = |message: &str| ErrorDetail {
            code: 13,
            message: message.to_owned(),
            ..Default::default()
        };
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(detail),
            ..Default::default()
        };
        self.stream.send(request).await;
    }

    async fn receive(&mut self) -> DeltaDiscoveryResponse {
        self.stream.receive().await.unwrap()
    }

    /// Receives what is expected and acknowledges it.
    #[track_caller]
    fn expect<'a>(
        &'a mut self,
        kind: ResourceType,
        names: &'a [&str],
        removed: &'a [&str],
    ) -> impl Future<Output = DeltaDiscoveryResponse> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let response = self.receive().await;
            assert_eq!(response.type_url, kind.url(), "at {caller}");
            let mut held: Vec<String> =
                response.resources.iter().map(|it| it.name.clone()).collect();
            held.sort();
            let got = (held, response.removed_resources.clone());
            assert_eq!(got, (owned(names), owned(removed)), "at {caller}");
            assert!(!response.system_version_info.is_empty());
            self.answer(&response, None).await;
            response
        }
    }
}
