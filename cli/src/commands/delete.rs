//! `outrigger delete KIND NAME`.

use clap::Args;
use outrigger_control_plane::model::Kind;

use super::{ClientArgs, kind, name};
use crate::exit::Outcome;

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// mesh, service, route, policy, gateway or endpoint; plurals too
    #[arg(value_parser = kind)]
    kind: Kind,
    /// The object
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Deletes one object; one that others refer to stays, and they are named.
pub(crate) async fn run(args: DeleteArgs) -> Outcome {
    let path = format!("/v1/{}/{}", args.kind.plural(), args.name);
    args.client.api()?.delete(&path).await?;
    let done = serde_json::json!({
        "kind": args.kind.as_str(), "name": args.name, "action": "deleted",
    });
    args.client.output.print(&done, || Ok(format!("{} {} deleted\n", args.kind, args.name)))
}
