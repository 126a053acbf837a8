//! Which HTTP a connection without TLS speaks, by its first line.

use super::{Found, Passed};
use crate::config::listener::TransportProtocol;
use crate::stats::HttpInspectorCells;
use crate::transport::{Ahead, Socket};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most bytes of a first line; Envoy has the same limit.
const LIMIT: usize = 64 * 1024;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http10,
    Http11,
    Http2,
    NotHttp,
}

/// Reads as much as it takes to know, unless it is known that this is TLS.
///
/// # Errors
/// What the socket says.
pub(super) async fn inspect(
    socket: &mut Socket,
    stats: &HttpInspectorCells,
    found: &mut Found,
) -> std::io::Result<Passed> {
    if found.transport_protocol == TransportProtocol::Tls {
        return Ok(Passed::On);
    }
    let protocol = match socket.read_ahead(LIMIT, parse).await? {
        Ahead::Found(protocol) => protocol,
        Ahead::Closed => return Ok(Passed::RemoteClosed),
        Ahead::TooMuch => {
            stats.read_error.inc();
            return Ok(Passed::Refused);
        }
    };
    let name: &[u8] = match protocol {
        Protocol::Http10 => {
            stats.http10_found.inc();
            b"http/1.0"
        }
        Protocol::Http11 => {
            stats.http11_found.inc();
            b"http/1.1"
        }
        Protocol::Http2 => {
            stats.http2_found.inc();
            b"h2c"
        }
        Protocol::NotHttp => {
            stats.http_not_found.inc();
            return Ok(Passed::On);
        }
    };
    found.application_protocols = vec![name.to_vec()];
    Ok(Passed::On)
}

/// `None`: more bytes are needed.
fn parse(bytes: &[u8]) -> Option<Protocol> {
    let first = *bytes.first()?;
    let shorter = bytes.len().min(PREFACE.len());
    if bytes.get(..shorter) == PREFACE.get(..shorter) {
        return (bytes.len() >= PREFACE.len()).then_some(Protocol::Http2);
    }
    if matches!(first, b'\r' | b'\n') {
        return Some(Protocol::NotHttp);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes.get(..end).unwrap_or_default();
    Some(request_line(line.strip_suffix(b"\r").unwrap_or(line)))
}

/// `METHOD target HTTP/n.n`. As in Envoy, tabs and more than one space may stand between them.
fn request_line(line: &[u8]) -> Protocol {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    if line.first().is_some_and(is_space) {
        return Protocol::NotHttp;
    }
    let mut words = line.split(is_space).filter(|word| !word.is_empty());
    let (Some(method), Some(target), version) = (words.next(), words.next(), words.next()) else {
        return Protocol::NotHttp;
    };
    let is_request = words.next().is_none()
        && method.iter().all(is_token)
        && (is_target(target) || method == b"CONNECT");
    match version {
        Some(b"HTTP/1.1") if is_request => Protocol::Http11,
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if is_request && major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Protocol::Http10
        }
        // HTTP/0.9 had no version.
        None if is_request => Protocol::Http10,
        _ => Protocol::NotHttp,
    }
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// A path, `*`, or a whole URL.
fn is_target(target: &[u8]) -> bool {
    target.starts_with(b"/") || target == b"*" || target.windows(3).any(|part| part == b"://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_which_version_it_is_once_it_is_whole() {
        for (line, protocol) in [
            ("GET / HTTP/1.1\r\n", Protocol::Http11),
            ("GET / HTTP/1.1\n", Protocol::Http11),
            ("POST http://a/b HTTP/1.0\r\n", Protocol::Http10),
            ("OPTIONS * HTTP/1.1\r\n", Protocol::Http11),
            ("PURGE /x HTTP/1.1\r\n", Protocol::Http11),
            ("GET /\r\n", Protocol::Http10),
            ("CONNECT a:443 HTTP/1.1\r\n", Protocol::Http11),
            ("GET\t/  HTTP/1.1\r\n", Protocol::Http11),
            (" GET / HTTP/1.1\r\n", Protocol::NotHttp),
            ("hello world\r\n", Protocol::NotHttp),
            ("hello\r\n", Protocol::NotHttp),
            ("GET / FTP/1.1\r\n", Protocol::NotHttp),
            ("GET / HTTP/1.1 x\r\n", Protocol::NotHttp),
            ("GE(T / HTTP/1.1\r\n", Protocol::NotHttp),
        ] {
            let bytes = line.as_bytes();
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), None, "{line:?} after {end} bytes");
            }
            assert_eq!(parse(bytes), Some(protocol), "{line:?}");
        }
    }

    #[test]
    fn the_preface_is_http_2_and_what_only_begins_like_it_is_not() {
        for end in 0..PREFACE.len() {
            assert_eq!(parse(&PREFACE[..end]), None, "after {end} bytes");
        }
        assert_eq!(parse(PREFACE), Some(Protocol::Http2));
        assert_eq!(parse(b"PRI /x HTTP/1.1\r\n"), Some(Protocol::Http11));
    }

    #[test]
    fn an_empty_first_line_is_not_http() {
        assert_eq!(parse(b"\r"), Some(Protocol::NotHttp));
        assert_eq!(parse(b"\nGET"), Some(Protocol::NotHttp));
    }
}
