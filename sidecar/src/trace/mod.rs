//! Spans: from the worker that made one to the batch that is sent to a collector.
//!
//! A worker makes a [`Span`] only of a request that is sampled, when the request is over, and hands it to the
//! [`Reporter`] of its tracing provider. There it waits, with a bound, for the control thread, which takes what has come
//! together ([`reporter`]), encodes it ([`otlp`]) and sends it. A span that finds no place is dropped and counted: a
//! collector that is slow or away costs memory up to the bound, and no request waits for it.

pub(crate) mod otlp;
mod reporter;
mod span;

pub(crate) use reporter::{Opened, Reporter, Reporters};
pub(crate) use span::{Kind, Span, SpanContext, SpanId, TraceId};
