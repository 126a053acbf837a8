//! Access logs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::config::accesslog::v3 as accesslog;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use outrigger_proto::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use outrigger_proto::envoy::extensions::access_loggers::stream::v3 as stream;
use outrigger_proto::google::protobuf::{Any, Duration as DurationProto, Struct};

use crate::config::Problems;
use crate::config::access_log::{AccessLog, Format, JsonFormat, LineFormat, Output, Sink};

use super::common::{duration, json_object, text, unknown_type, unpack, unsupported};
use super::{access_log_filter, data_source, format, grpc_access_log, otel_access_log};

/// Envoy's default format.
pub(super) const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Loggers in the repeated field `name`.
pub(super) fn convert(
    problems: &mut Problems,
    name: &str,
    protos: Vec<accesslog::AccessLog>,
) -> Vec<AccessLog> {
    protos
        .into_iter()
        .enumerate()
        .filter_map(|(index, proto)| problems.element(name, index, |problems| one(problems, proto)))
        .collect()
}

/// How often logs are written of what goes on for long.
pub(super) fn interval(problems: &mut Problems, proto: Option<DurationProto>) -> Option<Duration> {
    const NAME: &str = "access_log_flush_interval";
    let interval = duration(problems, NAME, proto)?;
    if interval < Duration::from_millis(1) {
        problems.reject_field(NAME, "must be at least 1ms");
        return None;
    }
    Some(interval)
}

fn one(problems: &mut Problems, proto: accesslog::AccessLog) -> Option<AccessLog> {
    // name: of the logger, which its type already says.
    let accesslog::AccessLog { name: _, filter, config_type } = proto;
    let filter = filter.and_then(|filter| {
        problems.field("filter", |problems| access_log_filter::convert(problems, filter))
    });
    let Some(accesslog::access_log::ConfigType::TypedConfig(config)) = config_type else {
        problems.reject_field("typed_config", "required");
        return None;
    };
    let output = problems.field("typed_config", |problems| logger(problems, &config))?;
    Some(AccessLog { output, filter })
}

fn logger(problems: &mut Problems, config: &Any) -> Option<Output> {
    if any::holds::<FileAccessLog>(config) {
        let FileAccessLog { path, access_log_format } = unpack(problems, config)?;
        let sink = sink(text(problems, "path", path));
        let format = file_format(problems, access_log_format)?;
        return Some(log(sink, format));
    }
    if any::holds::<stream::StdoutAccessLog>(config) {
        let stream::StdoutAccessLog { access_log_format } = unpack(problems, config)?;
        let format = access_log_format
            .map(|stream::stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        return Some(log(Sink::Stdout, line_format(problems, format)?));
    }
    if any::holds::<stream::StderrAccessLog>(config) {
        let stream::StderrAccessLog { access_log_format } = unpack(problems, config)?;
        let format = access_log_format
            .map(|stream::stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        return Some(log(Sink::Stderr, line_format(problems, format)?));
    }
    if let Some(log) = grpc_access_log::convert(problems, config) {
        return log.map(|log| Output::Grpc(Arc::new(log)));
    }
    if let Some(log) = otel_access_log::convert(problems, config) {
        return log.map(|log| Output::Otel(Arc::new(log)));
    }
    let supported = [
        "FileAccessLog",
        "StdoutAccessLog",
        "StderrAccessLog",
        "HttpGrpcAccessLogConfig",
        "TcpGrpcAccessLogConfig",
        "OpenTelemetryAccessLogConfig",
    ];
    unknown_type(problems, config, &supported);
    None
}

fn log(sink: Sink, (format, omit_empty_values): (LineFormat, bool)) -> Output {
    Output::Lines { sink, format, omit_empty_values }
}

fn sink(path: String) -> Sink {
    match path.as_str() {
        "/dev/stdout" => Sink::Stdout,
        "/dev/stderr" => Sink::Stderr,
        _ => Sink::File(PathBuf::from(path)),
    }
}

/// The format, and whether what has no value is left out.
fn file_format(
    problems: &mut Problems,
    proto: Option<AccessLogFormat>,
) -> Option<(LineFormat, bool)> {
    let whole = |format: Option<LineFormat>| format.map(|format| (format, false));
    match proto {
        None => line_format(problems, None),
        Some(AccessLogFormat::LogFormat(format)) => line_format(problems, Some(format)),
        // Deprecated; an empty one means the default, as in Envoy.
        Some(AccessLogFormat::Format(text)) if text.is_empty() => line_format(problems, None),
        Some(AccessLogFormat::Format(text)) => whole(text_format(problems, "format", &text)),
        Some(AccessLogFormat::JsonFormat(json)) => {
            whole(json_format(problems, "json_format", json))
        }
        Some(AccessLogFormat::TypedJsonFormat(json)) => {
            whole(json_format(problems, "typed_json_format", json))
        }
    }
}

/// A `SubstitutionFormatString` in the field `log_format`; without one, Envoy's default.
fn line_format(
    problems: &mut Problems,
    proto: Option<core::SubstitutionFormatString>,
) -> Option<(LineFormat, bool)> {
    let Some(proto) = proto else {
        return Some((text_format(problems, "log_format", DEFAULT_FORMAT)?, false));
    };
    let omit_empty_values = proto.omit_empty_values;
    let format = problems.field("log_format", |problems| substitution(problems, proto))?;
    Some((format, omit_empty_values))
}

/// A `SubstitutionFormatString`. Its content type is for its user.
pub(super) fn substitution(
    problems: &mut Problems,
    proto: core::SubstitutionFormatString,
) -> Option<LineFormat> {
    use core::substitution_format_string::Format as Proto;
    let core::SubstitutionFormatString {
        omit_empty_values: _, // read above
        content_type: _,      // of local replies; a log line has none
        formatters,
        json_format_options: _, // sorts properties, which we always do
        format,
    } = proto;
    unsupported!(problems; formatters);
    match format {
        None => {
            problems.reject("one of text_format_source, json_format, text_format is required");
            None
        }
        Some(Proto::TextFormat(text)) if text.is_empty() => {
            problems.reject_field("text_format", "must not be empty");
            None
        }
        Some(Proto::TextFormat(text)) => text_format(problems, "text_format", &text),
        Some(Proto::JsonFormat(json)) => json_format(problems, "json_format", json),
        Some(Proto::TextFormatSource(source)) => problems.field("text_format_source", |problems| {
            let bytes = data_source::read(problems, source)?;
            match String::from_utf8(bytes) {
                Ok(text) => parsed(problems, &text).map(LineFormat::Text),
                Err(_) => {
                    problems.reject("is not UTF-8");
                    None
                }
            }
        }),
    }
}

fn text_format(problems: &mut Problems, name: &str, text: &str) -> Option<LineFormat> {
    problems.field(name, |problems| parsed(problems, text)).map(LineFormat::Text)
}

fn parsed(problems: &mut Problems, text: &str) -> Option<Format> {
    match format::parse(text) {
        Ok(format) => Some(format),
        Err(reason) => {
            problems.reject(reason);
            None
        }
    }
}

fn json_format(problems: &mut Problems, name: &str, proto: Struct) -> Option<LineFormat> {
    let object = json_object(proto).into();
    json(problems, name, object).map(LineFormat::Json)
}

fn json(problems: &mut Problems, name: &str, value: serde_json::Value) -> Option<JsonFormat> {
    use serde_json::Value;
    Some(match value {
        Value::Object(object) => {
            let mut fields = Vec::with_capacity(object.len());
            problems.field(name, |problems| {
                for (key, value) in object {
                    if let Some(value) = json(problems, &key, value) {
                        fields.push((key.into(), value));
                    }
                }
            });
            fields.sort_by(|(a, _): &(Box<str>, JsonFormat), (b, _)| a.cmp(b));
            JsonFormat::Object(fields.into())
        }
        Value::Array(list) => {
            let mut values = Vec::with_capacity(list.len());
            for (index, value) in list.into_iter().enumerate() {
                values.extend(json(problems, &format!("{name}[{index}]"), value));
            }
            JsonFormat::List(values.into())
        }
        Value::String(text) => {
            JsonFormat::Value(problems.field(name, |problems| parsed(problems, &text))?)
        }
        fixed @ (Value::Null | Value::Bool(_) | Value::Number(_)) => JsonFormat::Fixed(fixed),
    })
}
