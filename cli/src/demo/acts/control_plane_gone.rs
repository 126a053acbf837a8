//! Act 8: the control plane is killed for ten seconds and one sidecar restarted meanwhile; nobody notices.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

use super::Stage;

const RESTARTED: &str = "api-2";
/// How long the control plane is away.
const AWAY: Duration = Duration::from_secs(10);
/// When in that time the sidecar is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// From the control plane's return until all is as before.
const CONVERGED_WITHIN: Duration = Duration::from_secs(10);
/// What the caller of `api` knows of its endpoints.
const OBSERVER: &str = "web-1";
const MEMBERSHIP: &str = "cluster.outbound|9000|v1|api.membership_total";

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let load = stage.load();
    stage.watch(&load, Duration::from_secs(1)).await;
    let before = stage.mesh.status().await?.revision;
    let known = membership(stage).await?;

    stage.progress.show("control plane gone: kill -9 of the control plane");
    stage.mesh.kill_control_plane().await?;
    let gone = Instant::now();
    tokio::time::sleep(RESTART_AFTER).await;
    stage.progress.show(&format!("control plane gone: restarting the sidecar of {RESTARTED}"));
    let restart = Instant::now();
    stage.mesh.restart_sidecar(RESTARTED).await?;
    serves_again(&load).await?;
    let restart = restart.elapsed();
    let words = format!("{RESTARTED} restarted without it in {:.1} s", restart.as_secs_f64());
    stage.figures.note("restartMs", restart.as_millis() as u64, words);
    stage.progress.show("control plane gone: waiting out the ten seconds");
    tokio::time::sleep_until(gone + AWAY).await;
    let membership_away = membership(stage).await?;

    stage.progress.show("control plane gone: starting it again");
    stage.mesh.start_control_plane()?;
    let returned = Instant::now();
    stage.mesh.control_plane_ready().await?;
    let (least, converged) = converge(stage).await?;
    // Once more for a while: a flap may come late, with the end of a grace period.
    let mut least = least.min(membership_away);
    let calm = Instant::now();
    while calm.elapsed() < Duration::from_secs(5) {
        least = least.min(membership(stage).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stats = load.stop().await;
    let words = format!("converged {:.1} s after its return", (converged - returned).as_secs_f64());
    stage.figures.note("convergedMs", (converged - returned).as_millis() as u64, words);
    let words = format!("never fewer than {least} of {known} endpoints known");
    stage.figures.note("leastEndpointsKnown", least, words);
    stage.figures.expect_no_failures("load", &stats)?;
    ensure!(least > 0, "the endpoints of api flapped to empty at {OBSERVER}");
    let after = stage.mesh.status().await?.revision;
    ensure!(after == before, "revision {before} became {after} by a restart");
    Ok(())
}

/// Waits until the restarted instance serves requests, all without a control plane.
async fn serves_again(load: &crate::load::Load) -> anyhow::Result<()> {
    let before = load.snapshot();
    crate::demo::wait::until("the restarted sidecar serves", AWAY - RESTART_AFTER, async || {
        let since = load.snapshot().since(&before);
        Ok(since.by_instance.contains_key(RESTARTED).then_some(()))
    })
    .await?;
    Ok(())
}

/// Waits until everything is in sync again, and watches what the observer knows meanwhile.
async fn converge(stage: &Stage<'_>) -> anyhow::Result<(u64, Instant)> {
    let mut least = u64::MAX;
    let start = Instant::now();
    loop {
        least = least.min(membership(stage).await?);
        match stage.mesh.laggard().await? {
            None => return Ok((least, Instant::now())),
            Some(laggard) if start.elapsed() > CONVERGED_WITHIN => {
                bail!("not converged within {CONVERGED_WITHIN:?}: {laggard}");
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}

async fn membership(stage: &Stage<'_>) -> anyhow::Result<u64> {
    let known = stage.mesh.stat(OBSERVER, MEMBERSHIP).await?;
    known.with_context(|| format!("{OBSERVER} has no statistic {MEMBERSHIP}"))
}
