//! `outrigger export`.

use clap::Args;

use super::ClientArgs;
use crate::exit::Outcome;
use crate::output::print;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Every object, as documents that `apply` takes back.
pub(crate) async fn run(args: ExportArgs) -> Outcome {
    print(&args.client.api()?.get_text("/v1/export").await?)
}
