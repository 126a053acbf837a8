//! Durations as people write them: `500ms`, `30s`, `5m`, `24h`, or several units from large to small, `1h30m`
//! (the format of the Kubernetes Gateway API, GEP-2257).

use serde::Serializer;
use std::time::Duration;

/// The longest duration there is: ten years, far below where any wire format overflows.
pub const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Units, from large to small, with their milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration. A bare number has no unit and is refused, as are signs, fractions and spaces.
///
/// # Errors
/// With the reason, in words that fit behind "the field ...".
pub fn parse(text: &str) -> Result<Duration, String> {
    let malformed = || {
        format!(
            "`{text}` is not a duration: a whole number and a unit, `ms`, `s`, `m` or `h`, like `500ms`, `30s` or `1h30m`"
        )
    };
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(malformed)?;
        if index < next_unit {
            return Err(malformed());
        }
        next_unit = index + 1;
        total = UNITS
            .get(index)
            .and_then(|(_, factor)| number.checked_mul(*factor))
            .and_then(|part| total.checked_add(part))
            .unwrap_or(u64::MAX);
        rest = tail;
    }
    if next_unit == 0 {
        return Err(malformed());
    }
    let duration = Duration::from_millis(total);
    if duration > MAX {
        return Err(format!("`{text}` is longer than {}", format(MAX)));
    }
    Ok(duration)
}

/// Prints a duration in the largest unit that holds it exactly. [`parse`] reads it back.
pub fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    for (name, factor) in UNITS {
        if milliseconds.is_multiple_of(u128::from(factor)) {
            return format!("{}{name}", milliseconds / u128::from(factor));
        }
    }
    format!("{milliseconds}ms")
}

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(serialize_with)]` on an optional field that is skipped when absent.
pub(crate) fn serialize_optional<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_is_whole_numbers_with_units_from_large_to_small() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_the_text_in_the_reason() {
        for text in [
            "", "5", "-5s", "+5s", "1.5s", "5 s", "s", "5S", "5d", "5us", "1m1h", "1s1s", "5s ",
            "٣s",
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.starts_with(&format!("`{text}` is not a duration")), "{reason}");
        }
    }

    #[test]
    fn a_duration_beyond_ten_years_is_refused_and_never_overflows() {
        for text in ["87601h", "18446744073709551615h", "18446744073709551615h1m"] {
            assert!(parse(text).unwrap_err().contains("longer than 87600h"));
        }
        assert_eq!(parse("87600h"), Ok(MAX));
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(milliseconds in 0u64..=315_360_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = parse(&text);
        }
    }
}
