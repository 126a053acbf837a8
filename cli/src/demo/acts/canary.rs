//! Act 2: a split by weight is what it says, and a header overrules it.

use anyhow::bail;

use super::Stage;
use crate::demo::resources::api_route;

/// Requests over which the split is measured.
const REQUESTS: u64 = 2000;
/// Faster than the other acts, for the sake of the watcher.
const RATE: u32 = 200;
const WEIGHTS: (u32, u32) = (90, 10);
/// Allowed difference, in percent of all requests.
const TOLERANCE: f64 = 3.0;
/// Requests with the header.
const WITH_HEADER: u64 = 200;

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.mesh.apply(&[api_route(WEIGHTS.0, WEIGHTS.1)]).await?;
    stage.progress.show(&format!("canary: measuring the split over {REQUESTS} requests"));
    let stats = stage.mesh.plan(RATE).requests(REQUESTS).run().await;
    let measured = stats.share_of_version("v2") * 100.0;
    let words = format!("v1/v2 {:.1}/{measured:.1} %", 100.0 - measured);
    stage.figures.note("v2Percent", measured, words);
    stage.figures.expect_no_failures("split", &stats)?;
    if (measured - f64::from(WEIGHTS.1)).abs() > TOLERANCE {
        bail!("v2 got {measured:.1} % instead of {} +-{TOLERANCE} %", WEIGHTS.1);
    }

    let plan = stage.mesh.plan(RATE).header("x-canary", "1").requests(WITH_HEADER);
    let stats = plan.run().await;
    let to_v2 = *stats.by_version.get("v2").unwrap_or(&0);
    let words = format!("with the header {to_v2} of {} to v2", stats.ended);
    stage.figures.note("withHeaderToV2", to_v2, words);
    stage.figures.expect_no_failures("header", &stats)?;
    if to_v2 != WITH_HEADER {
        bail!("{} requests with the header did not go to v2", WITH_HEADER - to_v2);
    }
    Ok(())
}
