//! Values that are worked out from others.

use std::borrow::Cow;
use std::time::Duration;

use super::operator::Value;
use super::record::{LogRecord, ORIGINAL_PATH};
use crate::config::access_log::{DurationUnit, TimePoint, WhichPath};

/// A moment, as time since the start.
fn moment(point: TimePoint, record: &LogRecord<'_>) -> Option<Duration> {
    match point {
        TimePoint::DownstreamRxBegin => Some(Duration::ZERO),
        TimePoint::DownstreamRxEnd => record.request_duration,
        TimePoint::UpstreamTxBegin => record.request_tx_begin,
        TimePoint::UpstreamTxEnd => record.request_tx_duration,
        // A response is passed on as it comes.
        TimePoint::UpstreamRxBegin | TimePoint::DownstreamTxBegin => record.response_duration,
        TimePoint::UpstreamRxEnd => record.response_rx_duration,
        TimePoint::DownstreamTxEnd => record.duration,
    }
}

/// `%COMMON_DURATION%`
pub(super) fn between<'a>(
    from: TimePoint,
    to: TimePoint,
    unit: DurationUnit,
    record: &LogRecord<'_>,
) -> Value<'a> {
    let length =
        moment(from, record).zip(moment(to, record)).and_then(|(from, to)| to.checked_sub(from));
    let Some(length) = length else { return Value::Missing };
    let number = match unit {
        DurationUnit::Milliseconds => length.as_millis(),
        DurationUnit::Microseconds => length.as_micros(),
        DurationUnit::Nanoseconds => length.as_nanos(),
    };
    Value::Number(u64::try_from(number).unwrap_or(u64::MAX))
}

/// `%PATH%`
pub(super) fn path<'a>(query: bool, which: WhichPath, record: &LogRecord<'a>) -> Value<'a> {
    let original = || record.request_headers.get(&ORIGINAL_PATH).map(http::HeaderValue::as_bytes);
    let current = record.path.map(str::as_bytes);
    let path = match which {
        WhichPath::Original => original(),
        WhichPath::Current => current,
        WhichPath::OriginalOrCurrent => original().or(current),
    };
    let Some(path) = path else { return Value::Missing };
    let end = path.iter().position(|byte| *byte == b'?').filter(|_| !query);
    Value::Text(path.get(..end.unwrap_or(path.len())).unwrap_or_default())
}

/// `%QUERY_PARAM%`: the first parameter of that name, decoded.
pub(super) fn query_parameter<'a>(name: &str, record: &LogRecord<'a>) -> Value<'a> {
    let query = record.path.and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let value = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find_map(|(key, value)| (*decoded(key, false) == *name.as_bytes()).then_some(value));
    match value.map(|value| decoded(value, false)) {
        None => Value::Missing,
        Some(Cow::Borrowed(text)) => Value::Text(text),
        Some(Cow::Owned(text)) => Value::Owned(text),
    }
}

/// `%QUERY_PARAMS%`: what stands behind the question mark.
pub(super) fn query_parameters<'a>(decode: bool, record: &LogRecord<'a>) -> Value<'a> {
    let Some((_, query)) = record.path.and_then(|path| path.split_once('?')) else {
        return Value::Missing;
    };
    if !decode {
        return Value::Text(query.as_bytes());
    }
    match decoded(query, true) {
        Cow::Borrowed(text) => Value::Text(text),
        Cow::Owned(text) => Value::Owned(text),
    }
}

/// Text without what is encoded with percent signs. `shown`: but what cannot stand in a URL stays encoded, so that the line
/// can be read; a percent sign that encodes nothing goes then, as in Envoy, unless it is too near to the end.
fn decoded(text: &str, shown: bool) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let (b'%', [high, low, behind @ ..]) = (first, after) else {
            out.push(first);
            continue;
        };
        match digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low) {
            Some(byte) if !shown || is_shown(byte) => out.push(byte),
            Some(_) => out.extend_from_slice(&[first, *high, *low]),
            None => {
                if !shown {
                    out.push(first);
                }
                continue;
            }
        }
        rest = behind;
    }
    Cow::Owned(out)
}

/// Whether a character may stand in a URL, reserved or not (RFC 3986), in Envoy's reading.
fn is_shown(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'{' | b'|' | b'}')
}

/// `%UNIQUE_ID%`: a random UUID (version 4), another in each place of each line.
pub(crate) fn unique_id() -> String {
    let id = fastrand::u128(..) & !(0xf << 76) | (4 << 76);
    let id = id & !(0x3 << 62) | (0x2 << 62);
    let digits = format!("{id:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_stand_in_a_url_stays_encoded_where_it_is_shown() {
        for (text, plain, shown) in [
            ("a=%41+%zz", &b"a=A+%zz"[..], &b"a=A+zz"[..]),
            ("a=%20x%22", b"a= x\"", b"a=%20x%22"),
            ("a=%4&b=%", b"a=%4&b=%", b"a=4&b=%"),
            ("a=%C3%A9%00", b"a=\xc3\xa9\0", b"a=%C3%A9%00"),
            ("a=b", b"a=b", b"a=b"),
        ] {
            assert_eq!(&*decoded(text, false), plain, "{text}");
            assert_eq!(&*decoded(text, true), shown, "{text}");
        }
    }
}
