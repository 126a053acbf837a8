//! What real Envoy 1.40 and we say of every bootstrap of `corpus/` with one field spoiled: prints those that only one of
//! the two refuses and that `tests/accepted_verdicts.yaml` does not list, each with the reason of the one that does.
//!
//! ```text
//! cargo build && OUTRIGGER_BIN=target/debug/outrigger cargo run -p outrigger-integration --example spoiled [EXAMPLE]
//! ```
//!
//! All of them take some minutes; `tests/corpus.rs` asks about some of each. A proxy that takes what Envoy refuses lets a
//! mistake through; one that refuses what Envoy takes cannot be dropped in.

use anyhow::{Context, Result, ensure};
use outrigger_integration::corpus::comparison::{Accepted, differences};
use outrigger_integration::corpus::mutation::mutants;
use outrigger_integration::corpus::{Workshop, examples};
use outrigger_integration::peers::peers;

fn main() -> Result<()> {
    peers().context("there is no Envoy to compare with")?;
    let accepted = Accepted::read()?;
    let mut chosen = examples()?;
    let only = std::env::args().nth(1);
    if let Some(only) = &only {
        chosen.retain(|example| example.name == *only);
        ensure!(!chosen.is_empty(), "there is no example {only}");
    }
    let all = mutants(&chosen);
    let found = differences(&Workshop::new()?, &all.iter().collect::<Vec<_>>())?;
    let unlisted: Vec<_> = found.iter().filter(|difference| !accepted.covers(difference)).collect();
    for difference in &unlisted {
        println!("{difference}");
    }
    let (count, listed) = (found.len(), found.len() - unlisted.len());
    println!("{count} of {} are judged differently, {listed} of them as listed", all.len());
    if only.is_none() {
        for pattern in accepted.unneeded(&found) {
            println!("the list has {pattern}, which nothing needs any more");
        }
    }
    Ok(())
}
