//! `outrigger history`.

use clap::Args;

use super::ClientArgs;
use crate::client::{Change, HistoryItem, Items, typed};
use crate::exit::Outcome;
use crate::output::{Cell, Table, age};

/// Changes shown of a revision that has many; `-o wide` shows all.
const SHOWN: usize = 3;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// The revisions, as the API orders them.
pub(crate) async fn run(args: HistoryArgs) -> Outcome {
    let path = "/v1/history";
    let answer = args.client.api()?.get(path).await?;
    let output = &args.client.output;
    output.print(&answer, || {
        let items = typed::<Items<HistoryItem>>(path, answer.clone())?.items;
        let mut table = Table::new(&["REV", "AGE", "AUTHOR", "CHANGES"]);
        for item in items {
            table.row([
                Cell::from(item.revision.to_string()),
                Cell::from(age(&item.time)),
                Cell::from(item.author.as_str()),
                Cell::from(in_short(&item.changes, output.wide())),
            ]);
        }
        Ok(output.table(&table))
    })
}

fn in_short(changes: &[Change], all: bool) -> String {
    let shown = if all { changes.len() } else { SHOWN };
    let mut words: Vec<String> = changes
        .iter()
        .take(shown)
        .map(|change| format!("{}/{} {}", change.kind, change.name, change.action))
        .collect();
    if changes.len() > shown {
        words.push(format!("{} more", changes.len() - shown));
    }
    words.join(", ")
}
