//! `outrigger authz check FROM TO METHOD PATH`: what the policies make of a request, by the rule that the sidecars are given.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use outrigger_control_plane::model::verdict::{Request, Verdict, judge};
use outrigger_control_plane::model::{Config, plan, read};
use serde_json::json;

use super::input::Input;
use super::{ClientArgs, name};
use crate::exit::{Failure, Outcome};

/// Subcommands of `authz`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthzCommand {
    /// Say whether a request is allowed, and by which policy; exit code 3 if it is denied
    Check(AuthzArgs),
}

/// Arguments of `authz check`.
#[derive(Debug, Args)]
pub(crate) struct AuthzArgs {
    /// Service of the caller
    #[arg(value_parser = name)]
    from: String,
    /// Service that is called
    #[arg(value_parser = name)]
    to: String,
    /// Method of the request; absent: a connection to a port without HTTP
    #[arg(requires = "path")]
    method: Option<String>,
    /// Path of the request
    path: Option<String>,
    /// Judge by these files instead of a control plane; may be given several times
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Judges one request.
pub(crate) async fn run(args: AuthzArgs) -> Outcome {
    let text = match args.filename.is_empty() {
        true => args.client.api()?.get_text("/v1/export").await?,
        false => Input::read(&args.filename)?.text().to_owned(),
    };
    let config = configuration(&text)?;
    if config.service(&args.to).is_none() {
        return Err(Failure::Error(format!("there is no Service `{}`", args.to)));
    }
    let request = args.method.as_deref().zip(args.path.as_deref());
    let request = request.map(|(method, path)| Request { method, path });
    let Verdict { allowed, policy, reason } = judge(&config, &args.from, &args.to, request);
    let answer = json!({"allowed": allowed, "policy": policy, "reason": reason});
    args.client.output.print(&answer, || {
        let mut text = String::new();
        let word = if allowed { "allowed" } else { "DENIED" };
        let _ = writeln!(text, "{word}: {reason}");
        Ok(text)
    })?;
    if allowed { Ok(()) } else { Err(Failure::CheckFailed(String::new())) }
}

fn configuration(text: &str) -> Result<Config, Failure> {
    let (documents, problems) = read::documents(text);
    let planned = match problems.is_empty() {
        true => plan::plan(&Config::default(), &documents).map(|plan| plan.config),
        false => Err(problems),
    };
    planned.map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Rejected(format!("the resources are not valid:\n  {}", lines.join("\n  ")))
    })
}
