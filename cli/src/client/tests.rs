use super::*;
use crate::exit::Failure;

#[test]
fn a_url_that_cannot_be_an_api_is_refused_with_the_reason() {
    for (url, why) in [
        ("https://127.0.0.1:7700", "http://"),
        ("127.0.0.1:7700", "http://"),
        ("http://127.0.0.1:7700/v1", "follow"),
        ("http://127.0.0.1:7700?x=1", "follow"),
        ("", "not the URL"),
    ] {
        let error = Api::new(url).unwrap_err();
        assert!(error.contains(why), "{url}: {error}");
    }
    assert_eq!(Api::new("http://[::1]:7700/").unwrap().url(), "http://[::1]:7700");
    assert_eq!(Api::new("http://mesh").unwrap().url(), "http://mesh:80");
}

#[tokio::test]
async fn an_unreachable_api_is_named_by_its_url() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Api::new(&url).unwrap().get("/v1/status").await.unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
    assert_eq!(Failure::from(error).code(), 1);
}

#[test]
fn a_refusal_decides_the_exit_code_by_its_status() {
    let code = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::from(ApiError::refused(status, "/v1/apply", body.as_bytes())).code()
    };
    let one_error = r#"{"title":"invalid","errors":[{"code":"x","reason":"bad"}]}"#;
    assert_eq!(code(422, one_error), 4);
    assert_eq!(code(400, one_error), 4);
    assert_eq!(code(400, r#"{"title":"unknown query parameter"}"#), 1);
    assert_eq!(code(404, r#"{"title":"not found"}"#), 1);
    assert_eq!(code(409, r#"{"title":"in use"}"#), 1);
    assert_eq!(code(504, r#"{"title":"laggards"}"#), 5);
    assert_eq!(code(502, "<html>not ours</html>"), 1);
}

use http::StatusCode;
