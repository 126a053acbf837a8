//! Act 4: an instance that answers 500 is ejected, seen to be, and comes back when it is well.

use std::time::Duration;

use anyhow::{Context, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Stage;
use crate::client::Endpoint;
use crate::demo::resources::{ApiService, api_route};
use crate::demo::wait::until;

const SICK: &str = "api-2";
/// From its first error to its ejection being shown.
const EJECTED_WITHIN: Duration = Duration::from_secs(5);
/// How long the first ejection lasts.
const EJECTION: Duration = Duration::from_secs(5);
/// Ejections end with the detector's next look, an interval later at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// From then until it is shown to be back: the ejection, the detector's interval, a report.
const RETURNS_WITHIN: Duration = Duration::from_secs(12);

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let service = ApiService { ejection: EJECTION, ..ApiService::default() };
    stage.mesh.apply(&[service.document(), api_route(100, 0)]).await?;
    let load = stage.load();
    stage.watch(&load, Duration::from_secs(1)).await;

    let before = load.snapshot();
    stage.mesh.switch(SICK, "/fail?rate=1").await?;
    stage.progress.show(&format!("outlier ejection: {SICK} answers 500"));
    let mesh = &*stage.mesh;
    let (endpoint, took) = until("the failing instance is ejected", EJECTED_WITHIN, async || {
        let endpoint = find(mesh.endpoints("api").await?)?;
        Ok((endpoint.health == "ejected").then_some(endpoint))
    })
    .await?;
    let errors = load.snapshot().since(&before);
    let because = endpoint.ejected_because.clone().unwrap_or_default();
    let until_when = endpoint.ejected_until.clone().context("`ejectedUntil` is missing")?;
    let left = OffsetDateTime::parse(&until_when, &Rfc3339)? - OffsetDateTime::now_utc();
    stage.figures.note(
        "ejectedAfterMs",
        took.as_millis() as u64,
        format!("{SICK} ejected after {:.1} s ({because})", took.as_secs_f64()),
    );
    stage.figures.note("ejectedBecause", because.as_str(), format!("until {until_when}"));
    let words = format!("{} errors until then", errors.failed);
    stage.figures.note("errorsUntilEjected", errors.failed, words);
    if !because.contains("5xx") {
        bail!("`ejectedBecause` is {because:?} and does not say that 5xx answers are why");
    }
    if left.is_negative() || left > EJECTION + INTERVAL {
        bail!("`ejectedUntil` is {until_when}, {left} from now, with ejections of {EJECTION:?}");
    }

    // It is still failing: whoever still asked it would notice.
    stage.progress.show(&format!("outlier ejection: nobody notices that {SICK} fails"));
    let while_ejected = stage.watch(&load, Duration::from_secs(2)).await;
    stage.figures.expect_no_failures("whileEjected", &while_ejected)?;
    if while_ejected.by_instance.contains_key(SICK) {
        bail!("{SICK} was still asked while ejected");
    }

    stage.mesh.switch(SICK, "/fail?rate=0").await?;
    stage.progress.show(&format!("outlier ejection: {SICK} is well and waits for its return"));
    let mesh = &*stage.mesh;
    let (_, took) = until("the healed instance returns", RETURNS_WITHIN, async || {
        Ok((find(mesh.endpoints("api").await?)?.health == "healthy").then_some(()))
    })
    .await?;
    let after = stage.watch(&load, Duration::from_secs(2)).await;
    let all = load.stop().await;
    let served = *after.by_instance.get(SICK).unwrap_or(&0);
    let words = format!("back after {:.1} s and served {served}", took.as_secs_f64());
    stage.figures.note("returnedAfterMs", took.as_millis() as u64, words);
    stage.figures.expect_no_failures("afterReturn", &after)?;
    if served == 0 {
        bail!("{SICK} is back and serves nothing");
    }
    if all.failed > errors.failed + 5 {
        bail!("{} errors in all: {}", all.failed, all.causes_in_words());
    }
    stage.mesh.apply(&[ApiService::default().document(), api_route(90, 10)]).await?;
    Ok(())
}

fn find(endpoints: Vec<Endpoint>) -> anyhow::Result<Endpoint> {
    let found = endpoints.into_iter().find(|endpoint| endpoint.instance == SICK);
    found.with_context(|| format!("{SICK} is not among the endpoints of api"))
}
