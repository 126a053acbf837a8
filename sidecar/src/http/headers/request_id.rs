//! `x-request-id`.

use http::header::{Entry, HeaderMap, HeaderValue};

use super::X_REQUEST_ID;
use crate::config::http_connection_manager::HttpConnectionManager;

pub(super) fn request_id(headers: &mut HeaderMap, config: &HttpConnectionManager, internal: bool) {
    if !config.generate_request_id {
        return;
    }
    let edge = config.use_remote_address && !internal;
    let replace = edge && !config.preserve_external_request_id;
    // One look-up for both: a request without an id is the usual one.
    match headers.entry(X_REQUEST_ID) {
        Entry::Vacant(entry) => {
            entry.insert(new_request_id());
        }
        Entry::Occupied(mut entry) if replace => {
            entry.insert(new_request_id());
        }
        Entry::Occupied(_) => {}
    }
}

/// A random UUID (version 4).
fn new_request_id() -> HeaderValue {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let random = fastrand::u128(..);
    let random = random & !(0xf << 76) | (4 << 76);
    let random = random & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut rest = &mut text[..];
    for (at, byte) in random.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            rest = std::mem::take(&mut rest).split_first_mut().map_or(&mut [], |(_, rest)| rest);
        }
        let Some((digits, after)) = std::mem::take(&mut rest).split_first_chunk_mut::<2>() else {
            break;
        };
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
        rest = after;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_4_in_small_letters() {
        for _ in 0..1000 {
            let id = new_request_id();
            let id = id.as_bytes();
            assert_eq!(id.len(), 36);
            for (at, byte) in id.iter().enumerate() {
                match at {
                    8 | 13 | 18 | 23 => assert_eq!(*byte, b'-'),
                    14 => assert_eq!(*byte, b'4'),
                    19 => assert!(b"89ab".contains(byte), "{byte}"),
                    _ => assert!(matches!(byte, b'0'..=b'9' | b'a'..=b'f'), "{byte}"),
                }
            }
            assert_ne!(new_request_id().as_bytes(), id);
        }
    }
}
