//! The differences that we keep, with their reasons: `tests/accepted_differences.yaml`.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One fact in which the two proxies differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The step of the case.
    pub step: String,
    /// The field, as [`Observation`](super::Observation) names it.
    pub field: String,
    /// What was seen through Envoy.
    pub envoy: String,
    /// What was seen through our sidecar.
    pub outrigger: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { step, field, envoy, outrigger } = self;
        write!(out, "    {step}: {field}\n      envoy     = {envoy}\n      outrigger = {outrigger}")
    }
}

/// An entry of the file. `*` stands for any text in every pattern.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Patterns of `GROUP/CASE`; each must still occur.
    cases: Vec<String>,
    /// Pattern of the field.
    field: String,
    /// Pattern of Envoy's value.
    envoy: String,
    /// Pattern of ours.
    outrigger: String,
    /// Why we keep it.
    reason: String,
}

/// The entries of one group.
pub struct Accepted {
    group: String,
    entries: Vec<Entry>,
    used: Vec<(usize, usize)>,
}

impl Accepted {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or not a list of complete entries.
    pub fn read(group: &str) -> Result<Accepted> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accepted_differences.yaml");
        let text = std::fs::read_to_string(&path).context("tests/accepted_differences.yaml")?;
        Accepted::parse(group, &text)
    }

    fn parse(group: &str, text: &str) -> Result<Accepted> {
        let entries: Vec<Entry> =
            serde_saphyr::from_str(text).context("tests/accepted_differences.yaml")?;
        if let Some(entry) = entries.iter().find(|entry| entry.reason.trim().is_empty()) {
            anyhow::bail!("accepted difference without a reason: {}", entry.field);
        }
        Ok(Accepted { group: group.to_owned(), entries, used: Vec::new() })
    }

    /// Every group that the file names.
    ///
    /// # Errors
    /// As [`Accepted::read`].
    pub fn groups() -> Result<Vec<String>> {
        let accepted = Accepted::read("")?;
        let patterns = accepted.entries.iter().flat_map(|entry| &entry.cases);
        Ok(patterns.map(|pattern| group_of(pattern).to_owned()).collect())
    }

    /// Whether an entry covers this difference; remembers that it was needed.
    pub(super) fn covers(&mut self, case: &str, difference: &Difference) -> bool {
        let name = format!("{}/{case}", self.group);
        let mut covered = false;
        for (index, entry) in self.entries.iter().enumerate() {
            if !matches(&entry.field, &difference.field)
                || !matches(&entry.envoy, &difference.envoy)
                || !matches(&entry.outrigger, &difference.outrigger)
            {
                continue;
            }
            for (which, pattern) in entry.cases.iter().enumerate() {
                if matches(pattern, &name) {
                    covered = true;
                    self.used.push((index, which));
                }
            }
        }
        covered
    }

    /// Entries of this group that covered nothing.
    pub(super) fn unused(&self) -> Vec<String> {
        let mut unused = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            for (which, pattern) in entry.cases.iter().enumerate() {
                if group_of(pattern) == self.group && !self.used.contains(&(index, which)) {
                    unused.push(format!("{pattern}, {}", entry.field));
                }
            }
        }
        unused
    }
}

fn group_of(pattern: &str) -> &str {
    pattern.split('/').next().unwrap_or_default()
}

/// Whether `text` fits `pattern`, in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
- cases: ["g/a*", "g/z"]
  field: "header.*"
  envoy: "<absent>"
  outrigger: "*"
  reason: because
"#;

    fn difference(field: &str, envoy: &str) -> Difference {
        Difference {
            step: String::new(),
            field: field.to_owned(),
            envoy: envoy.to_owned(),
            outrigger: "x".to_owned(),
        }
    }

    #[test]
    fn only_what_an_entry_describes_is_covered() {
        let mut accepted = Accepted::parse("g", FILE).unwrap();
        assert!(accepted.covers("abc", &difference("header.x", "<absent>")));
        assert!(!accepted.covers("abc", &difference("header.x", "there")));
        assert!(!accepted.covers("abc", &difference("status", "<absent>")));
        assert!(!accepted.covers("bc", &difference("header.x", "<absent>")));
    }

    #[test]
    fn a_pattern_that_covered_nothing_is_reported() {
        let mut accepted = Accepted::parse("g", FILE).unwrap();
        accepted.covers("abc", &difference("header.x", "<absent>"));
        assert_eq!(accepted.unused(), ["g/z, header.*"]);
    }

    #[test]
    fn an_entry_needs_a_reason() {
        assert!(Accepted::parse("g", &FILE.replace("because", "\"\"")).is_err());
    }

    #[test]
    fn stars_match_any_text() {
        assert!(matches("a*c*e", "abcde"));
        assert!(matches("*", ""));
        assert!(!matches("a*c", "abcd"));
        assert!(!matches("abc", "abcd"));
    }
}
