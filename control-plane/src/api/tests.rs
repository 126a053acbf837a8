use super::testing::{Answer, Server};
use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

const API: &str = "{kind: Service, name: api, spec: {ports: [{port: 9000, protocol: http}]}}\n";
const POLICY: &str = "{kind: Policy, name: p, spec: {to: [{service: api}], action: deny}}\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn names(items: &Value) -> Vec<&str> {
    items["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_apply_is_one_revision_and_says_what_became_of_each_object() {
    let server = Server::start().await;
    server.view.set(2, 3, &["web-1"]);
    let answer = server.apply(&format!("{POLICY}---\n{API}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"revision": 1, "acked": 2, "total": 3, "objects": [
            {"kind": "Policy", "name": "p", "action": "created"},
            {"kind": "Service", "name": "api", "action": "created"}]})
    );
    let again = server.apply(&format!("{POLICY}---\n{}", API.replace("9000", "9001"))).await.json();
    assert_eq!(again["revision"], 2);
    assert_eq!(again["objects"][0]["action"], "unchanged");
    assert_eq!(again["objects"][1]["action"], "updated");
    let same = server.apply(POLICY).await.json();
    assert_eq!(same["revision"], 2, "nothing changed, so there is no new revision");
    let gone = server.apply("{kind: Policy, name: p, delete: true}").await.json();
    assert_eq!((&gone["revision"], &gone["objects"][0]["action"]), (&json!(3), &json!("deleted")));
}

#[tokio::test]
async fn an_apply_with_an_invalid_document_changes_nothing_and_names_every_problem() {
    let server = Server::start().await;
    let bad = "\
---
kind: Service
name: web
spec: {ports: [{port: 0, protocol: http}], loadBalancer: {policy: leest_request}}
---
kind: Policy
name: q
spec: {to: [{service: api}], action: permit}
";
    let problem = server.apply(&format!("{API}{bad}")).await.problem(422);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 3);
    assert_eq!(
        errors[1],
        json!({"code": "unknown_value", "kind": "Service", "name": "web", "field": "spec.loadBalancer.policy",
            "reason": "`leest_request` is none of the choices", "suggestion": "least_request",
            "choices": ["round_robin", "least_request", "peak_ewma", "random", "ring_hash", "maglev"], "line": 5, "column": 67})
    );
    assert!(names(&server.get("/v1/services").await.json()).is_empty());
    let missing = server.apply(POLICY).await.problem(422);
    assert_eq!(missing["errors"][0]["code"], "not_found");
    assert_eq!(missing["errors"][0]["field"], "spec.to[0].service");
    assert_eq!(server.get("/v1/status").await.json()["revision"], 0);
}

#[tokio::test]
async fn a_dry_run_answers_the_same_and_changes_nothing() {
    let server = Server::start().await;
    let answer = server.send("POST", "/v1/apply?dryRun=true", &[], API).await;
    assert_eq!((answer.status, &answer.json()["objects"][0]["action"]), (200, &json!("created")));
    assert_eq!(answer.json()["revision"], 0);
    server.send("POST", "/v1/apply?dryRun=true", &[], "kind: x").await.problem(422);
    server.get("/v1/services/api").await.problem(404);
}

#[tokio::test]
async fn an_apply_that_waits_answers_when_all_have_acknowledged() {
    let server = Server::start().await;
    server.view.set(1, 2, &["web-1"]);
    let acknowledged = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.view.set(2, 2, &[]);
    };
    let (answer, ()) =
        tokio::join!(server.send("POST", "/v1/apply?wait=20s", &[], API), acknowledged);
    assert_eq!((answer.status, &answer.json()["acked"]), (200, &json!(2)));
}

#[tokio::test]
async fn an_apply_whose_wait_runs_out_names_the_laggards_and_stays_in_force() {
    let server = Server::start().await;
    server.view.set(1, 2, &["web-1"]);
    let problem = server.send("POST", "/v1/apply?wait=20ms", &[], API).await.problem(504);
    assert_eq!(problem["laggards"], json!([{"node": "web-1", "reason": "no answer yet"}]));
    assert_eq!(
        (&problem["revision"], &problem["acked"], &problem["total"]),
        (&json!(1), &json!(1), &json!(2))
    );
    assert!(problem["detail"].as_str().unwrap().contains("web-1"));
    assert_eq!(server.get("/v1/services/api").await.status, 200);
}

#[tokio::test]
async fn an_apply_without_documents_is_refused() {
    let server = Server::start().await;
    for body in ["", "---\n# nothing\n", "[]"] {
        server.apply(body).await.problem(422);
    }
}

#[tokio::test]
async fn an_object_answers_itself_with_revision_status_and_etag() {
    let server = Server::start().await;
    server.apply(API).await;
    let answer = server.get("/v1/services/api").await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"1\""));
    assert_eq!(
        answer.json(),
        json!({"kind": "Service", "name": "api", "spec": {
            "ports": [{"port": 9000, "protocol": "http"}], "loadBalancer": {"policy": "least_request"}},
            "revision": 1, "status": {"state": "Accepted", "acked": 1, "total": 1, "problems": []}})
    );
    let list = server.get("/v1/services").await.json();
    assert_eq!(list, json!({"items": [answer.json()]}));
    server.get("/v1/services/web").await.problem(404);
    server.get("/v1/servces").await.problem(404);
}

#[tokio::test]
async fn put_creates_or_replaces_and_takes_back_what_get_answered() {
    let server = Server::start().await;
    let created = server.send("PUT", "/v1/services/api", &[], API).await;
    assert_eq!((created.status, created.header("etag")), (201, "\"1\""));
    let replaced = server.send("PUT", "/v1/services/api", &[], API.replace("9000", "9001")).await;
    assert_eq!((replaced.status, replaced.header("etag")), (200, "\"2\""));
    let read = server.get("/v1/services/api").await.text;
    let same = server.send("PUT", "/v1/services/api", &[], read).await;
    assert_eq!((same.status, same.header("etag")), (200, "\"2\""));
    let spec_alone = "spec: {ports: [{port: 1, protocol: tcp}]}";
    assert_eq!(server.send("PUT", "/v1/services/db", &[], spec_alone).await.status, 201);
}

#[tokio::test]
async fn put_of_something_else_than_the_path_says_is_refused() {
    let server = Server::start().await;
    let put = async |path: &str, body: &'static str| {
        let problem = server.send("PUT", path, &[], body).await.problem(422);
        problem["errors"][0]["field"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(put("/v1/services/web", API).await, "name");
    assert_eq!(put("/v1/policies/api", API).await, "kind");
    assert_eq!(put("/v1/services/Web", "spec: {ports: [{port: 1, protocol: tcp}]}").await, "name");
    assert_eq!(put("/v1/services/api", "{delete: true}").await, "delete");
    put("/v1/services/api", "").await;
    put("/v1/services/api", "a: 1\n---\nb: 1\n").await;
    server.send("PUT", "/v1/policies/p", &[], POLICY).await.problem(422);
}

#[tokio::test]
async fn a_write_for_an_object_that_changed_meanwhile_is_refused() {
    let server = Server::start().await;
    server.apply(API).await;
    let put = async |header: &str, value: &str| {
        server
            .send("PUT", "/v1/services/api", &[(header, value)], API.replace("9000", "9002"))
            .await
    };
    put("if-match", "\"7\"").await.problem(412);
    put("if-match", "W/\"1\"").await.problem(412);
    put("if-none-match", "*").await.problem(412);
    assert_eq!(put("if-match", "\"0\", \"1\"").await.status, 200);
    assert_eq!(put("if-match", "*").await.status, 200);
    let new = [("if-match", "*")];
    server
        .send("PUT", "/v1/services/new", &new, "spec: {ports: [{port: 1, protocol: tcp}]}")
        .await
        .problem(412);
    let old = [("if-match", "\"1\"")];
    server.send("DELETE", "/v1/services/api", &old, "").await.problem(412);
    let now = [("if-match", "\"2\"")];
    assert_eq!(server.send("DELETE", "/v1/services/api", &now, "").await.status, 204);
}

#[tokio::test]
async fn delete_answers_204_then_404_and_409_with_the_users_while_it_is_used() {
    let server = Server::start().await;
    server.apply(&format!("{API}---\n{POLICY}")).await;
    let problem = server.send("DELETE", "/v1/services/api", &[], "").await.problem(409);
    assert_eq!(problem["errors"][0]["code"], "in_use");
    assert!(problem["errors"][0]["reason"].as_str().unwrap().contains("Policy `p`"));
    server.apply("{kind: Service, name: api, delete: true}").await.problem(409);
    let gone = server.send("DELETE", "/v1/policies/p", &[], "").await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    server.send("DELETE", "/v1/policies/p", &[], "").await.problem(404);
    assert_eq!(server.send("DELETE", "/v1/services/api", &[], "").await.status, 204);
}

#[tokio::test]
async fn unknown_paths_methods_and_parameters_are_problems() {
    let server = Server::start().await;
    for path in
        ["/", "/v1", "/v2/services", "/v1/services/", "/v1/services/a/b", "/v1/explain", "/v1/%ff"]
    {
        let answer = server.get(path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}");
        answer.problem(answer.status);
    }
    for path in ["/v1/roots/rotate", "/v1/things", "/v1/identities/web/revoke"] {
        server.send("POST", path, &[], "").await.problem(404);
    }
    let wrong = server.send("POST", "/v1/services/api", &[], "").await;
    wrong.problem(405);
    for method in ["GET", "PUT", "DELETE"] {
        assert!(wrong.header("allow").contains(method), "{}", wrong.header("allow"));
    }
    server.get("/v1/apply").await.problem(405);
    for path in [
        "/v1/services?x=1",
        "/v1/status?a",
        "/v1/endpoints?servce=a",
        "/v1/export?x=",
        "/healthz?x=1",
        "/metrics?x=1",
        "/v1/history?limit=0",
        "/v1/history?limit=x",
        "/v1/endpoints?service=a&service=b",
    ] {
        server.get(path).await.problem(400);
    }
    for query in
        ["dryRun=yes", "wait=5", "wait=-1s", "wait=11h", "dryRun=true&dryRun=true", "dry_run=true"]
    {
        server.send("POST", &format!("/v1/apply?{query}"), &[], API).await.problem(400);
    }
    let meant = server.get("/v1/endpoints?servce=a").await.json();
    assert!(meant["detail"].as_str().unwrap().contains("did you mean `service`?"));
}

#[tokio::test]
async fn a_body_over_ten_megabytes_is_refused_with_a_length_in_chunks_and_inflated() {
    let server = Server::start().await;
    let limit = super::input::BODY_LIMIT;
    let comment = |length: usize| {
        let mut text = API.to_owned() + "#";
        text.push_str(&"x".repeat(length - text.len()));
        text
    };
    assert_eq!(server.apply(&comment(limit)).await.status, 200);
    server.apply(&comment(limit + 1)).await.problem(413);
    let chunks = vec![Bytes::from(vec![b'#'; 1 << 20]); 11];
    server.send_chunked("POST", "/v1/apply", chunks).await.problem(413);
    let bomb = gzip(&vec![b'#'; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    let encoded = [("content-encoding", "gzip")];
    server.send("POST", "/v1/apply", &encoded, bomb).await.problem(413);
}

#[tokio::test]
async fn a_body_may_be_gzip_and_nothing_else() {
    let server = Server::start().await;
    let send = async |encoding: &str, body: Vec<u8>| {
        server.send("POST", "/v1/apply", &[("content-encoding", encoding)], body).await
    };
    assert_eq!(send("gzip", gzip(API.as_bytes())).await.status, 200);
    assert_eq!(send("identity", API.into()).await.status, 200);
    send("gzip", API.into()).await.problem(400);
    send("gzip", gzip(API.as_bytes())[..20].to_vec()).await.problem(400);
    send("br", API.into()).await.problem(415);
    server.send("POST", "/v1/apply", &[], &b"\xff\xfe"[..]).await.problem(400);
}

#[tokio::test]
async fn status_tells_of_sidecars_and_of_objects() {
    let server = Server::start().await;
    server.apply(API).await;
    let object = json!({"kind": "Service", "name": "api", "revision": 1,
        "state": "Accepted", "acked": 1, "total": 1, "problems": []});
    assert_eq!(
        server.get("/v1/status").await.json(),
        json!({"revision": 1, "objects": [object],
            "alarms": [{"code": "certificate_expired",
                "detail": "the certificate of web-1 ended 1970-01-02T00:00:00Z: its peers refuse it; see its log"}],
            "sidecars": [{
            "node": "web-1", "service": "web", "instance": "web-1", "connected": true,
            "client": "outrigger", "revision": 3, "listeners": {"state": "ok"},
            "routes": {"state": "pending"},
            "clusters": {"state": "REJECTED", "reason": "no such thing"},
            "endpoints": {"state": "ok"}, "secrets": {"state": "ok"},
            "certificateExpires": "1970-01-02T00:00:00Z", "lastContact": "1970-01-01T00:00:00Z"}]})
    );
    assert_eq!(server.get("/v1/status/services/api").await.json(), object);
    server.get("/v1/status/services/web").await.problem(404);
    server.get("/v1/status/things/web").await.problem(404);
}

#[tokio::test]
async fn endpoints_are_those_that_are_observed() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/endpoints").await.json()["items"].as_array().unwrap().len(), 2);
    let one = server.get("/v1/endpoints?service=api").await.json();
    assert_eq!(
        one["items"],
        json!([{"service": "api", "instance": "api-1", "address": "127.0.0.1", "port": 9000,
            "health": "ejected", "weight": 1, "activeRequests": 0, "locality": {}, "labels": {},
            "seenBy": []}])
    );
    assert_eq!(server.get("/v1/endpoints?service=none").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_token_is_made_for_a_service_with_defaults() {
    let server = Server::start().await;
    let create = async |body: &str| server.send("POST", "/v1/tokens", &[], body.to_owned()).await;
    let answer = create(r#"{"service": "web", "ttl": "24h", "uses": 3}"#).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    assert_eq!(
        answer.json(),
        json!({"token": "orj1.web.3", "service": "web", "expires": "1970-01-02T00:00:00Z", "uses": 3})
    );
    let defaults = create(r#"{"service": "web"}"#).await.json();
    assert_eq!(
        (&defaults["expires"], &defaults["uses"]),
        (&json!("1970-01-01T01:00:00Z"), &json!(1))
    );
    for body in [
        "",
        "{}",
        r#"{"service": "Web"}"#,
        r#"{"service": "web", "ttl": 5}"#,
        r#"{"service": "web", "uses": 0}"#,
        r#"{"service": "web", "use": 1}"#,
        "[",
        "{}\n---\n{}",
    ] {
        create(body).await.problem(422);
    }
}

#[tokio::test]
async fn history_is_listed_from_the_newest_back() {
    let server = Server::start().await;
    server.apply(API).await;
    server.apply(POLICY).await;
    let items = server.get("/v1/history").await.json()["items"].clone();
    let revisions: Vec<_> =
        items.as_array().unwrap().iter().map(|it| it["revision"].clone()).collect();
    assert_eq!(revisions, [2, 1]);
    assert_eq!(items[0]["author"], "api@127.0.0.1");
    assert_eq!(items[0]["changes"], json!([{"kind": "Policy", "name": "p", "action": "created"}]));
    assert!(items[0]["time"].as_str().unwrap().ends_with('Z'));
    let newest = server.get("/v1/history?limit=1").await.json();
    assert_eq!(newest["items"].as_array().unwrap().len(), 1);
    assert_eq!(newest["items"][0]["revision"], 2);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_objects_of_the_old_one() {
    let server = Server::start().await;
    server.apply(&format!("{API}---\n{POLICY}")).await;
    server
        .apply(&format!("{}---\n{{kind: Policy, name: p, delete: true}}", API.replace("9000", "1")))
        .await;
    let answer = server.send("POST", "/v1/rollback/1", &[], "{}").await;
    assert_eq!((answer.status, &answer.json()["revision"]), (200, &json!(3)));
    let api = server.get("/v1/services/api").await.json();
    assert_eq!(api["spec"]["ports"][0]["port"], 9000);
    assert_eq!(server.get("/v1/policies/p").await.status, 200);
    let empty = server.send("POST", "/v1/rollback/0", &[], "").await.json();
    assert_eq!(empty["revision"], 4);
    assert!(names(&server.get("/v1/services").await.json()).is_empty());
    let author = server.get("/v1/history?limit=1").await.json()["items"][0]["author"].clone();
    assert_eq!(author, "api@127.0.0.1 (rollback to 0)");
    for path in ["/v1/rollback/99", "/v1/rollback/x", "/v1/rollback/-1"] {
        server.send("POST", path, &[], "").await.problem(404);
    }
}

#[tokio::test]
async fn an_export_applied_to_an_empty_mesh_makes_the_same_objects() {
    let server = Server::start().await;
    let objects = "{kind: Service, name: yes, labels: {a: '1', b: 'true', c: ''}, spec: {ports: [{port: 1, protocol: http}], subsets: [{name: '1', labels: {v: '0x1'}}]}}\n---\n{kind: Route, name: r, spec: {hosts: [yes], rules: [{matches: [{headers: [{name: a, value: 'null'}, {name: b, value: '- x: y #z'}]}], backendRefs: [{name: yes, subset: '1'}]}]}}\n";
    assert_eq!(server.apply(objects).await.status, 200);
    let export = server.get("/v1/export").await;
    assert_eq!(export.header("content-type"), "application/yaml");
    let other = Server::start().await;
    let applied = other.apply(&export.text).await;
    assert_eq!(applied.status, 200, "{}\n{}", applied.text, export.text);
    assert_eq!(other.get("/v1/export").await.text, export.text);
    let again = server.apply(&export.text).await.json();
    assert_eq!(again["revision"], 1, "nothing changes where it came from");
}

/// The next event of a stream, comments left out.
async fn next_event(body: &mut hyper::body::Incoming, buffer: &mut String) -> String {
    loop {
        if let Some((event, rest)) =
            buffer.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned()))
        {
            *buffer = rest;
            if !event.starts_with(':') {
                return event;
            }
            continue;
        }
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
        let data = frame.unwrap().unwrap().into_data().unwrap();
        buffer.push_str(std::str::from_utf8(&data).unwrap());
    }
}

#[tokio::test]
async fn events_come_one_a_revision_and_resume_behind_the_last() {
    let server = Server::start().await;
    server.apply(API).await;
    let listen = async |headers: &[(&str, &str)]| {
        let response = server.response("GET", "/v1/events", headers, Empty::<Bytes>::new()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        // The greeting says that whatever happens from now on will come.
        body.frame().await.unwrap().unwrap();
        (body, String::new())
    };
    let (mut new, mut buffer) = listen(&[]).await;
    server.apply(POLICY).await;
    let event = next_event(&mut new, &mut buffer).await;
    let data = event.strip_prefix("id: 2\nevent: revision\ndata: ").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["revision"], &data["changes"][0]["name"]), (&json!(2), &json!("p")));

    let (mut resumed, mut buffer) = listen(&[("last-event-id", "0")]).await;
    assert!(next_event(&mut resumed, &mut buffer).await.starts_with("id: 1\n"));
    assert!(next_event(&mut resumed, &mut buffer).await.starts_with("id: 2\n"));

    for bad in ["x", "3", "-1"] {
        server.send("GET", "/v1/events", &[("last-event-id", bad)], "").await.problem(400);
    }
}

#[tokio::test]
async fn a_stop_ends_event_streams_and_then_the_server() {
    let server = Server::start().await;
    let response = server.response("GET", "/v1/events", &[], Empty::<Bytes>::new()).await;
    // With something still to be told: that must not make it miss the stop.
    server.apply(API).await;
    server.ready.send_replace(false);
    server.stop.cancel();
    response.into_body().collect().await.unwrap();
    tokio::time::timeout(Duration::from_secs(4), server.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn health_and_readiness_are_two_things() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
    server.ready.send_replace(false);
    assert_eq!(server.get("/healthz").await.status, 200);
    server.get("/readyz").await.problem(503);
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_count_what_happens() {
    let server = Server::start().await;
    server.apply(API).await;
    server.apply("kind: x").await;
    let answer = server.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in [
        "outrigger_config_revision 1",
        "outrigger_objects{kind=\"Service\"} 1",
        "outrigger_clients{state=\"connected\"} 1",
        "outrigger_clients_rejecting 1",
        "outrigger_endpoints{health=\"ejected\"} 1",
        "outrigger_transactions_total{outcome=\"changed\"} 1",
        "outrigger_transactions_total{outcome=\"rejected\"} 1",
        "outrigger_api_responses_total{code=\"422\"} 1",
    ] {
        assert!(answer.text.lines().any(|it| it == line), "{line}\n{}", answer.text);
    }
    for line in answer.text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_change_the_mesh() {
    let server = Server::start().await;
    let own = format!("http://{}", server.address);
    let send =
        async |origin: &str| server.send("POST", "/v1/apply", &[("origin", origin)], API).await;
    send("https://evil.example").await.problem(403);
    send("null").await.problem(403);
    assert_eq!(send(&own).await.status, 200);
    let read = server.send("GET", "/v1/services", &[("origin", "https://evil.example")], "").await;
    assert_eq!(read.status, 200);
}

#[tokio::test]
async fn of_writers_at_the_same_time_each_makes_its_revision() {
    let server = Server::start().await;
    let write = async |number: usize| -> Answer {
        let body = format!(
            "{{kind: Service, name: s{number}, spec: {{ports: [{{port: 1, protocol: http}}]}}}}"
        );
        server.apply(&body).await
    };
    let answers = futures_util::future::join_all((0..20).map(write)).await;
    let mut revisions: Vec<_> =
        answers.iter().map(|it| it.json()["revision"].as_u64().unwrap()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_trust_domain_stays_while_the_mesh_has_members() {
    let server = Server::start().await;
    let mesh = |domain: &str| {
        format!("{{kind: Mesh, name: default, spec: {{trustDomain: {domain}, mtls: permissive}}}}")
    };
    assert_eq!(server.apply(&mesh("outrigger.local")).await.status, 200);
    let problem = server.apply(&mesh("other.example")).await.problem(409);
    assert_eq!(problem["errors"][0]["field"], "spec.trustDomain");
    assert!(problem["errors"][0]["reason"].as_str().unwrap().contains("web-1"));
    server.view.members.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(server.apply(&mesh("other.example")).await.status, 200);
}

/// Bodies made of pieces of documents, and of any bytes.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "kind: ",
        "Service",
        "Mesh",
        "\nname: ",
        "api",
        "\nspec: ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "ports: ",
        "port: ",
        "9000",
        "protocol: ",
        "http",
        "\n---\n",
        "delete: true",
        "items: ",
        "\"",
        "&a ",
        "*a",
        "\n",
        "  ",
        "- ",
        ": ",
        "-1",
    ];
    let documents = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40);
    prop_oneof![
        documents.prop_map(|pieces| pieces.concat().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(gzip(API.as_bytes())),
    ]
}

#[tokio::test]
async fn no_body_at_any_path_gives_a_server_error() {
    let server = Server::start().await;
    let calls = [
        ("POST", "/v1/apply"),
        ("POST", "/v1/apply?dryRun=true"),
        ("PUT", "/v1/services/api"),
        ("PUT", "/v1/meshes/default"),
        ("PUT", "/v1/routes/%F0%9F%92%A9"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/rollback/0"),
        ("DELETE", "/v1/services/api"),
    ];
    let mut runner = TestRunner::deterministic();
    for number in 0..400 {
        let body = any_body().new_tree(&mut runner).unwrap().current();
        let (method, path) = calls[number % calls.len()];
        let encoding = if number % 5 == 0 { "gzip" } else { "identity" };
        let answer =
            server.send(method, path, &[("content-encoding", encoding)], body.clone()).await;
        assert!(answer.status < 500, "{method} {path} {}: {body:?}", answer.text);
        if answer.status >= 400 {
            answer.problem(answer.status);
        }
    }
}

#[tokio::test]
async fn a_mesh_configured_from_a_directory_is_written_by_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(Some(directory.path().to_owned())).await;
    server.apply(API).await.problem(403);
    server.send("PUT", "/v1/services/api", &[], API).await.problem(403);
    server.send("DELETE", "/v1/services/api", &[], "").await.problem(403);
    server.send("POST", "/v1/rollback/0", &[], "").await.problem(403);
    assert_eq!(server.send("POST", "/v1/apply?dryRun=true", &[], API).await.status, 200);
    assert_eq!(server.send("POST", "/v1/tokens", &[], "{service: web}").await.status, 201);
}

mod directory {
    use super::super::directory::{apply, follow, look};
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn what_the_files_say_is_the_whole_configuration() {
        let server = Server::start().await;
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let load = async || apply(&server.api, &look(directory.path()).unwrap()).await;
        server
            .apply("{kind: Service, name: old, spec: {ports: [{port: 1, protocol: http}]}}")
            .await;
        write("b.yaml", POLICY);
        write(
            "a.json",
            r#"{"kind": "Service", "name": "api", "spec": {"ports": [{"port": 9000, "protocol": "http"}]}}"#,
        );
        write(".hidden.yaml", "nonsense");
        write("README.md", "nonsense");
        assert!(load().await);
        let names: Vec<_> =
            server.store.current().objects().map(|(it, _)| it.name().to_owned()).collect();
        assert_eq!(names, ["api", "p"]);
        assert_eq!(
            server.get("/v1/history?limit=1").await.json()["items"][0]["author"],
            "config-dir"
        );

        write("b.yaml", "kind: Policy\nname: p\nspec: {to: [{service: gone}], action: deny}\n");
        assert!(!load().await);
        write("b.yaml", "{kind: Service, name: api, delete: true}");
        assert!(!load().await);
        write("b.yaml", API);
        assert!(!load().await, "one object in two files");
        assert_eq!(server.store.current().revision(), 2, "the last valid one stays in force");
        std::fs::remove_file(directory.path().join("b.yaml")).unwrap();
        assert!(load().await);
        assert_eq!(server.store.current().revision(), 3);
    }

    #[tokio::test]
    async fn a_change_of_a_file_is_followed() {
        let server = Server::start().await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let follower = tokio::spawn(follow(server.api.clone(), path, server.stop.clone()));
        let mut watch = server.store.watch();
        let mut next = async || {
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap().unwrap();
            watch.borrow_and_update().revision()
        };
        std::fs::write(directory.path().join("a.yaml"), API).unwrap();
        assert_eq!(next().await, 1);
        std::fs::write(directory.path().join("a.yaml"), format!("{API}---\n{POLICY}")).unwrap();
        assert_eq!(next().await, 2);
        server.stop.cancel();
        follower.await.unwrap();
    }
}

const TOKENS: &str = "tokens:
- {name: ann, role: admin, token: aaaaaaaaaaaaaaaaaaaa}
- {name: ed, role: editor, token: eeeeeeeeeeeeeeeeeeee}
- {name: vi, role: viewer, token: vvvvvvvvvvvvvvvvvvvv}
";

async fn guarded() -> Server {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.yaml");
    std::fs::write(&path, TOKENS).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Server::start_for(Some(super::roles::Roles::read(&path).unwrap()), None).await
}

fn bearer(letter: &str) -> String {
    format!("Bearer {}", letter.repeat(20))
}

#[tokio::test]
async fn each_role_may_do_its_own_and_what_the_roles_before_it_may() {
    let server = guarded().await;
    let document = "{kind: Service, name: a, spec: {ports: [{port: 1, protocol: http}]}}";
    let status = async |method: &str, path: &str, token: &str, body: &str| {
        let headers = [("authorization", token)];
        let headers = if token.is_empty() { &headers[..0] } else { &headers[..] };
        server.send(method, path, headers, body.to_owned()).await.status
    };
    let (admin, editor, viewer) = (bearer("a"), bearer("e"), bearer("v"));
    for (method, path, body, expected) in [
        ("GET", "/v1/status", "", [401, 200, 200, 200]),
        ("POST", "/v1/apply?dryRun=true", document, [401, 200, 200, 200]),
        ("POST", "/v1/apply", document, [401, 403, 200, 200]),
        ("POST", "/v1/tokens", "{service: a}", [401, 403, 403, 201]),
        ("POST", "/v1/identities/api/revoke", "", [401, 403, 403, 200]),
        ("POST", "/v1/ca/rotate", "", [401, 403, 403, 202]),
        ("GET", "/v1/audit", "", [401, 403, 403, 200]),
        ("GET", "/healthz", "", [200, 200, 200, 200]),
    ] {
        for (token, expected) in ["", &viewer, &editor, &admin].into_iter().zip(expected) {
            assert_eq!(
                status(method, path, token, body).await,
                expected,
                "{method} {path} {token}"
            );
        }
    }
    for wrong in ["Bearer", "Bearer x", "Basic aaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaa"] {
        let answer = server.send("GET", "/v1/status", &[("authorization", wrong)], "").await;
        answer.problem(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_who_tried() {
    let server = guarded().await;
    let send = async |method: &str, path: &str, who: &str, body: &str| {
        server.send(method, path, &[("authorization", &bearer(who))], body.to_owned()).await
    };
    let document = "{kind: Service, name: a, spec: {ports: [{port: 1, protocol: http}]}}";
    send("POST", "/v1/apply", "e", document).await;
    send("POST", "/v1/tokens", "a", "{service: a}").await;
    send("POST", "/v1/identities/api/revoke", "v", "").await.problem(403);
    send("POST", "/v1/identities/nobody/revoke", "a", "").await.problem(404);
    send("POST", "/v1/identities/one/revoke", "a", "").await.problem(409);
    send("POST", "/v1/identities/api/revoke", "a", "").await;
    send("POST", "/v1/ca/rotate", "a", "").await;
    let log = send("GET", "/v1/audit", "a", "").await.json();
    let entries: std::collections::BTreeSet<_> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            ["author", "action", "target"].map(|key| it[key].as_str().unwrap().to_owned()).join(" ")
        })
        .collect();
    let expected = [
        "ann ca.rotate root",
        "ann identity.revoke api",
        "ann token.create a",
        "ed apply Service/a",
        "vi refused POST /v1/identities/api/revoke",
    ];
    assert_eq!(entries.into_iter().collect::<Vec<_>>(), expected);
    let history = send("GET", "/v1/history", "v", "").await.json();
    assert_eq!(history["items"][0]["author"], "ed");
    let one = send("GET", "/v1/audit?limit=1", "a", "").await.json();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_call_answers_what_the_openapi_document_says() {
    use super::openapi::tests::{answer, calls, check};
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    server.apply(API).await;
    let change = API.replace("9000", "9001");
    let examples: &[(&str, &str, &str, &str, u16)] = &[
        ("post", "/v1/apply", "/v1/apply?dryRun=true", &change, 200),
        ("post", "/v1/apply", "/v1/apply", &change, 200),
        ("post", "/v1/apply", "/v1/apply", "kind: Servize", 422),
        ("post", "/v1/apply", "/v1/apply?nothing=1", "", 400),
        ("get", "/v1/{kind}", "/v1/services", "", 200),
        ("get", "/v1/{kind}", "/v1/unicorns", "", 404),
        ("get", "/v1/{kind}/{name}", "/v1/services/api", "", 200),
        (
            "put",
            "/v1/{kind}/{name}",
            "/v1/gateways/g",
            "spec: {listeners: [{name: a, port: 1, protocol: http}]}",
            201,
        ),
        ("delete", "/v1/{kind}/{name}", "/v1/gateways/g", "", 204),
        ("get", "/v1/status", "/v1/status", "", 200),
        ("get", "/v1/status/{kind}/{name}", "/v1/status/services/api", "", 200),
        ("get", "/v1/endpoints", "/v1/endpoints", "", 200),
        ("get", "/v1/history", "/v1/history?diff=true", "", 200),
        ("post", "/v1/rollback/{revision}", "/v1/rollback/1", "", 200),
        ("get", "/v1/export", "/v1/export", "", 200),
        ("post", "/v1/tokens", "/v1/tokens", "{service: api}", 201),
        ("get", "/v1/identities", "/v1/identities", "", 200),
        ("post", "/v1/identities/{name}/revoke", "/v1/identities/api/revoke", "", 200),
        ("post", "/v1/identities/{name}/revoke", "/v1/identities/one/revoke", "", 409),
        ("get", "/v1/ca", "/v1/ca", "", 200),
        ("post", "/v1/ca/rotate", "/v1/ca/rotate", "", 202),
        ("post", "/v1/ca/rotate", "/v1/ca/rotate?wait=1s", "", 200),
        ("get", "/v1/audit", "/v1/audit", "", 200),
        ("get", "/healthz", "/healthz", "", 200),
        ("get", "/readyz", "/readyz", "", 200),
        ("get", "/metrics", "/metrics", "", 200),
        ("get", "/openapi.json", "/openapi.json", "", 200),
    ];
    for (method, path, target, body, status) in examples {
        let got = server.send(&method.to_uppercase(), target, &[], (*body).to_owned()).await;
        assert_eq!(got.status, *status, "{method} {target}: {}", got.text);
        if let Some(schema) = answer(method, path, *status) {
            let mut found = Vec::new();
            check(&got.json(), &schema, "", &mut found);
            assert_eq!(found, Vec::<String>::new(), "{method} {target}: {}", got.text);
        }
    }
    for call in calls() {
        let shown = examples.iter().any(|(method, path, ..)| (*method, *path) == call);
        assert!(shown || call.1 == "/v1/events", "{call:?} is written down and was not asked");
    }
}
