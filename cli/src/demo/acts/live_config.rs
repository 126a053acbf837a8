//! Act 1: 200 revisions while requests flow, and none of them fails.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::Stage;
use crate::demo::resources::{ApiService, api_route, deletion, outsider};
use crate::demo::topology::OUTSIDER;

/// How many.
const REVISIONS: u32 = 200;
/// One every so often.
const INTERVAL: Duration = Duration::from_millis(60);

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let address = stage.mesh.add_outsider()?;
    let endpoint = outsider(&address.ip().to_string(), address.port());
    let load = stage.load();
    let mut last = stage.mesh.status().await?.revision;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..REVISIONS {
        ticks.tick().await;
        stage.progress.show(&format!("live config: revision {number} of {REVISIONS}"));
        let applied = stage.mesh.apply_at_once(&[change(number, &endpoint)]).await?;
        if applied.revision != last + 1 {
            bail!("change {number} made revision {} of {last}", applied.revision);
        }
        last = applied.revision;
    }
    let settled = stage.mesh.in_sync(Duration::from_secs(10)).await?;
    let stats = load.stop().await;
    stage.figures.note("revisions", REVISIONS, format!("{REVISIONS} revisions"));
    stage.figures.expect_no_failures("load", &stats)?;
    let words = format!("p99 {:.1} ms", stats.percentile_ms(99.0));
    stage.figures.note("settledMs", settled.as_millis() as u64, words);

    // The changes must have had an effect, or surviving them would mean nothing.
    let served = *stats.by_instance.get(OUTSIDER.name).unwrap_or(&0);
    let words = format!("{served} served by the endpoint that came and went");
    stage.figures.note("servedByAddedEndpoint", served, words);
    if served == 0 {
        bail!("the added endpoint served nothing");
    }
    for version in ["v1", "v2"] {
        if stats.share_of_version(version) == 0.0 {
            bail!("version {version} served nothing though the weights gave it something");
        }
    }
    stage
        .mesh
        .apply(&[
            ApiService::default().document(),
            api_route(90, 10),
            deletion("Endpoint", OUTSIDER.name),
            deletion("Route", "reports"),
        ])
        .await?;
    stage.mesh.remove(OUTSIDER.name).await
}

/// Weights, timeouts, outlier settings, a route added and removed, an endpoint added and removed: one after the other,
/// each differing from the same change a round before.
fn change(number: u32, endpoint: &Value) -> Value {
    let round = number / 7;
    match number % 7 {
        0 => api_route(50 + round, 50 - round),
        1 => {
            let timeout = Duration::from_secs(u64::from(5 + round));
            ApiService { timeout, ..ApiService::default() }.document()
        }
        2 => endpoint.clone(),
        3 => ApiService { consecutive_5xx: 5 + round, ..ApiService::default() }.document(),
        4 => json!({
            "kind": "Route",
            "name": "reports",
            "spec": {
                "hosts": ["reports"],
                "rules": [{"backendRefs": [{"name": "api", "subset": "v1"}]}],
            },
        }),
        5 => deletion("Endpoint", OUTSIDER.name),
        _ => deletion("Route", "reports"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_repeats_the_one_before_it_of_its_kind() {
        let endpoint = outsider("127.0.0.1", 1);
        let changes: Vec<String> =
            (0..REVISIONS).map(|number| change(number, &endpoint).to_string()).collect();
        // Additions alternate with removals; what replaces must differ from what it replaces.
        for kind in [0, 1, 3] {
            let of_kind: Vec<_> = changes.iter().skip(kind).step_by(7).collect();
            assert!(of_kind.windows(2).all(|pair| pair[0] != pair[1]), "change {kind}");
        }
        assert_ne!(changes[1], changes[3]);
    }
}
