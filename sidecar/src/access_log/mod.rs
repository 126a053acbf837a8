//! Access logs: one line for each request or connection, in Envoy's formats.
//!
//! A worker formats a line once, into a buffer of its own; a writer thread takes the buffers each second, or when one holds
//! 64 KiB, and appends them to their files. So a request never waits for a disk.
//!
//! Reading order: [`record`] (what is known at the end of a stream), [`flags`], [`operator`] (the value of one command),
//! [`filter`] (which of them are written), [`text`] and [`json`] (lines), [`time_format`], [`writer`] (buffers and the thread), [`grpc`] and [`otel`] (logs that are sent to a server), [`logger`].

mod attempted;
mod certificate;
mod derived;
mod filter;
mod flags;
pub(crate) mod grpc;
mod json;
mod logger;
mod operator;
pub(crate) mod otel;
mod record;
mod tag;
#[cfg(test)]
mod tests;
mod text;
mod time_format;
mod writer;

pub(crate) use certificate::url_encoded_pem;
pub(crate) use derived::unique_id;
pub(crate) use filter::Filter;
pub(crate) use flags::ResponseFlags;
pub(crate) use logger::{Line, LogStreams, Loggers, Outputs};
pub(crate) use record::{
    Captured, Certificate, Headers, LogRecord, LogType, Needs, UpstreamConnection,
};
pub(crate) use tag::{filled, tag_value};
pub(crate) use text::render;
pub(crate) use writer::{Lines, Writer};
