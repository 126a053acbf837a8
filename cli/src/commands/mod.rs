//! The commands that talk about a mesh, one a file, most of them clients of the mesh API.
//!
//! - [`input`]: the files behind `-f`, and where each of their lines came from.
//! - [`rejection`]: what is wrong with resources, shown at the source line.
//! - [`watch`]: the same answer again and again.

pub(crate) mod apply;
pub(crate) mod authz;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod endpoints;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod identity;
pub(crate) mod inject;
mod input;
mod rejection;
pub(crate) mod rollback;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod validate;
mod watch;

use std::time::Duration;

use clap::Args;
use outrigger_control_plane::model::{Kind, duration};

use crate::client::{Api, DEFAULT_API};
use crate::exit::Failure;
use crate::output::OutputArgs;

/// Options of every command that talks to the API.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// URL of the control plane's API
    #[arg(long, env = "OUTRIGGER_API", default_value = DEFAULT_API, value_name = "URL")]
    api: String,
    /// Bearer token of the API, if it asks for one
    #[arg(long, env = "OUTRIGGER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ClientArgs {
    /// The API.
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        let api = Api::new(&self.api).map_err(Failure::Usage)?;
        Ok(api.with_token(self.token.clone()))
    }
}

/// A kind as people write it: `service`, `Service`, `services`.
fn kind(text: &str) -> Result<Kind, String> {
    let lower = text.to_ascii_lowercase();
    Kind::ALL
        .into_iter()
        .find(|kind| kind.plural() == lower || kind.as_str().to_ascii_lowercase() == lower)
        .ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.plural()).collect();
            format!("there is no such kind; the kinds are {}", known.join(", "))
        })
}

/// A name that can stand in a path of the API.
fn name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("a name is up to 63 lower-case letters, digits and hyphens".to_owned())
    }
}

/// `500ms`, `30s`, `1h`.
fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text)
}
