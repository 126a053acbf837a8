use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

/// Answers the nth request (from 0) with what `answer` makes of n; counts connections.
async fn server(
    answer: impl Fn(u64) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let counted = connections.clone();
    let requests = Arc::new(AtomicU64::new(0));
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let (answer, requests) = (answer.clone(), requests.clone());
            let service = service_fn(move |_| {
                let response = answer(requests.fetch_add(1, Ordering::Relaxed));
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections)
}

fn response(status: u16, headers: &[(&'static str, &'static str)]) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::default()).unwrap()
}

#[tokio::test]
async fn responses_are_counted_by_status_version_and_instance() {
    let (address, _) = server(|n| match n % 4 {
        0 => response(200, &[("x-api-version", "v2"), ("x-api-instance", "api-4")]),
        _ => response(
            200,
            &[("x-web-instance", "web-1"), ("x-api-version", "v1"), ("x-api-instance", "api-1")],
        ),
    })
    .await;
    let stats = Plan::get(address, "web", "/", 1000).requests(40).run().await;
    assert_eq!((stats.ended, stats.failed), (40, 0));
    assert_eq!(stats.by_status[&200], 40);
    assert_eq!(stats.share_of_version("v2"), 0.25);
    assert_eq!(stats.share_of_instance("api-1"), 0.75);
    assert_eq!(stats.share_of_instance("api-9"), 0.0);
    assert_eq!(stats.share_of_instance("web-1"), 1.0);
}

#[tokio::test]
async fn a_failure_is_counted_with_its_cause() {
    let (address, _) = server(|n| match n {
        0 => response(503, &[("x-outrigger-reason", "no_healthy_upstream")]),
        1 => response(500, &[("x-api-instance", "api-2")]),
        _ => response(200, &[]),
    })
    .await;
    let stats = Plan::get(address, "web", "/", 1000).requests(3).run().await;
    assert_eq!(stats.failed, 2);
    assert_eq!(
        stats.causes_in_words(),
        "1x status 500 from api-2, 1x status 503: no_healthy_upstream"
    );
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stats = Plan::get(address, "web", "/", 1000).requests(1).run().await;
    assert_eq!(stats.failed, 1);
    assert!(stats.causes_in_words().contains(&address.to_string()), "{:?}", stats.causes);
}

#[tokio::test]
async fn connections_are_kept_alive_between_requests() {
    let (address, connections) = server(|_| response(200, &[])).await;
    let stats = Plan::get(address, "web", "/", 100).requests(20).run().await;
    assert_eq!(stats.failed, 0);
    assert!(connections.load(Ordering::Relaxed) < 10);
}

#[tokio::test]
async fn a_snapshot_counts_what_happened_since_another() {
    let (address, _) = server(|_| response(200, &[])).await;
    let load = Load::start(Plan::get(address, "web", "/", 1000));
    while load.snapshot().ended < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = load.snapshot();
    let after = load.stop().await;
    assert_eq!(after.since(&before).ended, after.ended - before.ended);
    assert_eq!(after.since(&after).ended, 0);
}
