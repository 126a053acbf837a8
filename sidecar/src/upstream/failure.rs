//! What can go wrong between us and an endpoint.

use std::error::Error as _;

use crate::tls;

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made. Nothing was sent.
    Connect(String),
    /// No connection was made in time. Nothing was sent.
    ConnectTimeout,
    /// A circuit breaker is open. Nothing was sent.
    Overflow,
    /// The endpoint says that it did not look at the request (HTTP/2 REFUSED_STREAM, or GOAWAY with a lower stream id).
    Refused,
    /// The endpoint reset the stream.
    RemoteReset,
    /// The connection ended before the response began.
    ConnectionTermination,
    /// What came is not HTTP.
    Protocol(String),
}

impl Failure {
    /// What hyper says of a request that got no response.
    pub(crate) fn of_request(error: &hyper::Error) -> Self {
        if let Some(h2) = h2_error(error) {
            return if h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.is_remote())
            {
                Self::Refused
            } else if h2.is_io() || h2.get_io().is_some() {
                Self::ConnectionTermination
            } else if h2.is_remote() && h2.is_reset() {
                Self::RemoteReset
            } else {
                Self::Protocol(h2.to_string())
            };
        }
        if let Some(io) = io_error(error)
            && io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            // TLS 1.3 lets a server refuse our certificate after we took the handshake for done.
            return Self::Connect(format!("TLS_error: {}", tls::Failure::of_handshake(io)));
        }
        if error.is_parse() {
            return Self::Protocol(error.to_string());
        }
        Self::ConnectionTermination
    }

    /// As Envoy names it in the body of its answer.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Self::Connect(_) => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Overflow => "overflow",
            Self::Refused => "remote refused stream reset",
            Self::RemoteReset => "remote reset",
            Self::ConnectionTermination => "connection termination",
            Self::Protocol(_) => "protocol error",
        }
    }

    /// What is known of the cause beside that.
    pub(crate) fn cause(&self) -> Option<&str> {
        match self {
            Self::Connect(cause) | Self::Protocol(cause) => Some(cause),
            _ => None,
        }
    }
}

fn io_error(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        source = error.source();
    }
    None
}

/// The error of HTTP/2 behind one of hyper's.
pub(crate) fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        source = error.source();
    }
    None
}
