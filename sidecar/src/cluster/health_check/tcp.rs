//! TCP: a connection, and what has to come on it.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{Stream, connect};
use super::judge::{Failure, Passed};
use super::payload::has_in_order;
use super::{Plan, Target};
use crate::config::health_check::TcpCheck;

/// Most bytes among which the expected ones are looked for.
const MAX_ANSWER: usize = 1 << 20;

pub(super) async fn check(
    kept: &mut Option<Stream>,
    plan: &Plan,
    target: &Target,
    check: &TcpCheck,
) -> Result<Passed, Failure> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(plan, target).await?,
    };
    if check.receive.is_empty() {
        // A connection is all that is asked for. Nothing is sent then, as in Envoy.
        return Ok(Passed { degraded: false });
    }
    stream.write_all(&check.send).await.map_err(Failure::network)?;
    stream.flush().await.map_err(Failure::network)?;
    let mut answer = BytesMut::new();
    while !has_in_order(&answer, &check.receive) {
        if answer.len() >= MAX_ANSWER {
            return Err(Failure::network("the answer is too long"));
        }
        if stream.read_buf(&mut answer).await.map_err(Failure::network)? == 0 {
            return Err(Failure::network("the connection was closed"));
        }
    }
    *kept = Some(stream);
    Ok(Passed { degraded: false })
}

/// Ends when the endpoint closes the connection. What it sends unasked is not looked at.
pub(super) async fn broken_off(stream: &mut Stream) {
    let mut ignored = [0; 256];
    while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}
