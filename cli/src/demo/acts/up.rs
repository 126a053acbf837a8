//! Act 0: everything is up, in sync and small.

use std::time::Duration;

use anyhow::bail;

use super::Stage;

/// From nothing to every sidecar in sync and a request answered.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(5);
/// Of all processes together, in MB.
const MEMORY_LIMIT: f64 = 200.0;

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let took = stage.mesh.started_in();
    let sidecars = stage.mesh.sidecars().len();
    let words = format!("{sidecars} sidecars in sync after {:.1} s", took.as_secs_f64());
    stage.figures.note("inSyncSeconds", took.as_secs_f64(), words);
    stage.figures.note("sidecars", sidecars, "first request answered");

    // As it is in use: with connections open and pages touched.
    let stats = stage.mesh.plan(super::RATE).requests(400).run().await;
    stage.figures.expect_no_failures("load", &stats)?;
    let (memory, processes) = stage.mesh.memory()?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (proportional, resident) = (megabytes(memory.proportional), megabytes(memory.resident));
    stage.figures.note("processes", processes, format!("{processes} processes"));
    stage.figures.note(
        "memoryMb",
        proportional,
        format!("{proportional:.0} MB together (PSS; sum of RSS {resident:.0} MB)"),
    );
    stage.figures.note(
        "residentSumMb",
        resident,
        format!("p50 {:.1} ms", stats.percentile_ms(50.0)),
    );
    if took > IN_SYNC_WITHIN {
        bail!("in sync only after {took:.1?}, not within {IN_SYNC_WITHIN:?}");
    }
    if proportional > MEMORY_LIMIT {
        bail!("{proportional:.0} MB of memory, more than {MEMORY_LIMIT} MB");
    }
    Ok(())
}
