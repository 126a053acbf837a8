//! `outrigger token create`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ClientArgs, name, span};
use crate::client::{Token, typed};
use crate::exit::Outcome;
use crate::output::left;

/// Subcommands of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a token that lets sidecars of one service join the mesh
    Create(CreateArgs),
}

/// Arguments of `token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The service whose identity the token gives
    #[arg(short, long, value_parser = name)]
    service: String,
    /// How long it can be used
    #[arg(long, default_value = "1h", value_parser = span, value_name = "DURATION")]
    ttl: Duration,
    /// How many sidecars may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// Prints the token alone, so that it can be piped; what else is to say goes to standard error.
pub(crate) async fn create(args: CreateArgs) -> Outcome {
    let path = "/v1/tokens";
    let ttl = format!("{}ms", args.ttl.as_millis());
    let body = json!({ "service": args.service, "ttl": ttl, "uses": args.uses });
    let answer = args.client.api()?.post(path, &body).await?;
    args.client.output.print(&answer, || {
        let token: Token = typed(path, answer.clone())?;
        eprintln!(
            "for service {}, {} use(s), {} left",
            token.service,
            token.uses,
            left(&token.expires)
        );
        Ok(format!("{}\n", token.token))
    })
}
