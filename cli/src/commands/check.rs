//! `outrigger check`: whether the mesh is as it should be; `--pre`: whether this machine is ready for one. Each finding says
//! which command mends it.

mod host;
mod mesh;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::ClientArgs;
use crate::exit::{Failure, Outcome};
use crate::output::{Cell, Table};

/// All checks together take no longer.
const LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Check this machine, before there is a control plane
    #[arg(long)]
    pre: bool,
    /// With --pre: folder that the control plane is going to keep its data in
    #[arg(long, value_name = "DIR", default_value = "./outrigger-data")]
    data_dir: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Worth a look.
    Warning,
    /// Not as it should be.
    Failed,
    /// What it needs to look at could not be had.
    Skipped,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug)]
struct Check {
    /// What was checked, as a word that stays the same.
    code: &'static str,
    state: State,
    detail: String,
    /// The command that mends it; empty if there is nothing to mend.
    fix: String,
}

impl Check {
    fn ok(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, state: State::Ok, detail: detail.into(), fix: String::new() }
    }

    fn warning(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, state: State::Warning, detail: detail.into(), fix: fix.into() }
    }

    fn failed(code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, state: State::Failed, detail: detail.into(), fix: fix.into() }
    }

    /// `good` if nothing was found, else that what was found is not as it should be.
    fn none_of(
        code: &'static str,
        found: Vec<String>,
        good: impl Into<String>,
        state: State,
        fix: impl Into<String>,
    ) -> Self {
        if found.is_empty() {
            return Self::ok(code, good);
        }
        Self { code, state, detail: found.join("; "), fix: fix.into() }
    }
}

/// Runs every check; exit code 3 if one failed.
pub(crate) async fn run(args: CheckArgs) -> Outcome {
    let checks = match args.pre {
        true => host::checks(&args.data_dir).await,
        false => {
            let api = args.client.api()?;
            let checks = tokio::time::timeout(LIMIT, mesh::checks(&api)).await;
            checks
                .map_err(|_| Failure::Timeout(format!("the checks took longer than {LIMIT:?}")))?
        }
    };
    let failed = checks.iter().filter(|check| check.state == State::Failed).count();
    let answer = json!({
        "ok": failed == 0,
        "checks": checks.iter().map(as_json).collect::<Vec<_>>(),
    });
    let output = &args.client.output;
    output.print(&answer, || {
        let mut table = Table::new(&["STATE", "CHECK", "DETAIL"]);
        for check in &checks {
            let state = match check.state {
                State::Ok => Cell::good("ok"),
                State::Warning => Cell::attention("warning"),
                State::Failed => Cell::bad("FAILED"),
                State::Skipped => Cell::from("skipped"),
            };
            table.row([state, Cell::from(check.code), Cell::from(check.detail.as_str())]);
        }
        let mut text = output.table(&table);
        for check in checks.iter().filter(|check| !check.fix.is_empty()) {
            let _ = writeln!(text, "\n{}: {}", check.code, check.fix);
        }
        Ok(text)
    })?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::CheckFailed("1 check failed".to_owned())),
        n => Err(Failure::CheckFailed(format!("{n} checks failed"))),
    }
}

fn as_json(Check { code, state, detail, fix }: &Check) -> Value {
    let mut value = json!({"code": code, "state": state.as_str().to_lowercase(), "detail": detail});
    if !fix.is_empty() {
        value["fix"] = json!(fix);
    }
    value
}
