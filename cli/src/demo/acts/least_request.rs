//! Act 3: a slow instance gets less, because requests pile up at it.

use std::time::Duration;

use anyhow::bail;

use super::Stage;
use crate::demo::resources::{ApiService, api_route};

const SLOW: &str = "api-1";
const DELAY_MS: u32 = 200;
/// A third would be its fair share; "measurably less" is at most this.
const SHARE_LIMIT: f64 = 0.2;

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    // All three of v1, nobody else.
    stage.mesh.apply(&[api_route(100, 0)]).await?;
    let load = stage.load();
    stage.progress.show("least request: measuring while all are fast");
    let fast = stage.watch(&load, Duration::from_secs(3)).await;

    // For comparison: what the slow one gets from a policy that does not look.
    let round_robin = ApiService { policy: "round_robin", ..ApiService::default() };
    stage.mesh.apply(&[round_robin.document()]).await?;
    stage.mesh.switch(SLOW, &format!("/delay?ms={DELAY_MS}")).await?;
    stage.progress.show(&format!("least request: {SLOW} is slow, and gets its turns"));
    let turns = stage.watch(&load, Duration::from_secs(3)).await;

    stage.mesh.apply(&[ApiService::default().document()]).await?;
    stage.progress.show(&format!("least request: {SLOW} is slow, and gets less"));
    let slow = stage.watch(&load, Duration::from_secs(5)).await;

    stage.mesh.switch(SLOW, "/delay?ms=0").await?;
    // What is still waiting at the slow one is not counted.
    stage.watch(&load, Duration::from_millis(u64::from(DELAY_MS) * 2)).await;
    stage.progress.show(&format!("least request: {SLOW} is fast again"));
    let healed = stage.watch(&load, Duration::from_secs(3)).await;
    let all = load.stop().await;
    stage.mesh.apply(&[api_route(90, 10)]).await?;

    let share = |stats: &crate::load::Stats| stats.share_of_instance(SLOW);
    let (before, in_turn, less, after) =
        (share(&fast), share(&turns), share(&slow), share(&healed));
    stage.figures.note(
        "share",
        serde_json::json!({"fast": before, "slowRoundRobin": in_turn, "slowLeastRequest": less, "healed": after}),
        format!(
            "{SLOW} slowed by {DELAY_MS} ms gets {:.0} % (round robin {:.0} %, fast {:.0} %)",
            less * 100.0,
            in_turn * 100.0,
            before * 100.0
        ),
    );
    let p99 = |stats: &crate::load::Stats| stats.percentile_ms(99.0);
    stage.figures.note(
        "p99Ms",
        serde_json::json!({"fast": p99(&fast), "slow": p99(&slow), "healed": p99(&healed)}),
        format!("p99 {:.0} ms -> {:.0} ms -> {:.0} ms", p99(&fast), p99(&slow), p99(&healed)),
    );
    stage.figures.expect_no_failures("load", &all)?;
    if less > SHARE_LIMIT || less >= in_turn / 1.5 {
        bail!("the slow instance still got {:.0} % of the requests", less * 100.0);
    }
    if p99(&healed) >= f64::from(DELAY_MS) {
        bail!("p99 did not recover: {:.0} ms", p99(&healed));
    }
    if after < before / 2.0 {
        bail!("the healed instance got only {:.0} % of the requests", after * 100.0);
    }
    Ok(())
}
