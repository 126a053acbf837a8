//! Points in time as people want them: how long ago, how long still.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long ago an RFC 3339 time was: `0.3s`, `12s`, `4m12s`, `3h`, `5d`. Empty when it is no such time.
pub(crate) fn age(rfc3339: &str) -> String {
    between(rfc3339, |at, now| now - at)
}

/// How long until then; `0s` when it is over.
pub(crate) fn left(rfc3339: &str) -> String {
    between(rfc3339, |at, now| at - now)
}

/// Seconds since an RFC 3339 time; `None` when it is no such time.
pub(crate) fn seconds_since(rfc3339: &str) -> Option<f64> {
    let at = OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?;
    Some((OffsetDateTime::now_utc() - at).as_seconds_f64())
}

fn between(
    rfc3339: &str,
    span: impl Fn(OffsetDateTime, OffsetDateTime) -> time::Duration,
) -> String {
    match OffsetDateTime::parse(rfc3339, &Rfc3339) {
        Ok(at) => short_duration(span(at, OffsetDateTime::now_utc()).as_seconds_f64()),
        Err(_) => String::new(),
    }
}

/// Seconds in at most two units.
pub(crate) fn short_duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds as u64;
    let two = |large: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => two(whole / 60, 'm', whole % 60, 's'),
        3600..86_400 => two(whole / 3600, 'h', whole % 3600 / 60, 'm'),
        _ => two(whole / 86_400, 'd', whole % 86_400 / 3600, 'h'),
    }
}
