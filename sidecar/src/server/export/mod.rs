//! Sends what workers report: [`mod@spans`] of tracing providers, and access logs, over Envoy's protocol ([`mod@logs`]) and
//! over [`otlp`] ([`mod@otel_logs`]). One task for each provider and each log; it ends when nobody uses it any more and
//! everything was sent.

mod logs;
mod otel_logs;
mod otlp;
mod spans;

pub(super) use logs::logs;
pub(super) use otel_logs::otel_logs;
pub(super) use spans::spans;
