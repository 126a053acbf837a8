//! A service that speaks `envoy.service.auth.v3`. The one place of the filters that names its messages.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE};
use http::{Method, Request, StatusCode, Uri, Version};
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use outrigger_proto::envoy::service::auth::v3 as proto;
use outrigger_proto::envoy::service::auth::v3::attribute_context as attributes;
use outrigger_proto::envoy::service::auth::v3::check_response::HttpResponse;
use outrigger_proto::google::protobuf::{ListValue, Struct, Timestamp, Value as ProtoValue, value};
use outrigger_proto::json::json_object;
use prost::Message;
use serde_json::{Map, Value};

use super::question::Question;
use super::verdict::{Action, Change, Changes, Decision, Denial, Verdict};
use super::{MOST, Settings};
use crate::access_log::grpc::entry::address_proto;
use crate::access_log::url_encoded_pem;
use crate::config::ext_authz::{AuthGrpc, ExtAuthz};
use crate::config::header::AppendAction;
use crate::config::metadata::Metadata;
use crate::http::call;
use crate::http::filters::Passage;
use crate::http::headers::{GRPC_STATUS, GRPC_TIMEOUT};
use crate::http::stream_state::metadata_of;
use crate::tls::PeerIdentity;

/// What is called.
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Which service a client is of, as it says itself.
const SERVICE: &str = "x-envoy-downstream-service-cluster";

/// The call's message.
pub(super) fn request(
    config: &ExtAuthz,
    settings: &Settings<'_>,
    question: &Question,
    passage: &Passage<'_>,
) -> proto::CheckRequest {
    let connection = passage.connection;
    let tls = connection.tls.as_ref();
    let peer = tls.and_then(|tls| tls.identity.as_ref());
    let own = tls.and_then(|tls| tls.own.as_deref());
    let certificate = peer
        .filter(|_| config.include_peer_certificate)
        .and_then(|peer| peer.chain.first())
        .map(|leaf| url_encoded_pem(leaf))
        .unwrap_or_default();
    let service = passage.request.headers.get(SERVICE).and_then(|name| name.to_str().ok());
    let source = attributes::Peer {
        address: Some(address_proto(&connection.address_of(passage.accepted.client))),
        service: service.unwrap_or_default().to_owned(),
        principal: peer.map(principal).unwrap_or_default(),
        certificate,
        ..Default::default()
    };
    let destination = attributes::Peer {
        address: Some(address_proto(&connection.local_address)),
        principal: own.map(principal).unwrap_or_default(),
        ..Default::default()
    };
    let dynamic = metadata_of(passage.exchange.state.as_deref());
    let route = passage.route.map(|route| &route.metadata);
    let sni = tls.and_then(|tls| tls.server_name.as_deref());
    let attributes = proto::AttributeContext {
        source: Some(source),
        destination: Some(destination),
        request: Some(attributes::Request {
            time: Some(timestamp(passage)),
            http: Some(http(config, settings, question, passage)),
        }),
        context_extensions: settings
            .extensions
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        metadata_context: Some(context(dynamic, &config.metadata_namespaces)),
        route_metadata_context: Some(context(route, &config.route_metadata_namespaces)),
        tls_session: sni
            .filter(|_| config.include_tls_session)
            .map(|sni| attributes::TlsSession { sni: sni.to_owned() }),
    };
    proto::CheckRequest { attributes: Some(attributes) }
}

fn http(
    config: &ExtAuthz,
    settings: &Settings<'_>,
    question: &Question,
    passage: &Passage<'_>,
) -> attributes::HttpRequest {
    let view = passage.view();
    let mut http = attributes::HttpRequest {
        id: fastrand::u64(..).to_string(),
        method: view.method.as_str().to_owned(),
        path: view.path_and_query.to_owned(),
        host: view.authority.to_owned(),
        scheme: view.scheme.to_owned(),
        protocol: match passage.request.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        }
        .to_owned(),
        ..Default::default()
    };
    if config.raw_headers {
        let headers = question.headers.iter().map(|(name, value)| core::HeaderValue {
            key: name.clone(),
            value: String::new(),
            raw_value: value.clone(),
        });
        http.header_map = Some(core::HeaderMap { headers: headers.collect() });
    } else {
        http.headers = question
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
            .collect();
    }
    if let Some(sent) = &question.body {
        http.size = i64::try_from(sent.received).unwrap_or(i64::MAX);
        if settings.body.is_some_and(|body| body.as_bytes) {
            http.raw_body = sent.data.to_vec();
        } else {
            http.body = String::from_utf8_lossy(&sent.data).into_owned();
        }
    }
    http
}

/// The first URI SAN, else the first DNS SAN, else the subject.
fn principal(identity: &PeerIdentity) -> String {
    let names = identity.uri_sans.first().or(identity.dns_sans.first());
    names.map_or_else(|| identity.subject.to_string(), ToString::to_string)
}

fn timestamp(passage: &Passage<'_>) -> Timestamp {
    let began = std::time::SystemTime::now() - passage.exchange.start.elapsed();
    let since = began.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn context(metadata: Option<&Metadata>, namespaces: &[Box<str>]) -> core::Metadata {
    let objects = namespaces.iter().filter_map(|namespace| {
        let object = metadata?.0.get(&**namespace)?.as_object()?;
        Some((namespace.to_string(), structure(object)))
    });
    core::Metadata { filter_metadata: objects.collect(), ..Default::default() }
}

fn structure(object: &Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(key, value)| (key.clone(), proto_value(value))).collect() }
}

fn proto_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => value::Kind::NullValue(0),
        Value::Bool(value) => value::Kind::BoolValue(*value),
        Value::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => value::Kind::StringValue(text.clone()),
        Value::Array(list) => {
            value::Kind::ListValue(ListValue { values: list.iter().map(proto_value).collect() })
        }
        Value::Object(object) => value::Kind::StructValue(structure(object)),
    };
    ProtoValue { kind: Some(kind) }
}

/// Calls the service. Whatever goes wrong is a decision of nobody.
pub(super) async fn ask(
    service: &AuthGrpc,
    message: proto::CheckRequest,
    passage: &Passage<'_>,
) -> Verdict {
    let mut framed = BytesMut::new();
    let length = message.encoded_len();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    if message.encode(&mut framed).is_err() {
        return Verdict::failed();
    }
    let mut request = Request::new(framed.freeze());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(METHOD);
    let headers = request.headers_mut();
    headers.insert(HOST, service.authority.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = service.timeout
        && let Ok(value) = HeaderValue::from_str(&format!("{}m", timeout.as_millis()))
    {
        headers.insert(GRPC_TIMEOUT, value);
    }
    for (name, value) in &service.initial_metadata {
        headers.append(name, value.clone());
    }
    call::mark(headers, service.timeout);
    let local = &passage.connection.local;
    let answer =
        call::call(local, &service.cluster, request, Version::HTTP_2, service.timeout, MOST).await;
    match answer {
        Ok(answer) => read(&answer).unwrap_or_else(|reason| {
            tracing::debug!(cluster = %service.cluster, reason, "no decision of the service");
            Verdict::failed()
        }),
        Err(error) => {
            tracing::debug!(cluster = %service.cluster, %error, "no decision of the service");
            Verdict::failed()
        }
    }
}

fn read(answer: &call::Answer) -> Result<Verdict, &'static str> {
    let status = |headers: &HeaderMap| headers.get(GRPC_STATUS).cloned();
    let status = status(&answer.trailers).or_else(|| status(&answer.head.headers));
    if answer.head.status != StatusCode::OK || status.is_none_or(|status| status != "0") {
        return Err("the call failed");
    }
    let frame = answer.body.split_first_chunk::<5>();
    let (prefix, message) = frame.ok_or("an answer without a message")?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if prefix[0] != 0 || message.len() != length {
        return Err("an answer that is no single message");
    }
    let response =
        proto::CheckResponse::decode(message).map_err(|_| "an answer of another kind")?;
    Ok(verdict(response))
}

#[allow(deprecated)] // `OkHttpResponse.dynamic_metadata` still counts
fn verdict(response: proto::CheckResponse) -> Verdict {
    let proto::CheckResponse { status, dynamic_metadata, http_response } = response;
    let is_ok = status.is_none_or(|status| status.code == 0);
    let mut metadata = dynamic_metadata;
    let decision = match (is_ok, http_response) {
        (true, Some(HttpResponse::OkResponse(ok))) => {
            let proto::OkHttpResponse {
                headers,
                headers_to_remove,
                dynamic_metadata,
                response_headers_to_add,
                query_parameters_to_set,
                query_parameters_to_remove,
            } = ok;
            // The deprecated field counts before the newer one, as in Envoy.
            metadata = dynamic_metadata.or(metadata);
            Decision::Allowed(Box::new(Changes {
                request: changes(headers, false),
                remove: headers_to_remove,
                response: changes(response_headers_to_add, true),
                set_parameters: query_parameters_to_set
                    .into_iter()
                    .map(|parameter| (parameter.key, parameter.value))
                    .collect(),
                remove_parameters: query_parameters_to_remove,
            }))
        }
        (true, _) => Decision::Allowed(Box::default()),
        (false, Some(HttpResponse::ErrorResponse(error))) => {
            Decision::Failed(Some(Box::new(denial(error))))
        }
        (false, Some(HttpResponse::DeniedResponse(denied))) => {
            Decision::Denied(Box::new(denial(denied)))
        }
        (false, _) => Decision::Denied(Box::new(Denial {
            status: StatusCode::FORBIDDEN,
            headers: Vec::new(),
            body: Bytes::new(),
        })),
    };
    let metadata = metadata.map(json_object).unwrap_or_default();
    Verdict { decision, metadata }
}

fn denial(proto: proto::DeniedHttpResponse) -> Denial {
    let proto::DeniedHttpResponse { status, headers, body } = proto;
    let status = status
        .and_then(|status| u16::try_from(status.code).ok())
        .filter(|code| (100..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok());
    Denial {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: changes(headers, false),
        body: body.into(),
    }
}

/// Envoy looks at `append_action` for headers of an answer that passes only.
#[allow(deprecated)] // `HeaderValueOption.append` still counts
fn changes(headers: Vec<core::HeaderValueOption>, of_answer: bool) -> Vec<Change> {
    headers
        .into_iter()
        .filter_map(|option| {
            let core::HeaderValueOption { header, append, append_action, keep_empty_value: _ } =
                option;
            let core::HeaderValue { key, value, raw_value } = header?;
            let action = match (append.map(|append| append.value), of_answer) {
                (Some(true), _) => Action::JoinIfExists,
                (None, true) => Action::As(match HeaderAppendAction::try_from(append_action) {
                    Ok(HeaderAppendAction::AppendIfExistsOrAdd) => {
                        AppendAction::AppendIfExistsOrAdd
                    }
                    Ok(HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
                    Ok(HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
                    Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) | Err(_) => {
                        AppendAction::OverwriteIfExistsOrAdd
                    }
                }),
                _ => Action::As(AppendAction::OverwriteIfExistsOrAdd),
            };
            let value = if value.is_empty() { raw_value } else { value.into_bytes() };
            Some(Change { name: key, value, action })
        })
        .collect()
}
