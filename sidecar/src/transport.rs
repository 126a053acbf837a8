//! A connection to a peer: TCP, in the clear or under TLS, with bytes that were read ahead put back in front. [`acceptor`]
//! is where connections of clients come from.

mod acceptor;
pub(crate) mod proxy_header;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::config::address::Address;
use crate::config::proxy_protocol::Tlv;

pub(crate) use acceptor::{Acceptor, ListeningSocket};

/// Counts the bytes of a connection as they pass through its socket. `Send`, because hyper asks for it on upgrades; it is
/// only ever used on the worker that owns the connection.
pub(crate) trait Meter: Send + Sync {
    /// So many bytes came in.
    fn received(&self, bytes: u64);
    /// So many bytes went out.
    fn sent(&self, bytes: u64);
    /// The peer does not read, and nothing more fits into the socket.
    fn blocked(&self) {}
}

/// Sees the bytes of an application as they are read. `Send` for the same reason as [`Meter`].
pub(crate) trait Tap: Send + Sync {
    /// These came next.
    fn read(&self, bytes: &[u8]);
}

/// A connection over a Unix domain socket as one of TCP: the same calls read, write and end both. What only TCP knows of
/// (addresses, Nagle's algorithm, its keep-alive) the system refuses, where it is asked. So what carries traffic needs no
/// second kind of stream, and TCP pays nothing for there being another.
///
/// # Errors
/// What the system says.
pub(crate) fn from_unix(stream: UnixStream) -> io::Result<TcpStream> {
    TcpStream::from_std(OwnedFd::from(stream.into_std()?).into())
}

/// A TCP socket whose first bytes may have been read already, to find out what the peer speaks.
pub(crate) struct Socket {
    tcp: TcpStream,
    ahead: Bytes,
    meter: Option<Arc<dyn Meter>>,
}

impl Socket {
    /// `ahead` is what was read from `tcp` so far; it is read first.
    pub(crate) fn new(tcp: TcpStream, ahead: Bytes) -> Self {
        Self { tcp, ahead, meter: None }
    }

    /// Counts what passes, what was read ahead included.
    pub(crate) fn metered(mut self, meter: Arc<dyn Meter>) -> Self {
        if !self.ahead.is_empty() {
            meter.received(self.ahead.len() as u64);
        }
        self.meter = Some(meter);
        self
    }

    /// The socket itself.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads ahead until `enough` says so, `limit` bytes are there, or the peer is done. What was read is read again, also
    /// when this future is dropped on its way: a time that is over loses no byte.
    pub(crate) async fn read_ahead<T>(
        &mut self,
        limit: usize,
        mut enough: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Ahead<T>> {
        loop {
            if let Some(found) = enough(&self.ahead) {
                return Ok(Ahead::Found(found));
            }
            if self.ahead.len() >= limit {
                return Ok(Ahead::TooMuch);
            }
            let mut buffer = bytes::BytesMut::with_capacity(self.ahead.len() + 2048);
            buffer.extend_from_slice(&self.ahead);
            if tokio::io::AsyncReadExt::read_buf(&mut self.tcp, &mut buffer).await? == 0 {
                return Ok(Ahead::Closed);
            }
            self.ahead = buffer.freeze();
        }
    }

    /// Takes bytes away that were read ahead: they are not the application's.
    pub(crate) fn skip(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
    }
}

/// How reading ahead ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ahead<T> {
    /// It is known.
    Found(T),
    /// The peer sends no more.
    Closed,
    /// Nothing is known after as many bytes as are allowed.
    TooMuch,
}

/// The ends of a connection from a client.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// The client: the peer, or whom the PROXY protocol names.
    pub(crate) peer: Address,
    /// The other end of the socket.
    pub(crate) direct_peer: Address,
    /// Where the client connected to: our end of the socket, or where the connection was going to before it was redirected.
    pub(crate) local: Address,
    /// `local` was told by the kernel or by the PROXY protocol.
    pub(crate) is_restored: bool,
    /// What the PROXY protocol said beside the addresses, as far as it is kept.
    pub(crate) tlvs: Option<Arc<[Tlv]>>,
}

impl Ends {
    /// Of a socket.
    pub(crate) fn of(peer: Address, local: Address) -> Self {
        Self { direct_peer: peer.clone(), peer, local, is_restored: false, tlvs: None }
    }

    /// Where the connection was going to, if that was told.
    pub(crate) fn original_destination(&self) -> Option<SocketAddr> {
        self.local.socket().filter(|_| self.is_restored)
    }
}

/// Reads from `reader` into `ahead` until `enough` says so, `limit` bytes are there, or the peer is done (`None`). What was
/// read stays in `ahead`.
async fn read_ahead<T>(
    reader: &mut (impl AsyncRead + Unpin),
    ahead: &mut Bytes,
    limit: usize,
    mut enough: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut buffer = bytes::BytesMut::from(&**ahead);
    loop {
        if let Some(found) = enough(&buffer) {
            *ahead = buffer.freeze();
            return Ok(Some(found));
        }
        buffer.reserve(2048);
        let at_limit = buffer.len() >= limit;
        let read = match at_limit {
            true => Ok(0),
            false => tokio::io::AsyncReadExt::read_buf(reader, &mut buffer).await,
        };
        if !matches!(read, Ok(1..)) {
            *ahead = buffer.freeze();
            return read.map(|_| None);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if let Some(meter) = &self.meter {
            let read = buffer.filled().len() - before;
            if read > 0 {
                meter.received(read as u64);
            }
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(cx, buffer);
        self.count_sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write_vectored(cx, buffers);
        self.count_sent(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // TCP has nothing to flush
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Socket {
    fn count_sent(&self, result: &Poll<io::Result<usize>>) {
        match (result, &self.meter) {
            (Poll::Ready(Ok(sent)), Some(meter)) => meter.sent(*sent as u64),
            (Poll::Pending, Some(meter)) => meter.blocked(),
            _ => {}
        }
    }
}

/// A connection, ready to carry bytes of an application.
pub(crate) struct Transport {
    stream: Stream,
    /// Bytes of the application that were read already, to find out what it speaks.
    ahead: Bytes,
    tap: Option<Arc<dyn Tap>>,
}

enum Stream {
    Plain(Socket),
    /// Boxed: most of it is cold.
    Tls(Box<TlsStream<Socket>>),
}

impl Transport {
    /// In the clear.
    pub(crate) fn plain(socket: Socket) -> Self {
        Self { stream: Stream::Plain(socket), ahead: Bytes::new(), tap: None }
    }

    /// Under TLS, from either side.
    pub(crate) fn tls(stream: impl Into<TlsStream<Socket>>) -> Self {
        Self { stream: Stream::Tls(Box::new(stream.into())), ahead: Bytes::new(), tap: None }
    }

    /// Shows what is read from here on, what was read ahead included.
    pub(crate) fn tapped(mut self, tap: Arc<dyn Tap>) -> Self {
        self.tap = Some(tap);
        self
    }

    /// The socket underneath.
    pub(crate) fn socket(&self) -> &Socket {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The state of TLS, if there is any.
    pub(crate) fn tls_state(&self) -> Option<&rustls::CommonState> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(stream.get_ref().1),
        }
    }

    /// Makes the coming close a reset, so that the peer cannot take what it got for the whole.
    pub(crate) fn reset_on_close(&self) {
        // A socket that is gone already has nobody left to mislead.
        let _ = self.socket().tcp().set_zero_linger();
    }

    /// Looks at the first bytes of the application: see [`read_ahead`].
    pub(crate) async fn read_ahead<T>(
        &mut self,
        limit: usize,
        enough: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let found = read_ahead(self, &mut ahead, limit, enough).await;
        self.ahead = ahead;
        found
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = if self.ahead.is_empty() {
            match &mut self.stream {
                Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
                Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
            }
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            Poll::Ready(Ok(()))
        };
        if let Some(tap) = &self.tap
            && let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty())
        {
            tap.read(bytes);
        }
        result
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, buffer),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, buffers),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
