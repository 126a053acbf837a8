//! Sockets that connections are accepted on, of TCP and of the Unix domain.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::from_unix;
use crate::config::address::Address;

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// Of TCP.
    Tcp(std::net::TcpListener),
    /// A Unix domain socket, and its path.
    Unix(std::os::unix::net::UnixListener, Arc<str>),
}

/// A socket that this thread accepts connections on.
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, Arc<str>),
}

impl Acceptor {
    /// Only within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(socket: ListeningSocket) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListeningSocket::Unix(socket, path) => {
                Self::Unix(UnixListener::from_std(socket)?, path)
            }
        })
    }

    /// A connection, and who is at its other end.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, Address)> {
        match self {
            Self::Tcp(socket) => {
                let (tcp, peer) = socket.accept().await?;
                prepare(&tcp);
                Ok((tcp, peer.into()))
            }
            // Its client has no name of its own: as in Envoy it has that of the socket.
            Self::Unix(socket, path) => {
                let (stream, _) = socket.accept().await?;
                Ok((from_unix(stream)?, Address::Pipe(Arc::clone(path))))
            }
        }
    }
}

fn prepare(tcp: &TcpStream) {
    const IDLE: Duration = Duration::from_secs(60);
    // A connection without these is slower to send, or to be found dead, but works.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE));
}
