//! `outrigger history`.

use std::fmt::Write as _;

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
    /// Show the fields that each revision changed, before and after
    #[arg(long)]
    diff: bool,
    /// Show so many revisions, the newest ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: Option<u32>,
    #[command(flatten)]
    client: ClientArgs,
}

/// The revisions, as the API orders them.
pub(crate) async fn run(args: HistoryArgs) -> Outcome {
    let limit = args.limit.map(|limit| format!("limit={limit}"));
    let query: Vec<_> =
        args.diff.then(|| "diff=true".to_owned()).into_iter().chain(limit).collect();
    let path = match query.is_empty() {
        true => "/v1/history".to_owned(),
        false => format!("/v1/history?{}", query.join("&")),
    };
    let answer = args.client.api()?.get(&path).await?;
    let output = &args.client.output;
    output.print(&answer, || {
        let items = typed::<Items<HistoryItem>>(&path, answer.clone())?.items;
        if args.diff {
            return Ok(items.iter().map(in_full).collect());
        }
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

/// A revision with everything it changed.
fn in_full(item: &HistoryItem) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "revision {}, {} by {}", item.revision, item.time, item.author);
    for change in &item.changes {
        let _ = writeln!(text, "  {}/{} {}", change.kind, change.name, change.action);
        for field in &change.fields {
            let _ = writeln!(text, "    {field}");
        }
    }
    text.push('\n');
    text
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
