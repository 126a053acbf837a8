//! The HTTP server: every path answers who served the request, as JSON and in headers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::App;
use super::next_hop::Answer;

/// Accepts until the process ends.
pub(super) async fn serve(listener: TcpListener, app: Arc<App>) -> anyhow::Result<()> {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, most likely: waiting frees some, ending the application would not help.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without it, small answers wait for the peer's delayed ACK.
        let _ = stream.set_nodelay(true);
        let app = app.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let app = app.clone();
                async move { Ok::<_, Infallible>(answer(&app, request).await) }
            });
            // A connection that breaks concerns its peer alone.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(app: &App, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if let Some(turned) = app.switches.turn(parts.uri.path(), parts.uri.query()) {
        let (status, text) = match turned {
            Ok(text) => (StatusCode::OK, text),
            Err(text) => (StatusCode::BAD_REQUEST, text),
        };
        return respond(status, HeaderMap::new(), &json!({ "switch": text }));
    }
    // Read before answering, or the connection could not be kept alive.
    if let Err(error) = body.collect().await {
        let error = format!("request body: {error}");
        return respond(StatusCode::BAD_REQUEST, HeaderMap::new(), &json!({ "error": error }));
    }
    tokio::time::sleep(app.switches.delay()).await;
    if app.switches.fails_now() {
        let body =
            json!({ "service": app.service, "instance": app.instance, "error": "told to fail" });
        return respond(StatusCode::INTERNAL_SERVER_ERROR, own_headers(app), &body);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let next = match &app.next {
        Some(next) => Some(next.call(path, &parts.headers).await),
        None => None,
    };
    let mut headers = own_headers(app);
    let mut body = json!({
        "service": app.service,
        "instance": app.instance,
        "version": app.switches.version(),
        "method": parts.method.as_str(),
        "path": path,
        "headers": headers_as_json(&parts.headers),
    });
    let mut status = StatusCode::OK;
    if let Some(Answer { status: next_status, headers: trail, body: next_body }) = next {
        // What went wrong behind us is told as it is.
        status = next_status;
        headers.extend(trail);
        body["next"] = next_body;
    }
    respond(status, headers, &body)
}

/// `x-SERVICE-version` and `x-SERVICE-instance`.
fn own_headers(app: &App) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (suffix, value) in [("version", &app.switches.version()), ("instance", &app.instance)] {
        let name: Result<HeaderName, _> = format!("x-{}-{suffix}", app.service).parse();
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

fn headers_as_json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match object.get_mut(name.as_str()) {
            Some(Value::String(first)) => {
                first.push_str(", ");
                first.push_str(&value);
            }
            _ => {
                object.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    Value::Object(object)
}

fn respond(status: StatusCode, headers: HeaderMap, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
