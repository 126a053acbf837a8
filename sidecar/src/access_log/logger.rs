//! One configured log.

use std::io;
use std::sync::Arc;

use super::filter::Filter;
use super::grpc::{GrpcLogger, Streams};
use super::json::{self, Compiled};
use super::otel::OtelLogger;
use super::record::{LogRecord, Needs};
use super::text;
use super::writer::{Output, Writer};
use crate::config::access_log::{
    self as config, AccessLog, Format, GrpcLogStream, JsonFormat, LineFormat, OtelLogStream,
};
use crate::stats::Registry;

/// A log, compiled. Made with the listener or filter that has it.
pub(crate) struct Logger {
    filter: Option<Filter>,
    target: Target,
}

enum Target {
    /// A file, with the format of its lines.
    Lines(Arc<Output>, Line),
    /// A server.
    Grpc(GrpcLogger),
    /// A collector.
    Otel(OtelLogger),
}

/// What sends logs away.
#[derive(Default)]
pub(crate) struct LogStreams {
    /// By Envoy's own protocol.
    pub(crate) grpc: Streams<GrpcLogStream>,
    /// By OTLP.
    pub(crate) otel: Streams<OtelLogStream>,
}

/// Where logs go: what they are opened with.
pub(crate) struct Outputs<'a> {
    pub(crate) writer: &'a Writer,
    pub(crate) streams: &'a mut LogStreams,
    pub(crate) registry: &'a Registry,
}

/// A format, compiled: of a line in a log, or of the body of an answer.
pub(crate) enum Line {
    /// With what stands for a missing value.
    Text(Format, &'static [u8]),
    /// JSON, with a line break at its end.
    Json(Compiled),
    /// Without what is missing, so its shape is known only when it is written.
    SparseJson(JsonFormat),
}

impl Line {
    /// `omit_empty_values`: what is missing leaves no trace.
    pub(crate) fn new(format: &LineFormat, omit_empty_values: bool) -> Self {
        match format {
            LineFormat::Text(format) if omit_empty_values => Self::Text(format.clone(), b""),
            LineFormat::Text(format) => Self::Text(format.clone(), b"-"),
            LineFormat::Json(format) if omit_empty_values => Self::SparseJson(format.clone()),
            LineFormat::Json(format) => Self::Json(Compiled::new(format)),
        }
    }

    /// Appends the line.
    pub(crate) fn render(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Text(format, missing) => text::render(format, record, missing, out),
            Self::SparseJson(format) => json::sparse(format, record, out),
            Self::Json(compiled) => compiled.render(record, out),
        }
    }
}

impl Logger {
    /// Opens the log.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub(crate) fn new(config: &AccessLog, outputs: &mut Outputs<'_>) -> io::Result<Self> {
        let target = match &config.output {
            config::Output::Lines { sink, format, omit_empty_values } => {
                let line = Line::new(format, *omit_empty_values);
                Target::Lines(outputs.writer.output(sink)?, line)
            }
            config::Output::Grpc(log) => {
                let stream = outputs.streams.grpc.of(&log.stream, outputs.registry);
                Target::Grpc(GrpcLogger::new(log, stream))
            }
            config::Output::Otel(log) => {
                let stream = outputs.streams.otel.of(&log.stream, outputs.registry);
                Target::Otel(OtelLogger::new(log, stream))
            }
        };
        Ok(Self { filter: config.filter.as_ref().map(Filter::new), target })
    }

    /// Writes one line or entry, if the filter takes it.
    pub(crate) fn log(&self, record: &LogRecord<'_>) {
        if self.filter.as_ref().is_some_and(|filter| !filter.takes(record)) {
            return;
        }
        match &self.target {
            Target::Lines(output, line) => output.append(|buffer| line.render(record, buffer)),
            Target::Grpc(logger) => logger.log(record),
            Target::Otel(logger) => logger.log(record),
        }
    }
}

/// The logs of one listener or filter, with the headers that they read.
#[derive(Default)]
pub(crate) struct Loggers {
    loggers: Box<[Logger]>,
    /// What has to be kept of headers that move on before the end.
    pub(crate) needs: Needs,
}

impl Loggers {
    /// Opens the logs.
    ///
    /// # Errors
    /// With the index of the log whose file cannot be opened.
    pub(crate) fn new(
        configs: &[AccessLog],
        outputs: &mut Outputs<'_>,
    ) -> Result<Self, (usize, io::Error)> {
        let open = |(at, config)| Logger::new(config, outputs).map_err(|error| (at, error));
        let loggers = configs.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Self { loggers, needs: Needs::of(configs) })
    }

    /// Whether there is none: no record has to be made then.
    pub(crate) fn is_empty(&self) -> bool {
        self.loggers.is_empty()
    }

    /// Writes a line to each.
    pub(crate) fn log(&self, record: &LogRecord<'_>) {
        self.loggers.iter().for_each(|logger| logger.log(record));
    }
}
