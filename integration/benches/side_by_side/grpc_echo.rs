//! The upstream of gRPC calls: it reads the call to its end and sends the message back, with its trailers.
//!
//! nginx answers from memory only what it does not read, and resets the stream then, which not every proxy takes well.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_integration::address;
use tokio::sync::oneshot;

/// It runs, on a thread of its own, until this is dropped.
pub(crate) struct GrpcEcho {
    address: SocketAddr,
    _running: oneshot::Sender<()>,
}

impl GrpcEcho {
    pub(crate) fn start() -> Result<GrpcEcho> {
        let listener = TcpListener::bind(address::free()?)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (running, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    _ = accept(listener) => {}
                }
            });
        });
        Ok(GrpcEcho { address, _running: running })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener) -> std::io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

type Body = StreamBody<stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;

async fn echo(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let message = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
