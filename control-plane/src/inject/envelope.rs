//! The original inside of an injected file: comment lines at its end, from which it can be restored byte for byte.
//!
//! ```yaml
//! x-outrigger: {version: 0.1.0, injected: "sha256:...", original: "sha256:..."}
//! # The file as it was before `outrigger inject`; `outrigger uninject` restores it. Edit there, and inject again.
//! #| services:
//! #|   web:
//! #|     image: shop/web
//! ```
//! A text that comment lines cannot hold (a lone carriage return is a line break to some parsers, and so on) is there in
//! base64, behind `#=`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The key of the mark.
pub(super) const MARK: &str = "x-outrigger";
const EXPLANATION: &str = "# The file as it was before `outrigger inject`; `outrigger uninject` restores it. Edit that, and inject again.\n";
const PLAIN: &str = "#|";
const ENCODED: &str = "#=";
/// The last line of a text that does not end with a line break is followed by this one.
const NO_BREAK: &str = "#\\ no line break at the end";

/// Why there is no original to restore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The file was not made by `outrigger inject`.
    #[error("this is no file that `outrigger inject` made: it has no `{MARK}`")]
    NotInjected,
    /// The lines with the original were changed.
    #[error(
        "the original at the end of the file is not what was put there: its lines were changed, or some are missing"
    )]
    Damaged,
}

/// What an injected file says of its original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The file as it was before.
    pub original: String,
    /// The file was changed after it was injected; nothing of that is in the original.
    pub edited: bool,
}

/// `body` with the mark and the original behind it.
pub(super) fn seal(body: String, original: &str) -> String {
    let (version, injected) = (env!("CARGO_PKG_VERSION"), digest(&body));
    let mut text = body;
    text.push_str(&format!(
        "{MARK}: {{version: {version}, injected: \"{injected}\", original: \"{}\"}}\n",
        digest(original)
    ));
    text.push_str(EXPLANATION);
    if original.chars().all(fits_a_comment) {
        for line in original.split_inclusive('\n') {
            text.push_str(PLAIN);
            if !line.trim_end_matches('\n').is_empty() {
                text.push(' ');
            }
            text.push_str(line);
        }
        if !original.ends_with('\n') {
            text.push('\n');
            text.push_str(NO_BREAK);
            text.push('\n');
        }
    } else {
        let encoded = STANDARD.encode(original);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(100));
            text.push_str(ENCODED);
            text.push(' ');
            text.push_str(line);
            text.push('\n');
            rest = behind;
        }
    }
    text
}

/// Whether a file was made by `outrigger inject`.
pub(super) fn is_sealed(text: &str) -> bool {
    mark(text).is_some()
}

/// Where the line with the mark begins.
fn mark(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.strip_prefix(MARK).is_some_and(|rest| rest.starts_with(':')) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// The original inside of an injected file.
///
/// # Errors
/// See [`RestoreError`].
pub(super) fn open(text: &str) -> Result<Opened, RestoreError> {
    let start = mark(text).ok_or(RestoreError::NotInjected)?;
    let (body, sealed) = text.split_at(start);
    let mut lines = sealed.split('\n');
    let wanted = lines.next().unwrap_or_default();
    let mut original = String::new();
    let mut encoded = String::new();
    for line in lines {
        if let Some(line) = line.strip_prefix(PLAIN) {
            original.push_str(line.strip_prefix(' ').unwrap_or(line));
            original.push('\n');
        } else if let Some(line) = line.strip_prefix(ENCODED) {
            encoded.push_str(line.trim());
        } else if line == NO_BREAK {
            original.pop();
        }
    }
    if !encoded.is_empty() {
        let bytes = STANDARD.decode(encoded).map_err(|_| RestoreError::Damaged)?;
        original = String::from_utf8(bytes).map_err(|_| RestoreError::Damaged)?;
    }
    if !wanted.contains(&format!("original: \"{}\"", digest(&original))) {
        return Err(RestoreError::Damaged);
    }
    let edited = !wanted.contains(&format!("injected: \"{}\"", digest(body)));
    Ok(Opened { original, edited })
}

/// Printable in every version of YAML, and no line break but `\n`.
fn fits_a_comment(c: char) -> bool {
    matches!(c, '\n' | '\t')
        || !(c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_changed_is_not_restored() {
        let sealed = seal("a: b\n".to_owned(), "services:\n  a: {}\n");
        assert!(is_sealed(&sealed) && !open(&sealed).unwrap().edited);
        assert!(open(&sealed.replace("a: b", "a: c")).unwrap().edited);
        assert_eq!(open(&sealed.replace("#|   a", "#|   b")), Err(RestoreError::Damaged));
        assert_eq!(open("services: {}\n"), Err(RestoreError::NotInjected));
        assert_eq!(open("x-outriggers: {}\n"), Err(RestoreError::NotInjected));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_byte_for_byte(text in "(?s)([ -~]|\n|\t|\r|\\PC|\u{2028}|.){0,200}") {
            let opened = open(&seal("a: b\n".to_owned(), &text)).unwrap();
            prop_assert_eq!(opened, Opened { original: text, edited: false });
        }
    }
}
