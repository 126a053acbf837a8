use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tokio::net::TcpListener;

use super::next_hop::NextHop;
use super::switches::Switches;
use super::{App, grpc, http as server};
use crate::http_pool::Pool;

fn app(service: &str, next: Option<NextHop>) -> Arc<App> {
    Arc::new(App {
        service: service.to_owned(),
        instance: format!("{service}-1"),
        switches: Switches::new("v1".to_owned()),
        next,
    })
}

async fn start_http(app: Arc<App>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, app));
    address
}

async fn start_ledger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(grpc::serve(listener, app("ledger", None)));
    address
}

async fn get(address: SocketAddr, path: &str) -> Response<Bytes> {
    let request = Request::get(path)
        .header("host", "demo")
        .header("x-canary", "1")
        .header("x-forwarded-for", "10.0.0.1")
        .body(Full::default())
        .unwrap();
    Pool::new(address, Duration::from_secs(10)).send(request).await.unwrap()
}

#[tokio::test]
async fn the_answer_names_every_hop_down_to_the_ledger() {
    let ledger = start_ledger().await;
    let next = NextHop::grpc(ledger, "ledger:7000").unwrap();
    let api = start_http(app("api", Some(next))).await;
    let next = NextHop::http(api, "api:9000".to_owned());
    let web = start_http(app("web", Some(next))).await;

    let response = get(web, "/orders?q=1").await;
    assert_eq!(response.status(), 200);
    for service in ["web", "api", "ledger"] {
        assert_eq!(response.headers()[&format!("x-{service}-instance")], format!("{service}-1"));
        assert_eq!(response.headers()[&format!("x-{service}-version")], "v1");
    }
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["next"]["path"], "/orders?q=1");
    assert_eq!(body["next"]["headers"]["host"], "api:9000");
    assert_eq!(body["next"]["next"]["sequence"], 1);
}

#[tokio::test]
async fn callers_headers_are_passed_on_but_not_those_of_one_hop() {
    let api = start_http(app("api", None)).await;
    let web = start_http(app("web", Some(NextHop::http(api, "api".to_owned())))).await;
    let body: Value = serde_json::from_slice(get(web, "/").await.body()).unwrap();
    assert_eq!(body["next"]["headers"]["x-canary"], "1");
    assert!(body["next"]["headers"].get("x-forwarded-for").is_none());
}

#[tokio::test]
async fn switches_act_on_the_next_request() {
    let address = start_http(app("api", None)).await;
    assert_eq!(get(address, "/version?set=v2").await.status(), 200);
    assert_eq!(get(address, "/").await.headers()["x-api-version"], "v2");
    assert_eq!(get(address, "/fail?rate=1").await.status(), 200);
    assert_eq!(get(address, "/").await.status(), 500);
    assert_eq!(get(address, "/fail?rate=0").await.status(), 200);
    assert_eq!(get(address, "/").await.status(), 200);
}

#[tokio::test]
async fn a_switch_with_a_bad_value_is_refused_and_changes_nothing() {
    let address = start_http(app("api", None)).await;
    for bad in ["/fail", "/fail?rate=2", "/fail?rate=x", "/delay?ms=-1", "/version?set=a%0d"] {
        assert_eq!(get(address, bad).await.status(), 400, "{bad}");
    }
    assert_eq!(get(address, "/").await.status(), 200);
}

#[tokio::test]
async fn a_failure_behind_is_told_as_it_is() {
    let failing = app("api", None);
    failing.switches.turn("/fail", Some("rate=1")).unwrap().unwrap();
    let api = start_http(failing).await;
    let web = start_http(app("web", Some(NextHop::http(api, "api".to_owned())))).await;
    let response = get(web, "/").await;
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["x-api-instance"], "api-1");
}
