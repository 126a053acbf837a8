//! `outrigger demo test`: plays the acts one after the other and judges them.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::acts::{ACTS, Act, Figures};
use super::interrupted;
use super::mesh::{Mesh, copy_logs};
use super::progress::Progress;
use crate::exit::{Failure, Outcome};
use crate::output::print;

/// What became of an act.
struct Played {
    number: usize,
    act: Act,
    took: Duration,
    figures: Figures,
    failure: Option<String>,
}

/// Plays the acts with these numbers (all if none) against a demo in a temporary folder.
///
/// # Errors
/// [`Failure::CheckFailed`] when one failed; [`Failure::Error`] when the demo did not start or not end cleanly.
pub(super) async fn run(only: &[u8], report: Option<&Path>, logs: Option<&Path>) -> Outcome {
    tokio::select! {
        outcome = play(only, report, logs) => outcome,
        signal = interrupted() => {
            signal?;
            // Dropping the demo has killed every process, and its folder is removed with it.
            Err(Failure::Error("interrupted".to_owned()))
        }
    }
}

async fn play(only: &[u8], report: Option<&Path>, logs: Option<&Path>) -> Outcome {
    let start = Instant::now();
    let progress = Progress::new();
    let folder = tempfile::Builder::new().prefix("outrigger-demo-").tempdir()?;
    let played = play_acts(folder.path(), only, &progress).await;
    if let Some(logs) = logs {
        copy_logs(folder.path(), logs).context("keep the logs")?;
    }
    folder.close()?;
    let (all, ended) = played?;
    let failed = all.iter().filter(|played| played.failure.is_some()).count();
    print(&format!(
        "\n{} acts, {} passed, {failed} failed, {:.0} s\n",
        all.len(),
        all.len() - failed,
        start.elapsed().as_secs_f64()
    ))?;
    if let Some(path) = report {
        let passed = failed == 0 && ended.is_ok();
        let text = format!("{:#}\n", as_json(all, passed, start.elapsed()));
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    ended.context("the demo did not end cleanly")?;
    if failed > 0 {
        return Err(Failure::CheckFailed(format!("{failed} acts failed")));
    }
    Ok(())
}

/// All that were played, and how the demo ended.
async fn play_acts(
    folder: &Path,
    only: &[u8],
    progress: &Progress,
) -> anyhow::Result<(Vec<Played>, anyhow::Result<()>)> {
    let mut mesh = Mesh::start(folder.to_owned(), progress).await?;
    let mut all = Vec::new();
    for (number, act) in ACTS.into_iter().enumerate() {
        if !only.is_empty() && !only.iter().any(|wanted| usize::from(*wanted) == number) {
            continue;
        }
        progress.show(&format!("{}: playing", act.name()));
        let began = Instant::now();
        let mut figures = Figures::default();
        let outcome = act.play(&mut mesh, &mut figures, progress).await;
        let failure = outcome.err().map(|error| format!("{error:#}"));
        let failed = failure.is_some();
        let played = Played { number, act, took: began.elapsed(), figures, failure };
        progress.clear();
        // Somebody who watches wants each line when it is known; one who has stopped reading wants the rest all the same.
        let _ = print(&line(&played));
        all.push(played);
        if failed {
            progress.show("restoring the demo after a failure");
            mesh.restore().await.context("after a failed act the demo could not be restored")?;
            progress.clear();
        }
    }
    progress.show("ending every process");
    let ended = mesh.stop().await;
    progress.clear();
    Ok((all, ended))
}

/// `PASS  2 canary: v1/v2 90.2/9.8 %, ... (6.1 s)`
fn line(played: &Played) -> String {
    let verdict = if played.failure.is_none() { "PASS" } else { "FAIL" };
    let mut text = format!(
        "{verdict}  {} {}: {} ({:.1} s)\n",
        played.number,
        played.act.name(),
        played.figures.in_words(),
        played.took.as_secs_f64()
    );
    if let Some(failure) = &played.failure {
        for line in failure.lines() {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text
}

fn as_json(all: Vec<Played>, passed: bool, took: Duration) -> Value {
    let acts: Vec<Value> = all
        .into_iter()
        .map(|played| {
            json!({
                "act": played.number,
                "name": played.act.name(),
                "passed": played.failure.is_none(),
                "failure": played.failure,
                "seconds": played.took.as_secs_f64(),
                "figures": played.figures.into_json(),
            })
        })
        .collect();
    json!({ "passed": passed, "seconds": took.as_secs_f64(), "acts": acts })
}
