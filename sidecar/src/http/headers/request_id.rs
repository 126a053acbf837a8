//! `x-request-id`.

use http::header::{HeaderMap, HeaderValue};

use super::X_REQUEST_ID;
use crate::config::http_connection_manager::HttpConnectionManager;

pub(super) fn request_id(headers: &mut HeaderMap, config: &HttpConnectionManager, internal: bool) {
    if !config.generate_request_id {
        return;
    }
    let edge = config.use_remote_address && !internal;
    let replace = edge && !config.preserve_external_request_id;
    if replace || !headers.contains_key(X_REQUEST_ID) {
        headers.insert(X_REQUEST_ID, new_request_id());
    }
}

/// A random UUID (version 4).
fn new_request_id() -> HeaderValue {
    let random = fastrand::u128(..);
    let random = random & !(0xf << 76) | (4 << 76);
    let random = random & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut digits = (0..32).rev().map(|digit| ((random >> (4 * digit)) & 0xf) as u8);
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            let digit = digits.next().unwrap_or_default();
            *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
