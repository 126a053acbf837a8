//! Socket options: what a configuration may set on a socket beyond its own fields.
//!
//! Envoy passes any level, name and value to the kernel. Here each option has a type and is set by name, so the list is
//! closed: an option that is not on it is refused.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A validated `envoy.config.core.v3.SocketOption`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    /// Which, with its value.
    pub what: What,
    /// When it is set.
    pub state: State,
    /// The sockets of which IP version have it; `None`: of both.
    pub ipv6: Option<bool>,
}

/// Envoy's `SocketState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Before the socket is bound.
    Prebind,
    /// Once it is bound.
    Bound,
    /// Once it listens.
    Listening,
}

/// An option with its value, by the name of Linux's constant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named as in socket(7), tcp(7), ip(7), ipv6(7)
pub enum What {
    ReuseAddress(bool),
    SendBuffer(usize),
    ReceiveBuffer(usize),
    Keepalive(bool),
    ReusePort(bool),
    BindToDevice(Box<[u8]>),
    Mark(u32),
    NoDelay(bool),
    KeepIdle(Duration),
    KeepInterval(Duration),
    KeepCount(u32),
    UserTimeout(Duration),
    TypeOfService(u32),
    TimeToLive(u32),
    Freebind(bool),
    Transparent(bool),
    TrafficClass(u32),
    FreebindV6(bool),
    TransparentV6(bool),
}

/// The options that there are: level, name, and what they are called.
pub(super) const KNOWN: &[(i64, i64, &str)] = &[
    (1, 2, "SOL_SOCKET/SO_REUSEADDR"),
    (1, 7, "SO_SNDBUF"),
    (1, 8, "SO_RCVBUF"),
    (1, 9, "SO_KEEPALIVE"),
    (1, 15, "SO_REUSEPORT"),
    (1, 25, "SO_BINDTODEVICE"),
    (1, 36, "SO_MARK"),
    (6, 1, "IPPROTO_TCP/TCP_NODELAY"),
    (6, 4, "TCP_KEEPIDLE"),
    (6, 5, "TCP_KEEPINTVL"),
    (6, 6, "TCP_KEEPCNT"),
    (6, 18, "TCP_USER_TIMEOUT"),
    (0, 1, "IPPROTO_IP/IP_TOS"),
    (0, 2, "IP_TTL"),
    (0, 15, "IP_FREEBIND"),
    (0, 19, "IP_TRANSPARENT"),
    (41, 67, "IPPROTO_IPV6/IPV6_TCLASS"),
    (41, 78, "IPV6_FREEBIND"),
    (41, 75, "IPV6_TRANSPARENT"),
];

impl What {
    /// The option of this level and name with a number as its value; `None`: there is none, or the number does not fit.
    pub(super) fn of_number(level: i64, name: i64, value: i64) -> Option<Self> {
        let on = value != 0;
        let size = usize::try_from(value).ok();
        let number = u32::try_from(value).ok();
        let seconds = u64::try_from(value).ok().map(Duration::from_secs);
        Some(match (level, name) {
            (1, 2) => Self::ReuseAddress(on),
            (1, 7) => Self::SendBuffer(size?),
            (1, 8) => Self::ReceiveBuffer(size?),
            (1, 9) => Self::Keepalive(on),
            (1, 15) => Self::ReusePort(on),
            (1, 36) => Self::Mark(number?),
            (6, 1) => Self::NoDelay(on),
            (6, 4) => Self::KeepIdle(seconds?),
            (6, 5) => Self::KeepInterval(seconds?),
            (6, 6) => Self::KeepCount(number?),
            (6, 18) => Self::UserTimeout(Duration::from_millis(u64::try_from(value).ok()?)),
            (0, 1) => Self::TypeOfService(number?),
            (0, 2) => Self::TimeToLive(number?),
            (0, 15) => Self::Freebind(on),
            (0, 19) => Self::Transparent(on),
            (41, 67) => Self::TrafficClass(number?),
            (41, 78) => Self::FreebindV6(on),
            (41, 75) => Self::TransparentV6(on),
            _ => return None,
        })
    }

    /// The option of this level and name with bytes as its value: as a number, as the kernel reads one, or as a text.
    pub(super) fn of_bytes(level: i64, name: i64, value: &[u8]) -> Option<Self> {
        if (level, name) == (1, 25) {
            return Some(Self::BindToDevice(value.into()));
        }
        let number = <[u8; 4]>::try_from(value).ok().map(i32::from_ne_bytes)?;
        Self::of_number(level, name, i64::from(number))
    }

    fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match *self {
            Self::ReuseAddress(on) => socket.set_reuse_address(on),
            Self::SendBuffer(size) => socket.set_send_buffer_size(size),
            Self::ReceiveBuffer(size) => socket.set_recv_buffer_size(size),
            Self::Keepalive(on) => socket.set_keepalive(on),
            Self::ReusePort(on) => socket.set_reuse_port(on),
            Self::BindToDevice(ref name) => socket.bind_device(Some(name)),
            Self::Mark(mark) => socket.set_mark(mark),
            Self::NoDelay(on) => socket.set_tcp_nodelay(on),
            Self::KeepIdle(time) => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time)),
            Self::KeepInterval(interval) => {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_interval(interval))
            }
            Self::KeepCount(count) => {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_retries(count))
            }
            Self::UserTimeout(timeout) => socket.set_tcp_user_timeout(Some(timeout)),
            Self::TypeOfService(tos) => socket.set_tos_v4(tos),
            Self::TimeToLive(ttl) => socket.set_ttl_v4(ttl),
            Self::Freebind(on) => socket.set_freebind_v4(on),
            Self::Transparent(on) => socket.set_ip_transparent_v4(on),
            Self::TrafficClass(class) => socket.set_tclass_v6(class),
            Self::FreebindV6(on) => socket.set_freebind_v6(on),
            Self::TransparentV6(on) => socket.set_ip_transparent_v6(on),
        }
    }
}

/// Sets those options that belong to this moment and this kind of socket, in their order.
///
/// # Errors
/// What the system says to the first that it refuses.
pub fn apply(
    options: &[SocketOption],
    state: State,
    ipv6: bool,
    socket: &SockRef<'_>,
) -> io::Result<()> {
    options
        .iter()
        .filter(|option| option.state == state && option.ipv6.is_none_or(|only| only == ipv6))
        .try_for_each(|option| option.what.apply(socket))
}

/// The options for a socket that may be bound to, or receive for, addresses that are not this machine's.
///
/// # Errors
/// What the system says: `transparent` needs CAP_NET_ADMIN.
pub fn foreign_addresses(
    transparent: Option<bool>,
    freebind: Option<bool>,
    ipv6: bool,
    socket: &SockRef<'_>,
) -> io::Result<()> {
    if let Some(on) = transparent {
        if ipv6 { What::TransparentV6(on) } else { What::Transparent(on) }.apply(socket)?;
    }
    if let Some(on) = freebind {
        if ipv6 { What::FreebindV6(on) } else { What::Freebind(on) }.apply(socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_option_has_a_value_of_its_own() {
        for (level, name, text) in KNOWN {
            let known = match (level, name) {
                (1, 25) => What::of_bytes(1, 25, b"lo"),
                _ => What::of_number(*level, *name, 1),
            };
            assert!(known.is_some(), "{text}");
        }
        assert_eq!(What::of_number(6, 23, 1), None, "TCP_FASTOPEN is not on the list");
        assert_eq!(What::of_number(1, 36, -1), None);
    }

    #[test]
    fn bytes_are_a_number_as_the_kernel_reads_it() {
        let bytes = 7_i32.to_ne_bytes();
        assert_eq!(What::of_bytes(6, 6, &bytes), Some(What::KeepCount(7)));
        assert_eq!(What::of_bytes(6, 6, &bytes[..3]), None);
    }

    #[test]
    fn an_option_is_set_at_its_moment_and_on_its_kind_of_socket() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = SockRef::from(&socket);
        let keepalive = |state, ipv6| SocketOption { what: What::Keepalive(true), state, ipv6 };
        let options = [keepalive(State::Bound, None), keepalive(State::Prebind, Some(true))];
        apply(&options, State::Prebind, false, &socket).unwrap();
        assert!(!socket.keepalive().unwrap());
        apply(&options, State::Bound, false, &socket).unwrap();
        assert!(socket.keepalive().unwrap());
    }
}
