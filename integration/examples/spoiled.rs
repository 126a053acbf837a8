//! What real Envoy 1.40 and we say of every bootstrap of `corpus/` with one field spoiled: prints those that only one of
//! the two refuses, each with the reason of the one that does.
//!
//! ```text
//! cargo build && OUTRIGGER_BIN=target/debug/outrigger cargo run -p outrigger-integration --example spoiled [EXAMPLE]
//! ```
//!
//! All of them take some minutes. A proxy that takes what Envoy refuses lets a mistake through; one that refuses what
//! Envoy takes cannot be dropped in.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use outrigger_integration::corpus::mutation::{Mutant, mutants};
use outrigger_integration::corpus::{Workshop, examples};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::Kind;

/// How many configurations are looked at at a time.
const SIDE_BY_SIDE: usize = 2;

fn main() -> Result<()> {
    peers().context("there is no Envoy to compare with")?;
    let mut chosen = examples()?;
    if let Some(only) = std::env::args().nth(1) {
        chosen.retain(|example| example.name == only);
        ensure!(!chosen.is_empty(), "there is no example {only}");
    }
    let workshop = Workshop::new()?;
    let all = mutants(&chosen);
    let next = AtomicUsize::new(0);
    let differing = Mutex::new(0_usize);
    let work = || -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = all.get(at) else { return Ok(()) };
            if at.is_multiple_of(200) {
                eprintln!("{at} of {} spoiled configurations", all.len());
            }
            if let Some(difference) = compare(&workshop, mutant)? {
                if let Ok(mut count) = differing.lock() {
                    *count += 1;
                }
                println!("{difference}");
            }
        }
    };
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let differing = differing.into_inner().unwrap_or_default();
    println!("{differing} of {} are judged differently", all.len());
    Ok(())
}

fn compare(workshop: &Workshop, mutant: &Mutant) -> Result<Option<String>> {
    let Mutant { example, field, change, content } = mutant;
    let envoy = workshop.judge_value(Kind::Envoy, content)?;
    let ours = workshop.judge_value(Kind::Outrigger, content)?;
    let (who, why) = match (envoy.accepted, ours.accepted) {
        (true, false) => ("only we refuse", ours.said),
        (false, true) => ("only Envoy refuses", envoy.said),
        _ => return Ok(None),
    };
    Ok(Some(format!("{example}: {field}: {change}: {who}: {}", why.trim())))
}
