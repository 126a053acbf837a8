//! What a span is, and how its context is written in headers (W3C Trace Context).

use std::borrow::Cow;
use std::time::SystemTime;

use http::HeaderValue;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request that came in.
    Server,
    /// A request that went out.
    Client,
}

/// Sixteen bytes, as lower-case hexadecimal.
pub(crate) type TraceId = Hex<32>;
/// Eight bytes, as lower-case hexadecimal.
pub(crate) type SpanId = Hex<16>;

/// An id as the digits that it is written in: logs and headers have it so, and few spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl<const DIGITS: usize> Hex<DIGITS> {
    /// An id of chance that is not all zeros, which would be none.
    pub(crate) fn random() -> Self {
        let random = fastrand::u128(1..) | 1 << (4 * DIGITS - 1);
        let mut digits = [b'0'; DIGITS];
        for (at, digit) in digits.iter_mut().rev().enumerate() {
            *digit = hex_digit((random >> (4 * at)) as u8 & 0xf);
        }
        Self(digits)
    }

    /// From the digits in a header; `None` if they are of another number, none, or all zeros.
    fn parse(digits: &[u8]) -> Option<Self> {
        let digits: [u8; DIGITS] = digits.try_into().ok()?;
        let is_id = digits.iter().all(u8::is_ascii_hexdigit) && digits.iter().any(|it| *it != b'0');
        is_id.then(|| Self(digits.map(|digit| digit.to_ascii_lowercase())))
    }

    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        // They are ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        self.0
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, it| byte << 4 | value(*it)))
            .collect()
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

/// Where a span stands in its trace: what is passed on to the next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpanContext {
    /// The trace.
    pub(crate) trace: TraceId,
    /// The span in it.
    pub(crate) span: SpanId,
    /// Whoever sees it should record its own spans.
    pub(crate) sampled: bool,
    /// What vendors keep in it, as it came.
    pub(crate) state: HeaderValue,
}

impl SpanContext {
    /// Reads `traceparent`, and `tracestate` if there is one.
    ///
    /// `None` if it is not one that can be continued: as in Envoy the request is then not traced, and its headers are left
    /// alone.
    pub(crate) fn parse(parent: &HeaderValue, state: Option<&HeaderValue>) -> Option<Self> {
        let text = parent.as_bytes();
        let (version, rest) = text.split_at_checked(2)?;
        let [b'-', rest @ ..] = rest else { return None };
        let (trace, rest) = rest.split_at_checked(32)?;
        let [b'-', rest @ ..] = rest else { return None };
        let (span, rest) = rest.split_at_checked(16)?;
        let [b'-', flags @ ..] = rest else { return None };
        let [high, low] = flags else { return None };
        if !version.iter().chain([high, low]).all(u8::is_ascii_hexdigit) {
            return None;
        }
        Some(Self {
            trace: Hex::parse(trace)?,
            span: Hex::parse(span)?,
            sampled: char::from(*low).to_digit(16)? & 1 == 1,
            state: state.cloned().unwrap_or(HeaderValue::from_static("")),
        })
    }

    /// The value of `traceparent`.
    pub(crate) fn to_parent(&self) -> HeaderValue {
        let mut text = [b'-'; 55];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.trace.0);
        text[36..52].copy_from_slice(&self.span.0);
        text[53..].copy_from_slice(if self.sampled { b"01" } else { b"00" });
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A finished span.
#[derive(Debug)]
pub(crate) struct Span {
    /// Where it stands.
    pub(crate) context: SpanContext,
    /// The span that it belongs to.
    pub(crate) parent: Option<SpanId>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) start: SystemTime,
    pub(crate) end: SystemTime,
    /// Each key once.
    pub(crate) attributes: Vec<(Cow<'static, str>, String)>,
    /// In order of time.
    pub(crate) events: Vec<(&'static str, SystemTime)>,
    /// It failed.
    pub(crate) failed: bool,
}

impl Span {
    /// Sets an attribute, which takes the place of an earlier one of the same key.
    pub(crate) fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.attributes.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Option<SpanContext> {
        SpanContext::parse(&HeaderValue::from_str(text).unwrap(), None)
    }

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = parse(PARENT).unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_parent(), PARENT);
        let unsampled = PARENT.replace("-01", "-02");
        assert_eq!(parse(&unsampled).unwrap().to_parent(), PARENT.replace("-01", "-00"));
    }

    #[test]
    fn what_is_no_context_is_not_continued() {
        for wrong in [
            "",
            "00-zz",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_of_chance_are_whole_and_differ() {
        let ids: Vec<TraceId> = (0..100).map(|_| Hex::random()).collect();
        for id in &ids {
            assert_eq!(Hex::parse(id.as_str().as_bytes()), Some(*id));
            assert_eq!(id.to_bytes().len(), 16);
        }
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(parse(PARENT).unwrap().span.to_bytes()[..2], [0xb7, 0xad]);
    }
}
