//! `outrigger healthcheck [URL]`: what `curl --fail` would do, in an image that has nothing but this program.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::exit::{Failure, Outcome};
use crate::http_pool::Pool;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// `http://IP:PORT/PATH`. Default: the readiness of a sidecar
    #[arg(default_value = "http://127.0.0.1:15000/ready", value_parser = url)]
    url: Url,
}

/// An address, and what is asked for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) address: SocketAddr,
    pub(super) path: String,
}

fn url(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("http://").ok_or("expected http://IP:PORT/PATH")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = address.parse().map_err(|_| "expected http://IP:PORT/PATH".to_owned())?;
    Ok(Url { address, path: format!("/{path}") })
}

/// Exit code 0 for an answer 200, else 3 with what was answered.
pub(crate) async fn run(args: HealthcheckArgs) -> Outcome {
    match ask(&args.url).await {
        Ok((StatusCode::OK, _)) => Ok(()),
        Ok((status, body)) => Err(Failure::CheckFailed(format!("{status}: {}", body.trim()))),
        Err(error) => Err(Failure::CheckFailed(error)),
    }
}

/// What is answered: status and body.
pub(super) async fn ask(url: &Url) -> Result<(StatusCode, String), String> {
    let request = Request::get(url.path.as_str())
        .header("host", url.address.to_string())
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answer = Pool::new(url.address, TIMEOUT).send(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status(), String::from_utf8_lossy(answer.body()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        let parsed = url("http://127.0.0.1:15000/ready?x=y").unwrap();
        assert_eq!(parsed.address, "127.0.0.1:15000".parse().unwrap());
        assert_eq!(parsed.path, "/ready?x=y");
        assert_eq!(url("http://[::1]:1").unwrap().path, "/");
        for wrong in
            ["https://127.0.0.1:1/", "127.0.0.1:1", "http://localhost:1/", "http://127.0.0.1/"]
        {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
