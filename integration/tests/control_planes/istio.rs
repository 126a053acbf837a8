//! Istio: a sidecar by REDIRECT interception. What clients send goes to virtualOutbound, what they are sent comes in by
//! virtualInbound, where chains for the mesh's TLS stand beside those for plaintext.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;
use outrigger_integration::foreign::Foreign;
use outrigger_integration::namespace;
use outrigger_integration::pki::Authority;
use outrigger_integration::proxy::Kind;
use outrigger_integration::tcp::TcpUpstream;
use outrigger_integration::upstream::Upstream;
use serde_json::json;

use crate::{certificate, greeting, logged, told};

/// Services have addresses in 127.77.0.0/16, the pod has 127.88.0.1.
const RULES: &str = "
table inet outrigger_test {
  chain out {
    type nat hook output priority -100;
    ip saddr { 127.0.0.6, 127.0.0.7 } return
    ip daddr 127.77.0.0/16 meta l4proto tcp redirect to :15001
    ip daddr 127.88.0.0/16 meta l4proto tcp redirect to :15006
  }
}
";

#[test]
fn what_istio_sends_is_accepted_and_traffic_flows_as_intended() {
    namespace::inside("istio::what_istio_sends_is_accepted_and_traffic_flows_as_intended", async {
        let told = told();
        if told.is_empty() {
            return Ok(());
        }
        namespace::set_up(&[], RULES)?;
        let places = Places::start().await?;
        for kind in told {
            tell(kind, &places).await.with_context(|| kind.to_string())?;
        }
        Ok(())
    });
}

/// Where traffic ends.
struct Places {
    app: Upstream,
    other: Upstream,
    outside: Upstream,
    redis: TcpUpstream,
    far: TcpUpstream,
}

impl Places {
    async fn start() -> Result<Places> {
        Ok(Places {
            app: Upstream::start_with("reviews", at("127.88.0.1:8080"), None).await?,
            other: Upstream::start_with("unlisted", at("127.88.0.1:9000"), None).await?,
            outside: Upstream::start_with("outside", at("127.77.0.99:80"), None).await?,
            redis: TcpUpstream::start_at("redis", at("127.88.0.1:6379")).await?,
            far: TcpUpstream::start_at("far", at("127.77.0.99:7000")).await?,
        })
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| unreachable!("written below"))
}

async fn tell(kind: Kind, places: &Places) -> Result<()> {
    let Places { app, other, outside, redis: _redis, far } = places;
    // Those of the proxy before.
    app.take();
    let authority = Authority::new("istio")?;
    let mut values = Values::new();
    values.text("CA", &json!(authority.pem()).to_string());
    let own = "spiffe://cluster.local/ns/default/sa/reviews";
    certificate(&mut values, &authority, "REVIEWS", own)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    values.text("LOG", &log.display().to_string());
    let foreign = Foreign::start(kind, "istio", &["resources.yaml"], &values).await?;
    foreign.accepted().await?;

    // From a client's sidecar by mTLS to that of the service, where policies of authorization stand.
    let service = at("127.77.0.10:80");
    for (request, status) in [
        (Request::get("/reviews/1"), 200),
        (Request::get("/reviews/1").http2(), 200),
        (Request::post("/reviews/1", ""), 403),
        (Request::get("/secrets"), 403),
        (Request::get("/health"), 200),
        (Request::get("/reviews/fault"), 418),
    ] {
        let outcome = request.clone().host("reviews").send(service).await;
        ensure!(outcome.status() == status, "{request:?}: {outcome:?}");
    }
    let seen = app.take();
    ensure!(seen.len() == 3, "{} requests came", seen.len());
    let caller = seen[0].headers.iter().find(|(name, _)| name == "x-forwarded-client-cert");
    let caller = caller.map(|(_, value)| value.as_str()).unwrap_or_default();
    ensure!(caller.contains(&format!("By={own}")) && caller.contains(&format!("URI={own}")));
    ensure!(greeting(at("127.77.0.20:6379")).await? == "redis");
    let line = logged(&log, "outbound|80||reviews.default.svc.cluster.local").await?;
    ensure!(line.contains("\"GET /reviews/1 HTTP/1.1\" 200 - via_upstream"), "{line}");

    // Plaintext from outside of the mesh is let in, and policies hold for it as well.
    let pod = at("127.88.0.1:8080");
    for (path, status) in [("/health", 200), ("/reviews/1", 403)] {
        let outcome = Request::get(path).send(pod).await;
        ensure!(outcome.status() == status, "{path}: {outcome:?}");
    }
    ensure!(greeting(at("127.88.0.1:6379")).await?.is_empty(), "a policy lets anybody in");

    // What nobody has named passes through, in both directions, by HTTP and by TCP.
    let outcome = Request::get("/").host("outside.example").send(outside.address()).await;
    ensure!(outcome.body() == "outside", "{outcome:?}");
    ensure!(greeting(far.address()).await? == "far");
    let outcome = Request::get("/").send(other.address()).await;
    ensure!(outcome.body() == "unlisted", "{outcome:?}");
    ensure!(outcome.header("server") == Some("istio-envoy"), "{outcome:?}");

    // Tags are those of the bootstrap, and no others.
    let metrics = foreign.proxy.admin("/stats/prometheus").await?;
    let metric = "envoy_cluster_upstream_cx_total{cluster_name=\"xds-grpc\"}";
    ensure!(metrics.contains(metric) && !metrics.contains("envoy_cluster_name"), "{metrics}");

    // Black holes.
    for address in ["127.0.0.1:15001", "127.0.0.1:15006"] {
        ensure!(greeting(at(address)).await?.is_empty(), "{address} speaks");
    }
    Ok(())
}
