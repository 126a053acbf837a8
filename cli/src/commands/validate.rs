//! `outrigger validate`: the control plane's own checks, without a control plane.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use outrigger_control_plane::model::problem::Code;
use outrigger_control_plane::model::{Config, Problem, plan, read};
use serde_json::json;

use super::apply::Files;
use super::input::Input;
use super::rejection::{self, show};
use crate::client::FieldError;
use crate::exit::{Failure, Outcome};
use crate::output::OutputArgs;

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    files: Files,
    /// The files are a whole mesh: what they refer to must be among them
    #[arg(long)]
    complete: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads all files and says everything that is wrong with them; exit code 4 if anything is.
pub(crate) fn run(args: &ValidateArgs) -> Outcome {
    let paths: &[PathBuf] = &args.files.filename;
    let input = Input::read(paths)?;
    let (documents, mut problems) = read::documents(input.text());
    let mut warnings = Vec::new();
    match plan::plan(&Config::default(), &documents) {
        Ok(plan) => warnings.extend(plan.warnings),
        // What a file refers to may be in the mesh already.
        Err(found) if args.complete => problems.extend(found),
        Err(found) => {
            let (missing, wrong): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|problem| problem.code == Code::NotFound);
            // When a document cannot be read, everything that refers to it seems to be missing.
            if problems.is_empty() {
                warnings.extend(missing);
            }
            problems.extend(wrong);
        }
    }
    if problems.is_empty() {
        let warnings = as_errors(&warnings)?;
        for warning in &warnings {
            eprintln!("warning: {}\n", show(warning, &input));
        }
        let answer = json!({ "valid": true, "documents": documents.len() });
        return args.output.print(&answer, || {
            let mut text = String::new();
            let _ = writeln!(text, "{}: {} valid documents", input.names(), documents.len());
            Ok(text)
        });
    }
    let errors = as_errors(&problems)?;
    args.output.print(&json!({ "valid": false, "errors": problems }), || Ok(String::new()))?;
    Err(rejection::rejected(&errors, &input))
}

/// The same problems as a client of the API gets them.
pub(super) fn as_errors(problems: &[Problem]) -> Result<Vec<FieldError>, Failure> {
    serde_json::to_value(problems)
        .and_then(serde_json::from_value)
        .map_err(|error| Failure::Error(error.to_string()))
}
