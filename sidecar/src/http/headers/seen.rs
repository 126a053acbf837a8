//! Which special headers a message has, found in one pass.

use http::HeaderMap;

/// Which special headers a message has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen(u32);

impl Seen {
    pub(super) const CONNECTION: u32 = 1;
    pub(super) const KEEP_ALIVE: u32 = 1 << 1;
    pub(super) const PROXY_CONNECTION: u32 = 1 << 2;
    pub(super) const TE: u32 = 1 << 3;
    pub(super) const TRANSFER_ENCODING: u32 = 1 << 4;
    pub(super) const UPGRADE: u32 = 1 << 5;
    pub(super) const EXPECT: u32 = 1 << 6;
    pub(super) const COOKIE: u32 = 1 << 7;
    pub(super) const X_ENVOY: u32 = 1 << 8;
    pub(super) const XFCC: u32 = 1 << 9;
    pub(super) const UNDERSCORE: u32 = 1 << 10;
    pub(super) const HTTP2_SETTINGS: u32 = 1 << 11;
    pub(super) const CONTENT_LENGTH: u32 = 1 << 12;

    pub(super) const HOP_BY_HOP: u32 = Self::CONNECTION
        | Self::KEEP_ALIVE
        | Self::PROXY_CONNECTION
        | Self::TE
        | Self::TRANSFER_ENCODING
        | Self::UPGRADE
        | Self::HTTP2_SETTINGS;

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut seen = 0;
        for name in headers.keys() {
            let name = name.as_str();
            seen |= match name {
                "connection" => Self::CONNECTION,
                "keep-alive" => Self::KEEP_ALIVE,
                "proxy-connection" => Self::PROXY_CONNECTION,
                "te" => Self::TE,
                "transfer-encoding" => Self::TRANSFER_ENCODING,
                "upgrade" => Self::UPGRADE,
                "expect" => Self::EXPECT,
                "cookie" => Self::COOKIE,
                "x-forwarded-client-cert" => Self::XFCC,
                "http2-settings" => Self::HTTP2_SETTINGS,
                "content-length" => Self::CONTENT_LENGTH,
                _ if name.starts_with("x-envoy-") => Self::X_ENVOY,
                _ => 0,
            };
            if name.contains('_') {
                seen |= Self::UNDERSCORE;
            }
        }
        Self(seen)
    }

    pub(super) fn any(self, which: u32) -> bool {
        self.0 & which != 0
    }

    /// The others.
    pub(super) fn without(self, which: u32) -> Self {
        Self(self.0 & !which)
    }
}
