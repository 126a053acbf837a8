//! One attempt's request on a connection.

use std::rc::Rc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::config::http_connection_manager::RequestScheme;
use crate::http::attempt::Attempt;
use crate::http::body::RequestBody;
use crate::http::connection_manager::Connection;
use crate::http::headers::host_of;
use crate::http::rewrite;
use crate::upstream::{Acquired, Failure, Protocol};

/// Sends a request on a connection of the attempt's endpoint, and waits for the head of the response.
///
/// A connection that was used before may be closed by the endpoint just when the next request goes out. A request of which
/// nothing was sent then goes to another connection: that is no retry.
pub(super) async fn send(
    attempt: &mut Attempt,
    mut request: Request<RequestBody>,
    connection: &Connection,
    https: bool,
) -> Result<Response<Incoming>, Failure> {
    let (pool, cluster) = (Rc::clone(attempt.pool()), attempt.cluster().clone());
    let protocol = Protocol::of(&cluster, &pool.endpoint, connection.version());
    let https = match connection.manager.config.scheme {
        Some(RequestScheme::Upstream) => pool.endpoint.transport.is_some(),
        _ => https,
    };
    let mut fresh_failures = 0;
    loop {
        let acquired = match pool.take(&cluster, protocol) {
            Some(acquired) => acquired,
            None => {
                let host = host_of(request.headers()).to_owned();
                Box::pin(pool.wait(&cluster, protocol, attempt.priority(), &host)).await?
            }
        };
        let used = acquired.was_used();
        let result = match attempt.use_connection(acquired) {
            Acquired::Http1(http1) => {
                rewrite::for_http1(&mut request, connection);
                if cluster.config.http1.fully_qualified {
                    rewrite::fully_qualified(&mut request, connection, https);
                }
                http1.sender.try_send_request(request).await
            }
            Acquired::Http2(shared) => {
                rewrite::for_http2(&mut request, connection, https);
                let sent = shared.connection.sender.borrow_mut().try_send_request(request);
                sent.await
            }
        };
        let mut error = match result {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Failure::Protocol("101 without an upgrade".to_owned()));
            }
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        attempt.drop_connection();
        match error.take_message() {
            Some(unsent) if used || fresh_failures < 2 => {
                fresh_failures += u32::from(!used);
                request = unsent;
            }
            Some(_) => return Err(Failure::Connect(error.into_error().to_string())),
            None => return Err(Failure::of_request(&error.into_error())),
        }
    }
}
