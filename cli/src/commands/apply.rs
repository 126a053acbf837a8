//! `outrigger apply` and `outrigger diff`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::input::Input;
use super::{ClientArgs, rejection, span};
use crate::client::{ApiError, Applied, Apply, Effect, typed};
use crate::exit::{Failure, Outcome};
use crate::output::{Cell, Table};

/// Files with resources.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A file, a folder or - for standard input; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(super) filename: Vec<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: Files,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Return when every sidecar concerned serves the change, or after this time with exit code 5
    #[arg(long, value_parser = span, value_name = "DURATION", conflicts_with = "dry_run")]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    client: ClientArgs,
}

/// Applies all files in one transaction.
pub(crate) async fn apply(args: ApplyArgs) -> Outcome {
    let input = Input::read(&args.files.filename)?;
    let options = Apply { dry_run: args.dry_run, wait: args.wait };
    let (answer, applied) = send(&args.client, &input, options).await?;
    args.client.output.print(&answer, || {
        let mut text = args.client.output.table(&changes(&applied));
        if args.dry_run {
            text.push_str(&details(&applied));
            text.push_str("\nnothing was changed (--dry-run)\n");
        } else {
            let _ = write!(text, "\nrevision {}", applied.revision);
            if args.wait.is_some() {
                let _ = write!(text, ", in effect at {} of {}", applied.acked, applied.total);
            }
            text.push('\n');
        }
        for warning in &applied.warnings {
            let _ = writeln!(text, "\nwarning: {}", rejection::show(warning, &input));
        }
        Ok(text)
    })
}

/// Says what an apply would change; exit code 3 if that is anything.
pub(crate) async fn diff(args: DiffArgs) -> Outcome {
    let input = Input::read(&args.files.filename)?;
    let options = Apply { dry_run: true, wait: None };
    let (answer, applied) = send(&args.client, &input, options).await?;
    let differs = applied.objects.iter().any(|change| change.action != "unchanged");
    args.client.output.print(&answer, || {
        let mut text = args.client.output.table(&changes(&applied));
        text.push_str(&details(&applied));
        for warning in &applied.warnings {
            let _ = writeln!(text, "\nwarning: {}", rejection::show(warning, &input));
        }
        Ok(text)
    })?;
    if differs { Err(Failure::CheckFailed(String::new())) } else { Ok(()) }
}

async fn send(
    client: &ClientArgs,
    input: &Input,
    options: Apply,
) -> Result<(Value, Applied), Failure> {
    let answer = match client.api()?.apply(input.text(), options).await {
        Ok(answer) => answer,
        Err(ApiError::Refused(problem)) if problem.is_about_resources() => {
            return Err(match problem.errors.as_slice() {
                [] => Failure::Rejected(problem.to_string()),
                errors => rejection::rejected(errors, input),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let applied = typed("/v1/apply", answer.clone())?;
    Ok((answer, applied))
}

/// The fields that would change, and who would be sent something.
fn details(applied: &Applied) -> String {
    let mut text = String::new();
    for change in applied.objects.iter().filter(|change| !change.fields.is_empty()) {
        let _ = writeln!(text, "\n{}/{}", change.kind, change.name);
        for field in &change.fields {
            let _ = writeln!(text, "  {field}");
        }
    }
    if let Some(Effect { changed, total, sidecars }) = &applied.effect {
        let verb = if *changed == 1 { "changes" } else { "change" };
        let _ = writeln!(text, "\n{changed} of {total} sidecars {verb}");
        for sidecar in sidecars {
            let _ = writeln!(text, "  {}: {sidecar}", sidecar.node);
        }
    }
    text
}

fn changes(applied: &Applied) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "ACTION"]);
    for change in &applied.objects {
        table.row([
            Cell::from(change.kind.as_str()),
            Cell::from(change.name.as_str()),
            Cell::state(&change.action),
        ]);
    }
    table
}
