//! How a discovery server is named and how much it is asked.

use anyhow::{Context, Result, ensure};
use outrigger_integration::address;
use outrigger_integration::ads::{AdsServer, Variant};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::{Kind, Proxy};
use outrigger_integration::scene::{Scene, bootstrap, cluster, endpoints, listener, routes, until};
use outrigger_integration::upstream::Upstream;
use serde_json::json;

use crate::stories;

stories! {
    a_server_may_be_named_by_its_address
    a_server_gets_no_more_requests_than_it_takes
    a_source_of_version_2_is_rejected
}

const BY_CLUSTER: &str = "grpc_services: [{envoy_grpc: {cluster_name: xds}}]";

/// A proxy whose aggregated stream is described by `service` instead, serving from one upstream.
async fn start(
    kind: Kind,
    variant: Variant,
    service: impl Fn(&AdsServer) -> String,
) -> Result<(AdsServer, Proxy, Upstream)> {
    let peers = peers().context("peers")?;
    let mut server = AdsServer::start(peers)?;
    let upstream = Upstream::start("a").await?;
    let address = address::free()?;
    server.set("cds", "1", &[cluster("one")])?;
    server.set("eds", "1", &[endpoints("one", &[upstream.address()])])?;
    server.set("lds", "1", &[listener("main", address)])?;
    let all = json!([{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]);
    server.set("rds", "1", &[routes(&all)])?;
    let text = bootstrap(&server, variant);
    ensure!(text.contains(BY_CLUSTER));
    let proxy = Proxy::start(kind, &text.replace(BY_CLUSTER, &service(&server))).await?;
    until(address, "/", |outcome| outcome.body() == "a").await?;
    Ok((server, proxy, upstream))
}

async fn a_server_may_be_named_by_its_address(kind: Kind, variant: Variant) -> Result<()> {
    start(kind, variant, |server| {
        let target = server.address();
        format!(
            "grpc_services: [{{google_grpc: {{target_uri: 'ipv4:{target}', stat_prefix: xds}}}}]"
        )
    })
    .await?;
    start(kind, variant, |server| {
        let path = server.socket();
        format!(
            "grpc_services: [{{google_grpc: {{target_uri: 'unix:{}', stat_prefix: xds}}}}]",
            path.display()
        )
    })
    .await?;
    Ok(())
}

async fn a_server_gets_no_more_requests_than_it_takes(kind: Kind, variant: Variant) -> Result<()> {
    let limited = format!("rate_limit_settings: {{max_tokens: 1, fill_rate: 5}}\n    {BY_CLUSTER}");
    let (_server, proxy, _upstream) = start(kind, variant, |_| limited.clone()).await?;
    let stats = proxy.admin("/stats?filter=control_plane").await?;
    let enforced = stats
        .lines()
        .find_map(|line| line.strip_prefix("control_plane.rate_limit_enforced: "))
        .with_context(|| stats.clone())?;
    ensure!(enforced.parse::<u64>()? > 0, "{stats}");
    Ok(())
}

async fn a_source_of_version_2_is_rejected(kind: Kind, variant: Variant) -> Result<()> {
    let mut scene = Scene::start(kind, variant).await?;
    scene.until_body("/", "a").await?;
    let with = |version: &str| {
        let mut other = cluster("other");
        other["eds_cluster_config"] = json!({"eds_config": {
            "resource_api_version": "V2",
            "initial_fetch_timeout": "0.2s",
            "api_config_source": {
                "api_type": variant.api_type(),
                "transport_api_version": version,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        }});
        [cluster("one"), other]
    };
    let mark = scene.server.mark();
    scene.server.set("cds", "2", &with("V2"))?;
    scene.server.rejected(mark, "cds").await?;
    let mark = scene.server.mark();
    scene.server.set("cds", "3", &with("AUTO"))?;
    scene.server.acknowledged(mark, "cds").await?;
    scene.until_body("/", "a").await
}
