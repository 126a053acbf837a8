//! The bootstraps of `corpus/`, one a feature, are valid for real Envoy 1.40 and for us. What either says of them with a
//! field spoiled is shown by `cargo run -p outrigger-integration --example spoiled`.

use anyhow::{Result, ensure};
use outrigger_integration::corpus::{Workshop, examples};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::Kind;

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
