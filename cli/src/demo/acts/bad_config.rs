//! Act 7: an apply with mistakes is refused whole, with all of them, and traffic does not notice.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::Stage;
use crate::client::{ApiError, Apply};
use crate::demo::resources::{THREE_ERRORS, api_route, documents};

pub(super) async fn play(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let load = stage.load();
    let before = stage.mesh.status().await?.revision;
    // Good changes beside the bad ones: they must not come through either.
    let text = format!("{THREE_ERRORS}{}", documents(&[api_route(1, 99)]));
    stage.progress.show("bad config: applying three mistakes");
    let answer = stage.mesh.api().apply(&text, Apply::default()).await;
    let problem = match &answer {
        Ok(answer) => bail!("it was accepted: {answer}"),
        Err(error) => error.problem().with_context(|| format!("no list of problems: {error}"))?,
    };
    stage.figures.note("errors", problem.errors.len(), format!("{} errors", problem.errors.len()));
    ensure!(problem.status == 422, "the status is {}, not 422", problem.status);
    ensure!(problem.errors.len() == 3, "{} errors instead of 3: {problem}", problem.errors.len());
    for error in &problem.errors {
        let (Some(field), Some(line), Some(suggestion)) =
            (&error.field, error.line, &error.suggestion)
        else {
            bail!("field, line or suggestion is missing: {error:?}");
        };
        let given = usize::try_from(line).ok().and_then(|line| text.lines().nth(line - 1));
        let given = given.with_context(|| format!("there is no line {line}"))?;
        let last = field.rsplit('.').next().unwrap_or(field);
        ensure!(given.contains(last), "{field} is not in line {line}: {given:?}");
        let words = format!("{field} (line {line}: {suggestion}?)");
        stage.figures.note(field, suggestion.as_str(), words);
    }

    let after = stage.mesh.status().await?.revision;
    ensure!(before == after, "revision {before} became {after}");
    let reports = stage.mesh.api().get("/v1/services/reports").await;
    let absent = matches!(&reports, Err(ApiError::Refused(problem)) if problem.status == 404);
    ensure!(absent, "a part of it was applied: {reports:?}");
    stage.watch(&load, Duration::from_secs(2)).await;
    let stats = load.stop().await;
    stage.figures.expect_no_failures("load", &stats)?;
    ensure!(
        stats.share_of_version("v2") < 0.5,
        "traffic noticed: v2 got {:.0} %",
        stats.share_of_version("v2") * 100.0
    );
    Ok(())
}
