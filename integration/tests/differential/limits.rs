//! Circuit breakers and outlier detection.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::Request;
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, cluster, http_listener, routes};

const ROUTES: &str = r#"
- {match: {prefix: /requests}, route: {cluster: requests}}
- {match: {prefix: /pending}, route: {cluster: pending}}
- match: {prefix: /retries}
  route: {cluster: retries, retry_policy: {retry_on: 5xx}}
- {match: {prefix: /outlier}, route: {cluster: outlier}}
- {match: {prefix: /gateway}, route: {cluster: gateway}}
- {match: {prefix: /reset}, route: {cluster: reset}}
- {match: {prefix: /grpc}, route: {cluster: requests}}
"#;

pub(crate) fn group() -> Group {
    let threshold = |limits: &str| format!("circuit_breakers: {{thresholds: [{{{limits}}}]}}");
    let outlier = |limits: &str| {
        format!(
            "lb_policy: ROUND_ROBIN
common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
outlier_detection: {{interval: 60s, base_ejection_time: 60s, max_ejection_percent: 100, {limits}}}"
        )
    };
    Group {
        name: "limits",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(ROUTES))],
            &[
                cluster("requests", &["a"], &threshold("max_requests: 1")),
                cluster(
                    "pending",
                    &["a"],
                    &threshold("max_connections: 1, max_pending_requests: 1"),
                ),
                cluster("retries", &["a"], &threshold("max_retries: 0")),
                cluster("outlier", &["a", "b"], &outlier("consecutive_5xx: 3")),
                cluster(
                    "gateway",
                    &["a", "b"],
                    &outlier(
                        "consecutive_5xx: 100, consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100",
                    ),
                ),
                cluster("reset", &["a", "b"], &outlier("consecutive_5xx: 3")),
            ],
        ),
        upstreams: vec![("a", UpstreamKind::Plain), ("b", UpstreamKind::Plain)],
        unsupported: None,
        cases: vec![
            Case::custom("max_requests_overflow", |world| {
                Box::pin(overflow(world, Request::get("/requests"), 1))
            }),
            Case::custom("max_requests_overflow_of_grpc", |world| {
                let request = Request::post("/grpc", "").header("content-type", "application/grpc");
                Box::pin(overflow(world, request.http2(), 1))
            }),
            Case::custom("max_pending_requests_overflow", |world| {
                Box::pin(overflow(world, Request::get("/pending"), 2))
            }),
            Case::new("max_retries_of_zero_forbids_retries")
                .script("a", [Reply::status(500).body("failed")])
                .get("/retries", "500 a"),
            Case::custom("consecutive_5xx_ejects", |world| {
                Box::pin(ejected(world, "/outlier", Reply::status(500)))
            }),
            Case::custom("consecutive_gateway_failure_ejects", |world| {
                Box::pin(ejected(world, "/gateway", Reply::status(503)))
            }),
            Case::custom("resets_eject_like_5xx", |world| {
                Box::pin(ejected(world, "/reset", Reply::reset()))
            }),
        ],
    }
}

/// Fills `capacity` places with requests that take long, and sees what the next one gets.
async fn overflow(world: &World, request: Request, capacity: usize) -> Result<Observation> {
    let upstream = world.upstream("a")?;
    let address = world.address("LISTEN")?;
    upstream.default_reply(Some(Reply::status(200).body("slow").after(Duration::from_millis(700))));
    let mut filling = Vec::new();
    for _ in 0..capacity {
        let request = request.clone();
        filling.push(tokio::spawn(async move { request.send(address).await }));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut observation = Observation::default();
    let outcome = request.send(address).await;
    observation.outcome("overflow", &outcome, &world.values);
    ensure!(outcome.header("x-envoy-overloaded") == Some("true"), "{outcome:?}");
    for (index, filled) in filling.into_iter().enumerate() {
        let outcome = filled.await?;
        observation.outcome(&format!("filling {index}"), &outcome, &world.values);
        ensure!(outcome.status() == 200, "{outcome:?}");
    }
    // The places are free again.
    upstream.default_reply(None);
    let outcome = request.send(address).await;
    observation.outcome("after", &outcome, &world.values);
    ensure!(outcome.status() == 200, "{outcome:?}");
    Ok(observation)
}

/// One of two endpoints fails; after its third failure in a row it gets nothing more.
async fn ejected(world: &World, path: &str, failure: Reply) -> Result<Observation> {
    let (bad, good) = (world.upstream("a")?, world.upstream("b")?);
    bad.default_reply(Some(failure));
    let mut failed = 0;
    for _ in 0..20 {
        let outcome = Request::get(path).send(world.address("LISTEN")?).await;
        failed += usize::from(outcome.status() != 200);
    }
    ensure!(failed == 3, "{failed} of 20 failed");
    ensure!(bad.take().len() == 3 && good.take().len() == 17);
    let clusters = world.proxy.admin("/clusters").await?;
    let name = path.trim_start_matches('/');
    let line = |upstream: &str| -> Result<String> {
        let prefix = format!("{name}::{}::health_flags::", world.address(upstream)?);
        let line = clusters.lines().find(|line| line.starts_with(&prefix));
        Ok(line.with_context(|| format!("{prefix} in\n{clusters}"))?.replace(&prefix, ""))
    };
    let mut observation = Observation::default();
    observation.fact("admin", "health_flags of the ejected", line("a")?);
    observation.fact("admin", "health_flags of the other", line("b")?);
    Ok(observation)
}
