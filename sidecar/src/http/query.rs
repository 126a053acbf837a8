//! Query strings.

use std::borrow::Cow;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;

/// Names and values as they stand in the query (without `?`).
pub(crate) fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A name or value without its percent signs. What they do not encode well stays as it is.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = match (first, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)).map(|(h, l)| h << 4 | l),
            _ => None,
        };
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Gives a request another query; an empty one is none.
pub(crate) fn replace(request: &mut Parts, query: Cow<'_, str>) {
    let path = request.uri.path();
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    // What is left of a target that was one is one as well.
    if let Ok(target) = PathAndQuery::try_from(target) {
        request.uri = Uri::from(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_where_they_encode_something() {
        for (text, expected) in
            [("a%2Db", "a-b"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%C3%A4", "ä")]
        {
            assert_eq!(decoded(text), expected);
        }
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }

    #[test]
    fn parameters_come_in_their_order() {
        let all: Vec<_> = parameters(Some("a=1&&b&c=2=3")).collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("c", "2=3")]);
    }
}
