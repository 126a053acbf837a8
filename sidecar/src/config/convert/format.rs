//! Format strings with command operators: access logs and header additions share their grammar.
//!
//! `%NAME%`, `%NAME(ARGUMENT)%`, `%NAME(ARGUMENT):LENGTH%`; `%%` is a percent sign. The argument ends at the first `)`.
//! Reference: "Access logging, command operators" in Envoy's documentation.

use http::HeaderName;

use crate::config::access_log::{
    Attempted, Command, Format, FormatPart, HeaderOrPseudo, MetadataOf, Operator, Side,
};

use super::format_arguments::{
    certificate, common_duration, filter_state, metadata, metadata_of_type, path, query_params,
};
use super::format_coalesce::coalesce;
use super::format_refused::refused;

/// Parses a format string.
///
/// # Errors
/// Naming the operator that is unknown or used wrongly.
pub(in crate::config) fn parse(text: &str) -> Result<Format, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (part, after) = command(rest)?;
        rest = after;
        match part {
            FormatPart::Literal(text) => literal.push_str(&text),
            FormatPart::Command(_) => {
                flush(&mut parts, &mut literal);
                parts.push(part);
            }
        }
    }
    literal.push_str(rest);
    flush(&mut parts, &mut literal);
    Ok(Format { parts: parts.into() })
}

fn flush(parts: &mut Vec<FormatPart>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(FormatPart::Literal(std::mem::take(literal).into()));
    }
}

/// One command and the text behind its closing `%`; `text` begins behind the opening one.
fn command(text: &str) -> Result<(FormatPart, &str), String> {
    let malformed = || {
        let shown: String = text.chars().take(40).collect();
        format!(
            "\"%{shown}\" is not a command operator: expected %NAME%, %NAME(ARGUMENT)% or %NAME:LENGTH%"
        )
    };
    let end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return Err(malformed());
    }
    let mut argument = None;
    if let Some(behind) = rest.strip_prefix('(') {
        let (inner, behind) = behind.split_once(')').ok_or_else(malformed)?;
        argument = Some(inner);
        rest = behind;
    }
    let mut max_length = None;
    if let Some(behind) = rest.strip_prefix(':') {
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (digits, behind) = behind.split_at(end);
        max_length = Some(digits.parse::<usize>().map_err(|_| malformed())?);
        rest = behind;
    }
    let rest = rest.strip_prefix('%').ok_or_else(malformed)?;
    if name == "ENVIRONMENT" {
        return Ok((FormatPart::Literal(environment(argument, max_length)?.into()), rest));
    }
    Ok((FormatPart::Command(known(name, argument, max_length)?), rest))
}

/// A command operator with its argument and length.
pub(super) fn known(
    name: &str,
    argument: Option<&str>,
    max_length: Option<usize>,
) -> Result<Command, String> {
    let operator = operator(name, argument)?;
    if max_length.is_some() && !has_text(&operator) {
        return Err(format!(
            "%{name}% takes no length: only headers, paths, parameters, metadata and filter state do"
        ));
    }
    Ok(Command { operator, max_length })
}

/// The environment does not change while we run: its variables are read here.
fn environment(argument: Option<&str>, max_length: Option<usize>) -> Result<String, String> {
    let name = argument
        .filter(|name| !name.is_empty())
        .ok_or("%ENVIRONMENT% needs the name of a variable: %ENVIRONMENT(NAME)%")?;
    let mut value = std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    if let Some(length) = max_length {
        let end = (0..=length.min(value.len())).rev().find(|&at| value.is_char_boundary(at));
        value.truncate(end.unwrap_or(0));
    }
    Ok(value)
}

/// Only headers, paths and the like are shortened, as in Envoy: other values are short, or numbers.
fn has_text(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::Req(..)
            | Operator::Resp(..)
            | Operator::Trailer(..)
            | Operator::Path { .. }
            | Operator::QueryParam(_)
            | Operator::Metadata(..)
            | Operator::FilterState { .. }
            | Operator::Coalesce(_)
    )
}

fn operator(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    let plain = match name {
        "START_TIME" => {
            return Ok(Operator::StartTime(optional(argument)));
        }
        "REQ" => return header_pair(name, argument).map(|(a, b)| Operator::Req(a, b)),
        "RESP" => return header_pair(name, argument).map(|(a, b)| Operator::Resp(a, b)),
        "TRAILER" => return trailer_pair(name, argument),
        "GRPC_STATUS" => return grpc_status(argument),
        "EMIT_TIME" => return Ok(Operator::EmitTime(optional(argument))),
        "COMMON_DURATION" => return common_duration(argument),
        "PATH" => return path(argument),
        "QUERY_PARAMS" => return query_params(argument),
        "COALESCE" => return coalesce(argument).map(Operator::Coalesce),
        "METADATA" => return metadata_of_type(argument),
        "QUERY_PARAM" => {
            return match argument.filter(|name| !name.is_empty()) {
                Some(name) => Ok(Operator::QueryParam(name.into())),
                None => Err("%QUERY_PARAM% needs the name of a parameter".to_owned()),
            };
        }
        "RESPONSE_CODE_DETAILS" => {
            return match argument {
                None | Some("") => Ok(Operator::ResponseCodeDetails { whitespace: false }),
                Some("ALLOW_WHITESPACES") => Ok(Operator::ResponseCodeDetails { whitespace: true }),
                Some(other) => Err(format!(
                    "%RESPONSE_CODE_DETAILS({other})% is not supported: ALLOW_WHITESPACES or nothing"
                )),
            };
        }
        "DYNAMIC_METADATA" => return metadata(name, MetadataOf::Request, argument),
        "CLUSTER_METADATA" => return metadata(name, MetadataOf::Cluster, argument),
        "UPSTREAM_METADATA" => return metadata(name, MetadataOf::Endpoint, argument),
        "FILTER_STATE" => return filter_state(argument),
        "PROTOCOL" => Operator::Protocol,
        "REQUEST_METHOD" => Operator::RequestMethod,
        "REQUEST_PATH" => Operator::RequestPath,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::RequestDuration,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "LOCAL_REPLY_BODY" => Operator::LocalReplyBody,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamDirectRemoteAddressWithoutPort
        }
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemotePort,
        // No listener filter that we have changes the address that a connection came to.
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamLocalAddressWithoutPort
        }
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_TLS_GROUP" => Operator::DownstreamTlsGroup,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostNameWithoutPort,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "UPSTREAM_CONNECTION_ID" => Operator::UpstreamConnectionId,
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress,
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamRemoteAddressWithoutPort,
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemotePort,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalPort,
        "UPSTREAM_TLS_VERSION" => Operator::UpstreamTlsVersion,
        "UPSTREAM_TLS_GROUP" => Operator::UpstreamTlsGroup,
        "UPSTREAM_TLS_CIPHER" => Operator::UpstreamTlsCipher,
        "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
        "UPSTREAM_HOSTS_ATTEMPTED" => Operator::Attempted(Attempted::Hosts),
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => Operator::Attempted(Attempted::HostsWithoutPort),
        "UPSTREAM_HOST_NAMES_ATTEMPTED" => Operator::Attempted(Attempted::HostNames),
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => {
            Operator::Attempted(Attempted::HostNamesWithoutPort)
        }
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => Operator::Attempted(Attempted::ConnectionIds),
        // No listener filter that we have changes the address that a connection came to.
        "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID" => {
            Operator::EndpointId(Side::DownstreamLocal)
        }
        "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID" => Operator::EndpointId(Side::UpstreamRemote),
        "REQUEST_HEADERS_BYTES" => Operator::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => Operator::ResponseHeadersBytes,
        "RESPONSE_TRAILERS_BYTES" => Operator::ResponseTrailersBytes,
        "ACCESS_LOG_TYPE" => Operator::AccessLogType,
        "UNIQUE_ID" => Operator::UniqueId,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => Operator::Zero,
        "CUSTOM_FLAGS" => Operator::CustomFlags,
        "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualClusterName,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "HOSTNAME" => Operator::Hostname,
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatusNumber,
        _ => {
            if let Some(operator) = certificate(name, argument) {
                return Ok(operator);
            }
            return Err(refused(name));
        }
    };
    match argument {
        Some(argument) if !argument.is_empty() => {
            Err(format!("%{name}% takes no argument, but has ({argument})"))
        }
        _ => Ok(plain),
    }
}

fn grpc_status(argument: Option<&str>) -> Result<Operator, String> {
    match argument {
        None | Some("" | "CAMEL_STRING") => Ok(Operator::GrpcStatus),
        Some("SNAKE_STRING") => Ok(Operator::GrpcStatusSnake),
        Some("NUMBER") => Ok(Operator::GrpcStatusNumber),
        Some(other) => Err(format!(
            "%GRPC_STATUS({other})% is not supported: CAMEL_STRING, SNAKE_STRING or NUMBER"
        )),
    }
}

pub(super) fn optional(argument: Option<&str>) -> Option<Box<str>> {
    argument.filter(|format| !format.is_empty()).map(Into::into)
}

/// `X` or `X?Y`.
fn names<'a>(
    operator: &str,
    argument: Option<&'a str>,
) -> Result<(&'a str, Option<&'a str>), String> {
    let argument = argument
        .filter(|argument| !argument.is_empty())
        .ok_or_else(|| format!("%{operator}% needs the name of a header: %{operator}(NAME)%"))?;
    match argument.split_once('?') {
        None => Ok((argument, None)),
        Some((_, second)) if second.contains('?') => {
            Err(format!("%{operator}({argument})% has more than one alternative"))
        }
        Some((first, "")) => Ok((first, None)),
        Some((first, second)) => Ok((first, Some(second))),
    }
}

fn header_pair(
    operator: &str,
    argument: Option<&str>,
) -> Result<(HeaderOrPseudo, Option<HeaderOrPseudo>), String> {
    let (first, second) = names(operator, argument)?;
    Ok((header(operator, first)?, second.map(|name| header(operator, name)).transpose()?))
}

fn trailer_pair(operator: &str, argument: Option<&str>) -> Result<Operator, String> {
    let (first, second) = names(operator, argument)?;
    let name =
        |name: &str| HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad_name(operator, name));
    Ok(Operator::Trailer(name(first)?, second.map(name).transpose()?))
}

fn header(operator: &str, name: &str) -> Result<HeaderOrPseudo, String> {
    let lower = name.to_ascii_lowercase();
    Ok(match lower.as_str() {
        ":method" => HeaderOrPseudo::Method,
        ":path" => HeaderOrPseudo::Path,
        ":authority" => HeaderOrPseudo::Authority,
        "host" if operator == "REQ" => HeaderOrPseudo::Authority,
        ":scheme" => HeaderOrPseudo::Scheme,
        ":status" => HeaderOrPseudo::Status,
        _ => HeaderOrPseudo::Header(
            HeaderName::from_bytes(lower.as_bytes()).map_err(|_| bad_name(operator, name))?,
        ),
    })
}

fn bad_name(operator: &str, name: &str) -> String {
    format!("%{operator}({name})%: {name:?} is not a header name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators(text: &str) -> Vec<Operator> {
        let format = parse(text).expect("parses");
        format
            .parts
            .iter()
            .filter_map(|part| match part {
                FormatPart::Command(command) => Some(command.operator.clone()),
                FormatPart::Literal(_) => None,
            })
            .collect()
    }

    #[test]
    fn an_argument_may_contain_percent_signs() {
        assert_eq!(
            operators("[%START_TIME(%Y/%m/%dT%H:%M:%S%z)%] %PROTOCOL%"),
            [Operator::StartTime(Some("%Y/%m/%dT%H:%M:%S%z".into())), Operator::Protocol]
        );
    }

    #[test]
    fn a_header_may_have_one_alternative_and_a_length() {
        let format = parse("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):12%").expect("parses");
        let [FormatPart::Command(command)] = &*format.parts else { panic!("{format:?}") };
        assert_eq!(command.max_length, Some(12));
        assert_eq!(
            command.operator,
            Operator::Req(
                HeaderOrPseudo::Header(HeaderName::from_static("x-envoy-original-path")),
                Some(HeaderOrPseudo::Path)
            )
        );
        assert!(parse("%REQ(a?b?c)%").is_err());
    }

    #[test]
    fn a_doubled_percent_sign_is_one_and_joins_the_text_around_it() {
        let format = parse("100%% of %PROTOCOL%").expect("parses");
        let [FormatPart::Literal(text), FormatPart::Command(_)] = &*format.parts else {
            panic!("{format:?}")
        };
        assert_eq!(&**text, "100% of ");
    }

    #[test]
    fn what_is_no_operator_is_refused_by_name() {
        for (text, named) in [
            ("%UPSTREAM_METADATA()%", "%UPSTREAM_METADATA%"),
            ("%DYNAMIC_METADATA%", "%DYNAMIC_METADATA%"),
            ("%FILTER_STATE(a:FIELD:b)%", "expected KEY"),
            ("%UPSTREAM_LOCAL_SUBJECT%", "not a command operator"),
            ("%DOWNSTREAM_WIRE_BYTES_SENT%", "not supported by this version of Outrigger"),
            ("%QUERY_PARAMS(PATH)%", "expected ORIG or DECODED"),
            ("%METADATA(VIRTUAL_HOST:a)%", "not supported by this version of Outrigger"),
            ("%METADATA(OTHER:a)%", "is not a type of metadata"),
            ("%PATH(XX)%", "expected WQ or NQ"),
            ("%COMMON_DURATION(DS_RX_BEG:ms)%", "expected FROM:TO:UNIT"),
            ("%QUERY_PARAM%", "needs the name of a parameter"),
            ("50% of it", "% of it"),
            ("%PROTOCOL", "%PROTOCOL"),
            ("%PROTOCOL(x)%", "takes no argument"),
            ("%REQ%", "needs the name of a header"),
            ("%REQ(a b)%", "not a header name"),
            ("%START_TIME(%s):3%", "no length"),
            ("%PROTOCOL:3%", "no length"),
            ("100%", "not a command operator"),
            ("%", "not a command operator"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
