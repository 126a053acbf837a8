//! The bootstraps of `corpus/`, one a feature, are valid for real Envoy 1.40 and for us. With a field spoiled, both refuse
//! them or both accept them, but for what `accepted_verdicts.yaml` lists with its reason. Here that is asked about some
//! fields of each, `cargo run -p outrigger-integration --example spoiled` asks about all.

use anyhow::{Result, ensure};
use outrigger_integration::corpus::comparison::{Accepted, differences, sample};
use outrigger_integration::corpus::mutation::mutants;
use outrigger_integration::corpus::{Workshop, examples};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::Kind;

/// So many spoiled fields of each example are asked about: in all, some half minute.
const OF_EACH: usize = 4;

#[test]
fn both_accept_every_example() -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    let workshop = Workshop::new()?;
    let all = examples()?;
    ensure!(all.len() >= 60, "the corpus is not where this test looks");
    let mut refused = Vec::new();
    for example in all {
        for kind in [Kind::Envoy, Kind::Outrigger] {
            let verdict = workshop.judge(kind, &example.path)?;
            if !verdict.accepted {
                refused.push(format!("{kind} refuses {}:\n{}", example.name, verdict.said));
            }
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

#[test]
fn both_judge_spoiled_examples_alike() -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    let accepted = Accepted::read()?;
    let all = mutants(&examples()?);
    let found = differences(&Workshop::new()?, &sample(&all, OF_EACH))?;
    let unlisted = found.iter().filter(|difference| !accepted.covers(difference));
    let unlisted: Vec<String> = unlisted.map(ToString::to_string).collect();
    ensure!(unlisted.is_empty(), "{}", unlisted.join("\n"));
    Ok(())
}

#[test]
fn what_is_listed_can_occur() -> Result<()> {
    let all = mutants(&examples()?);
    let accepted = Accepted::read()?;
    ensure!(accepted.aimless(&all).is_empty(), "no such field: {:?}", accepted.aimless(&all));
    Ok(())
}
