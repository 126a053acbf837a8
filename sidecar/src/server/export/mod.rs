//! Sends what workers report: [`mod@spans`] of tracing providers, and access [`mod@logs`] over gRPC. One task for each
//! provider and each log; it ends when nobody uses it any more and everything was sent.

mod logs;
mod spans;

pub(super) use logs::logs;
pub(super) use spans::spans;
