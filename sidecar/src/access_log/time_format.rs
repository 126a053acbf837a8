//! Times in the formats of `%START_TIME(…)%`: strftime with Envoy's fractions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{Month, OffsetDateTime, Weekday};

use super::operator::push_number;

/// `2026-11-24T05:38:00.226Z`
pub(super) fn default(at: SystemTime, out: &mut Vec<u8>) {
    let (utc, nanos) = split(at);
    date(&utc, out);
    out.push(b'T');
    clock(&utc, out);
    out.push(b'.');
    padded(out, nanos / 1_000_000, 3);
    out.push(b'Z');
}

/// A strftime format in UTC. Beside the usual conversions: `%s` seconds since the epoch, `%f` and `%1f` to `%9f` the
/// fraction, `%E3S` and `%E*S` seconds with their fraction, `%Ez` the offset with a colon. What is not known is copied.
pub(super) fn custom(format: &str, at: SystemTime, out: &mut Vec<u8>) {
    let (utc, nanos) = split(at);
    let mut rest = format.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let used = conversion(rest, &utc, nanos, out);
        match used {
            Some(length) => rest = rest.get(length..).unwrap_or_default(),
            None => out.push(b'%'),
        }
    }
}

/// Appends one conversion and says how many bytes behind the `%` it took.
fn conversion(rest: &[u8], utc: &OffsetDateTime, nanos: u32, out: &mut Vec<u8>) -> Option<usize> {
    match rest {
        [digit @ b'1'..=b'9', b'f', ..] => {
            fraction(out, nanos, usize::from(digit - b'0'));
            return Some(2);
        }
        [b'E', digit @ b'0'..=b'9', b'S', ..] => {
            padded(out, utc.second().into(), 2);
            if *digit > b'0' {
                out.push(b'.');
                fraction(out, nanos, usize::from(digit - b'0'));
            }
            return Some(3);
        }
        [b'E', digit @ b'1'..=b'9', b'f', ..] => {
            fraction(out, nanos, usize::from(digit - b'0'));
            return Some(3);
        }
        [b'E', b'*', b'S', ..] => {
            padded(out, utc.second().into(), 2);
            if nanos > 0 {
                out.push(b'.');
                let start = out.len();
                fraction(out, nanos, 9);
                while out.len() > start && out.last() == Some(&b'0') {
                    out.pop();
                }
            }
            return Some(3);
        }
        [b'E', b'z', ..] => {
            out.extend_from_slice(b"+00:00");
            return Some(2);
        }
        [b'E', b'4', b'Y', ..] => {
            padded(out, utc.year().unsigned_abs(), 4);
            return Some(3);
        }
        _ => {}
    }
    let hour12 = match utc.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    match rest.first()? {
        b'Y' => push_number(out, utc.year().unsigned_abs().into()),
        b'C' => padded(out, utc.year().unsigned_abs() / 100, 2),
        b'y' => padded(out, utc.year().unsigned_abs() % 100, 2),
        b'm' => padded(out, u8::from(utc.month()).into(), 2),
        b'd' => padded(out, utc.day().into(), 2),
        b'e' => spaced(out, utc.day()),
        b'j' => padded(out, utc.ordinal().into(), 3),
        b'H' => padded(out, utc.hour().into(), 2),
        b'k' => spaced(out, utc.hour()),
        b'I' => padded(out, hour12.into(), 2),
        b'l' => spaced(out, hour12),
        b'M' => padded(out, utc.minute().into(), 2),
        b'S' => padded(out, utc.second().into(), 2),
        b'p' => out.extend_from_slice(if utc.hour() < 12 { b"AM" } else { b"PM" }),
        b'P' => out.extend_from_slice(if utc.hour() < 12 { b"am" } else { b"pm" }),
        b'a' => out.extend_from_slice(&weekday(utc).as_bytes()[..3]),
        b'A' => out.extend_from_slice(weekday(utc).as_bytes()),
        b'b' | b'h' => out.extend_from_slice(&month(utc).as_bytes()[..3]),
        b'B' => out.extend_from_slice(month(utc).as_bytes()),
        b'u' => push_number(out, utc.weekday().number_from_monday().into()),
        b'w' => push_number(out, utc.weekday().number_days_from_sunday().into()),
        b'G' => push_number(out, iso_year(utc).into()),
        b'g' => padded(out, iso_year(utc) % 100, 2),
        b'V' => padded(out, utc.iso_week().into(), 2),
        b'U' => padded(out, utc.sunday_based_week().into(), 2),
        b'W' => padded(out, utc.monday_based_week().into(), 2),
        b'F' => date(utc, out),
        b'T' => clock(utc, out),
        b'R' => {
            padded(out, utc.hour().into(), 2);
            out.push(b':');
            padded(out, utc.minute().into(), 2);
        }
        b'D' => {
            padded(out, u8::from(utc.month()).into(), 2);
            out.push(b'/');
            padded(out, utc.day().into(), 2);
            out.push(b'/');
            padded(out, utc.year().unsigned_abs() % 100, 2);
        }
        b'c' => custom_into("%a %b %e %H:%M:%S %Y", utc, nanos, out),
        b'r' => custom_into("%I:%M:%S %p", utc, nanos, out),
        b'x' => custom_into("%m/%d/%y", utc, nanos, out),
        b'X' => clock(utc, out),
        b'z' => out.extend_from_slice(b"+0000"),
        b'Z' => out.extend_from_slice(b"UTC"),
        b's' => push_number(out, u64::try_from(utc.unix_timestamp()).unwrap_or(0)),
        b'f' => fraction(out, nanos, 9),
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'%' => out.push(b'%'),
        _ => return None,
    }
    Some(1)
}

fn custom_into(format: &str, utc: &OffsetDateTime, nanos: u32, out: &mut Vec<u8>) {
    let at = UNIX_EPOCH + Duration::new(u64::try_from(utc.unix_timestamp()).unwrap_or(0), nanos);
    custom(format, at, out);
}

fn split(at: SystemTime) -> (OffsetDateTime, u32) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let utc = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Envoy's clock counts microseconds: what is finer would show in `%f` and `%E*S` only.
    (utc, since.subsec_micros() * 1000)
}

fn iso_year(utc: &OffsetDateTime) -> u32 {
    utc.to_iso_week_date().0.unsigned_abs()
}

fn date(utc: &OffsetDateTime, out: &mut Vec<u8>) {
    padded(out, utc.year().unsigned_abs(), 4);
    out.push(b'-');
    padded(out, u8::from(utc.month()).into(), 2);
    out.push(b'-');
    padded(out, utc.day().into(), 2);
}

fn clock(utc: &OffsetDateTime, out: &mut Vec<u8>) {
    padded(out, utc.hour().into(), 2);
    out.push(b':');
    padded(out, utc.minute().into(), 2);
    out.push(b':');
    padded(out, utc.second().into(), 2);
}

/// The first `digits` digits of the fraction of a second.
fn fraction(out: &mut Vec<u8>, nanos: u32, digits: usize) {
    padded(out, nanos / 10u32.pow(9 - digits.min(9) as u32), digits);
}

fn padded(out: &mut Vec<u8>, number: u32, width: usize) {
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits)));
    push_number(out, number.into());
}

fn spaced(out: &mut Vec<u8>, number: u8) {
    if number < 10 {
        out.push(b' ');
    }
    push_number(out, number.into());
}

fn weekday(utc: &OffsetDateTime) -> &'static str {
    match utc.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

fn month(utc: &OffsetDateTime) -> &'static str {
    match utc.month() {
        Month::January => "January",
        Month::February => "February",
        Month::March => "March",
        Month::April => "April",
        Month::May => "May",
        Month::June => "June",
        Month::July => "July",
        Month::August => "August",
        Month::September => "September",
        Month::October => "October",
        Month::November => "November",
        Month::December => "December",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_795_498_680, 6_070_809)
    }

    fn text(format: &str) -> String {
        let mut out = Vec::new();
        custom(format, at(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_is_iso_8601_with_milliseconds() {
        let mut out = Vec::new();
        default(at(), &mut out);
        assert_eq!(out, b"2026-11-24T05:38:00.006Z");
    }

    #[test]
    fn conversions_are_those_of_strftime_with_fractions() {
        assert_eq!(text("%Y/%m/%dT%H:%M:%S%z %s"), "2026/11/24T05:38:00+0000 1795498680");
        assert_eq!(text("%s.%3f %6f %9f %f"), "1795498680.006 006070 006070000 006070000");
        assert_eq!(text("%E3S %E0S %E*S %Ez"), "00.006 00 00.00607 +00:00");
        assert_eq!(text("%a %A %b %B %e %j %p %I"), "Tue Tuesday Nov November 24 328 AM 05");
        assert_eq!(text("%F %T %R %D %y %Z %%"), "2026-11-24 05:38:00 05:38 11/24/26 26 UTC %");
        assert_eq!(text("%q at %"), "%q at %");
    }
}
