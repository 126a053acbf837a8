//! The text of a NACK.

use crate::xds::Refusal;

/// Longest text of a NACK. A server logs it for each client: it has to name what is bad, not to be complete.
pub(super) const NACK_TEXT_LIMIT: usize = 8 << 10;

/// The text of a NACK: every bad resource with type, name, field and reason, a line each.
pub(super) fn describe(refused: &[Refusal]) -> String {
    let mut text = String::new();
    let mut lines = refused.iter().flat_map(|refusal| {
        let Refusal { kind, name, rejected } = refusal;
        rejected.iter().map(move |rejected| format!("{kind} {name:?}: {rejected}"))
    });
    while let Some(line) = lines.next() {
        if text.len() + line.len() > NACK_TEXT_LIMIT && !text.is_empty() {
            text.push_str(&format!("\n... and {} more", 1 + lines.count()));
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.extend(line.chars().take(NACK_TEXT_LIMIT));
    }
    text
}
