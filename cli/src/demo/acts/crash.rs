//! Act 5: an instance and its sidecar are killed at once; callers notice nothing, and it is gone from the mesh.

use std::time::Duration;

use super::Stage;
use crate::demo::resources::api_route;
use crate::demo::wait::until;

const VICTIM: &str = "api-3";
/// From the kill until it is no endpoint any more.
const GONE_WITHIN: Duration = Duration::from_secs(3);

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.mesh.apply(&[api_route(100, 0)]).await?;
    let load = stage.load();
    stage.watch(&load, Duration::from_secs(1)).await;
    stage.progress.show(&format!("crash: kill -9 of {VICTIM} and its sidecar"));
    stage.mesh.crash(VICTIM).await?;
    let mesh = &*stage.mesh;
    let (_, took) = until("the crashed instance is gone", GONE_WITHIN, async || {
        let endpoints = mesh.endpoints("api").await?;
        Ok(endpoints.iter().all(|endpoint| endpoint.instance != VICTIM).then_some(()))
    })
    .await?;
    let words = format!("{VICTIM} gone after {:.2} s", took.as_secs_f64());
    stage.figures.note("goneAfterMs", took.as_millis() as u64, words);
    stage.watch(&load, Duration::from_secs(3)).await;

    stage.progress.show(&format!("crash: {VICTIM} starts again"));
    stage.mesh.start_app(VICTIM)?;
    stage.mesh.start_sidecar(VICTIM)?;
    let back = stage.mesh.in_sync(Duration::from_secs(10)).await?;
    let again = stage.watch(&load, Duration::from_secs(2)).await;
    let all = load.stop().await;
    stage.figures.expect_no_failures("load", &all)?;
    let served = *again.by_instance.get(VICTIM).unwrap_or(&0);
    let words = format!("started again in {:.1} s", back.as_secs_f64());
    stage.figures.note("backAfterMs", back.as_millis() as u64, words);
    anyhow::ensure!(served > 0, "{VICTIM} is back and serves nothing");
    stage.mesh.apply(&[api_route(90, 10)]).await?;
    Ok(())
}
