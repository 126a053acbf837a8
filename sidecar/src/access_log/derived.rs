//! Values that are worked out from others.

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

/// `%QUERY_PARAM%`: the first parameter of that name, as it stands in the URL.
pub(super) fn query_parameter<'a>(name: &str, record: &LogRecord<'a>) -> Value<'a> {
    let query = record.path.and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let value = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find_map(|(key, value)| (key == name).then_some(value));
    value.map_or(Value::Missing, |value| Value::Text(value.as_bytes()))
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
