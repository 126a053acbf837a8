//! What real Envoy and we say of spoiled configurations, and where that may differ: `tests/accepted_verdicts.yaml`.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use super::Workshop;
use super::mutation::Mutant;
use crate::differential::matches;
use crate::proxy::Kind;

/// How many configurations are looked at at a time. More than there are cores: Envoy's validation waits more than it
/// computes.
const SIDE_BY_SIDE: usize = 8;

/// A configuration that only one of the two refuses.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The configuration.
    pub mutant: &'a Mutant,
    /// Who refuses it.
    pub refuser: Kind,
    /// What it prints then.
    pub said: String,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant { example, field, change, .. } = self.mutant;
        let said = self.said.trim();
        write!(out, "{example}: {field}: {change}: only {} refuses it: {said}", self.refuser)
    }
}

/// Asks both about each of them.
///
/// # Errors
/// As [`Workshop::judge_value`].
pub fn differences<'a>(workshop: &Workshop, mutants: &[&'a Mutant]) -> Result<Vec<Difference<'a>>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(at) else { return Ok(()) };
            if at > 0 && at.is_multiple_of(200) {
                eprintln!("{at} of {} spoiled configurations", mutants.len());
            }
            let difference = compare(workshop, mutant)?;
            found.lock().map_err(|_| anyhow!("a worker panicked"))?.extend(difference);
        }
    };
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    found.into_inner().map_err(|_| anyhow!("a worker panicked"))
}

fn compare<'a>(workshop: &Workshop, mutant: &'a Mutant) -> Result<Option<Difference<'a>>> {
    let envoy = workshop.judge_value(Kind::Envoy, &mutant.content)?;
    let ours = workshop.judge_value(Kind::Outrigger, &mutant.content)?;
    let (refuser, said) = match (envoy.accepted, ours.accepted) {
        (true, false) => (Kind::Outrigger, ours.said),
        (false, true) => (Kind::Envoy, envoy.said),
        _ => return Ok(None),
    };
    Ok(Some(Difference { mutant, refuser, said }))
}

/// At most so many of each example, always the same ones as long as their fields are called as they are.
pub fn sample(mutants: &[Mutant], of_each: usize) -> Vec<&Mutant> {
    let mut shuffled: Vec<&Mutant> = mutants.iter().collect();
    shuffled.sort_by_cached_key(|mutant| {
        let Mutant { example, field, change, .. } = mutant;
        // FNV-1a: the standard library's hash may be another one with the next compiler.
        format!("{example} {field} {change}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    });
    let mut taken: HashMap<&str, usize> = HashMap::new();
    shuffled.retain(|mutant| {
        let taken = taken.entry(&mutant.example).or_default();
        *taken += 1;
        *taken <= of_each
    });
    shuffled
}

/// An entry of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Who alone refuses: `envoy` or `outrigger`.
    refuses: String,
    /// Patterns of fields, in which `*` is any text.
    fields: Vec<String>,
    /// The changes, as they are printed.
    changes: Vec<String>,
    /// Why we keep it.
    reason: String,
}

impl Entry {
    fn is_of(&self, kind: Kind) -> bool {
        self.refuses == kind.to_string()
    }

    fn describes(&self, pattern: &str, mutant: &Mutant) -> bool {
        matches(pattern, &mutant.field) && self.changes.contains(&mutant.change.to_string())
    }
}

/// The differences that we keep, each with its reason.
#[derive(Debug)]
pub struct Accepted(Vec<Entry>);

impl Accepted {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or not a list of complete entries.
    pub fn read() -> Result<Accepted> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accepted_verdicts.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Accepted::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Accepted> {
        let entries: Vec<Entry> = serde_saphyr::from_str(text)?;
        for entry in &entries {
            let fields = &entry.fields;
            ensure!(!entry.reason.trim().is_empty(), "{fields:?} has no reason");
            let refuser = matches!(entry.refuses.as_str(), "envoy" | "outrigger");
            ensure!(refuser, "{fields:?}: {:?} is neither of the two", entry.refuses);
        }
        Ok(Accepted(entries))
    }

    /// Whether an entry describes the difference.
    pub fn covers(&self, difference: &Difference<'_>) -> bool {
        let mut entries = self.0.iter().filter(|entry| entry.is_of(difference.refuser));
        entries.any(|entry| {
            entry.fields.iter().any(|pattern| entry.describes(pattern, difference.mutant))
        })
    }

    /// Patterns that describe none of the differences of all mutants: nothing needs them any more.
    pub fn unneeded(&self, differences: &[Difference<'_>]) -> Vec<&str> {
        self.without(|entry, pattern| {
            differences.iter().any(|difference| {
                entry.is_of(difference.refuser) && entry.describes(pattern, difference.mutant)
            })
        })
    }

    /// Patterns that describe no mutant, whatever is said of it.
    pub fn aimless(&self, mutants: &[Mutant]) -> Vec<&str> {
        self.without(|entry, pattern| mutants.iter().any(|it| entry.describes(pattern, it)))
    }

    fn without(&self, has: impl Fn(&Entry, &str) -> bool) -> Vec<&str> {
        let pairs = self.0.iter().flat_map(|it| it.fields.iter().map(move |field| (it, field)));
        pairs.filter(|(entry, field)| !has(entry, field)).map(|(_, field)| field.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Example;
    use super::super::mutation::mutants;
    use super::*;

    fn some() -> Vec<Mutant> {
        let content = json!({"a": {"b": 1, "c": "text"}});
        mutants(&[Example { name: "e".to_owned(), path: "e.yaml".into(), content }])
    }

    #[test]
    fn a_sample_is_of_each_example_and_always_the_same() {
        let all = some();
        let fields = |of_each| -> Vec<String> {
            let chosen = sample(&all, of_each);
            chosen.iter().map(|it| format!("{} {}", it.field, it.change)).collect()
        };
        assert_eq!(fields(3).len(), 3);
        assert_eq!(fields(3), fields(3));
        assert_eq!(fields(100).len(), all.len());
    }

    #[test]
    fn only_what_an_entry_describes_is_covered() {
        let file = "- {refuses: outrigger, fields: ['*.c', x], changes: [empty], reason: because}";
        let accepted = Accepted::parse(file).unwrap();
        let all = some();
        let difference = |field: &str, change: &str, refuser| {
            let found =
                all.iter().find(|it| it.field == field && it.change.to_string() == change).unwrap();
            Difference { mutant: found, refuser, said: String::new() }
        };
        assert!(accepted.covers(&difference("a.c", "empty", Kind::Outrigger)));
        assert!(!accepted.covers(&difference("a.c", "empty", Kind::Envoy)));
        assert!(!accepted.covers(&difference("a.c", "removed", Kind::Outrigger)));
        assert!(!accepted.covers(&difference("a.b", "0", Kind::Outrigger)));
        assert_eq!(accepted.aimless(&all), ["x"]);
        let found = [difference("a.c", "empty", Kind::Outrigger)];
        assert_eq!(accepted.unneeded(&found), ["x"]);
        assert_eq!(accepted.unneeded(&[]), ["*.c", "x"]);
    }

    #[test]
    fn an_entry_needs_a_reason_and_a_refuser() {
        for file in [
            "- {refuses: envoy, fields: [a], changes: [empty], reason: ''}",
            "- {refuses: nobody, fields: [a], changes: [empty], reason: because}",
        ] {
            assert!(Accepted::parse(file).is_err(), "{file}");
        }
    }
}
