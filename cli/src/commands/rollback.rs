//! `outrigger rollback REV`.

use clap::Args;
use serde_json::json;

use super::ClientArgs;
use crate::client::{Applied, typed};
use crate::exit::Outcome;

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The revision whose objects are wanted back, as `history` shows it
    revision: u64,
    #[command(flatten)]
    client: ClientArgs,
}

/// Makes a new revision with the objects of an old one.
pub(crate) async fn run(args: RollbackArgs) -> Outcome {
    let path = format!("/v1/rollback/{}", args.revision);
    let answer = args.client.api()?.post(&path, &json!({})).await?;
    args.client.output.print(&answer, || {
        let applied: Applied = typed(&path, answer.clone())?;
        Ok(format!("revision {} holds what revision {} held\n", applied.revision, args.revision))
    })
}
