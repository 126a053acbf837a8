//! Act 9: certificates live for ten seconds and are renewed for a minute, under load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::Stage;
use crate::demo::resources::mesh;
use crate::demo::stranger;

/// Life of a leaf certificate in this act.
const LEAF_TTL: Duration = Duration::from_secs(10);
/// And in the rest of the demo.
const USUAL_TTL: Duration = Duration::from_secs(40);
/// How long is watched.
const TIME: Duration = Duration::from_secs(60);
/// Renewed at half its life with jitter, a leaf changes about every five seconds.
const AT_LEAST: usize = 6;
/// How often the certificates are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.mesh.apply(&[mesh(LEAF_TTL)]).await?;
    let load = stage.load();
    short_lived(stage).await?;
    // From here on every leaf lives for ten seconds.
    let start = Instant::now();
    let before = load.snapshot();
    let mut serials: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    while start.elapsed() < TIME {
        for instance in stage.mesh.meshed() {
            let address = instance.inbound_address(stage.mesh.network());
            let leaf = stranger::look(address)
                .await
                .with_context(|| format!("the certificate of {}", instance.name))?;
            serials.entry(instance.name).or_default().insert(leaf.serial);
        }
        let changes: usize = serials.values().map(|serials| serials.len() - 1).sum();
        let seconds = start.elapsed().as_secs();
        stage
            .progress
            .show(&format!("rotation: {seconds} s of {} s, {changes} renewals", TIME.as_secs()));
        tokio::time::sleep(INTERVAL).await;
    }
    let stats = load.stop().await.since(&before);
    let fewest = serials.values().map(BTreeSet::len).min().unwrap_or(0);
    let all: usize = serials.values().map(BTreeSet::len).sum();
    stage.figures.note(
        "serialsPerSidecar",
        serde_json::json!(
            serials.iter().map(|(name, it)| (*name, it.len())).collect::<BTreeMap<_, _>>()
        ),
        format!("{all} certificates at {} sidecars in {} s", serials.len(), TIME.as_secs()),
    );
    stage.figures.note("fewestSerials", fewest, format!("at least {fewest} each"));
    stage.figures.expect_no_failures("load", &stats)?;
    stage.mesh.apply(&[mesh(USUAL_TTL)]).await?;
    ensure!(fewest >= AT_LEAST, "a sidecar had only {fewest} different certificates");
    Ok(())
}

/// Waits until every sidecar has a leaf of the new, short life.
async fn short_lived(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.progress.show("rotation: waiting for the first short-lived certificates");
    let mesh = &*stage.mesh;
    crate::demo::wait::until("every leaf is short-lived", USUAL_TTL, async || {
        for instance in mesh.meshed() {
            let leaf = stranger::look(instance.inbound_address(mesh.network())).await?;
            // Its beginning is dated back a little, for clocks that are late.
            if leaf.life > LEAF_TTL * 2 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    Ok(())
}
