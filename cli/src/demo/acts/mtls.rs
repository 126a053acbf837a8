//! Act 6: three kinds of callers that may not call are refused, each by the name of its fault; then one is let in.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::Response;

use super::Stage;
use crate::demo::mesh::get;
use crate::demo::resources::{allow, deletion};
use crate::demo::stranger;
use crate::demo::topology::BATCH;
use crate::demo::wait::until;

const TARGET: &str = "api-1";
const POLICY: &str = "batch-may-call-api";

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let load = stage.load();
    let target = stage.mesh.instance(TARGET)?.inbound_address(stage.mesh.network());

    stage.progress.show("mTLS: a caller without TLS");
    let response = get(target, "/orders", "api:9000").await?;
    let plaintext = refusal(&response)?;
    stage.figures.note("plaintext", plaintext.as_str(), format!("plaintext: {plaintext}"));
    ensure!(plaintext == "403 peer_not_tls", "a plaintext caller got {plaintext}");

    stage.progress.show("mTLS: a caller with a certificate of another authority");
    let foreign = stranger::call(target).await?;
    stage.figures.note("foreign", foreign.as_str(), format!("foreign CA: {foreign}"));
    let mesh = &*stage.mesh;
    let (line, _) = until("the refusal is logged", Duration::from_secs(3), async || {
        let log = mesh.sidecar_log(TARGET)?;
        Ok(log.lines().rev().find(|line| names_the_stranger(line)).map(str::to_owned))
    })
    .await?;
    stage.figures.note("foreignLog", line, "logged with its cause");

    stage.progress.show("mTLS: a member that no policy allows");
    stage.mesh.join(BATCH).await?;
    let response = stage.mesh.call_from(BATCH.name, "/orders").await?;
    let denied = refusal(&response)?;
    stage.figures.note("member", denied.as_str(), format!("member: {denied}"));
    ensure!(denied == "403 rbac_denied", "a member that no policy allows got {denied}");

    stage.progress.show("mTLS: a policy lets it in");
    stage.mesh.apply(&[allow(POLICY, BATCH.service, "api")]).await?;
    let response = stage.mesh.call_from(BATCH.name, "/orders").await?;
    let status = response.status().as_u16();
    stage.figures.note("allowed", status, format!("with a policy: {status}"));
    ensure!(status == 200, "the next request after the policy got {status}");

    stage.mesh.apply(&[deletion("Policy", POLICY)]).await?;
    stage.mesh.remove(BATCH.name).await?;
    let stats = load.stop().await;
    stage.figures.expect_no_failures("load", &stats)
}

/// `403 peer_not_tls`.
fn refusal(response: &Response<bytes::Bytes>) -> anyhow::Result<String> {
    if response.status().is_success() {
        bail!("it was let in: status {}", response.status());
    }
    let reason = response.headers().get("x-outrigger-reason");
    let reason =
        reason.with_context(|| format!("status {} without a reason", response.status()))?;
    Ok(format!("{} {}", response.status().as_u16(), reason.to_str()?))
}

/// A line about a failed handshake that says what was wrong with the certificate.
fn names_the_stranger(line: &str) -> bool {
    line.contains("refused a TLS connection") && line.contains("is not trusted here")
}
