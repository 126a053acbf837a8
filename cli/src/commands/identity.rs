//! `outrigger identity` and `outrigger ca`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ClientArgs, span};
use crate::client::{Items, typed};
use crate::exit::{Failure, Outcome};
use crate::output::{Cell, Table, left};

/// Subcommands of `identity`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Show who has a certificate
    List(ListArgs),
    /// Refuse an identity from now on, and close what it has open
    Revoke(RevokeArgs),
}

/// Subcommands of `ca`.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the trusted roots, and how far a rotation has come
    Status(ListArgs),
    /// Replace the root, in steps that wait for every member; join tokens made before are useless afterwards
    Rotate(RotateArgs),
}

/// Arguments of what only shows.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `identity revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// A service (all of its instances, and its join tokens), or INSTANCE, or INSTANCE.SERVICE
    #[arg(value_parser = identity)]
    name: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Arguments of `ca rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Return when it is over, or after this time with exit code 5; it goes on all the same
    #[arg(long, value_parser = span, value_name = "DURATION")]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Deserialize)]
struct Identity {
    service: String,
    instance: String,
    connected: bool,
    expires: String,
    revoked: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authority {
    roots: Vec<Root>,
    issuing_expires: String,
    #[serde(default)]
    rotation: Option<Rotation>,
}

#[derive(Deserialize)]
struct Root {
    pin: String,
    expires: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    step: String,
    #[serde(default)]
    waiting_for: Vec<Waiting>,
}

#[derive(Deserialize)]
struct Waiting {
    node: String,
    reason: String,
}

/// Everybody with a certificate that has not expired.
pub(crate) async fn list(args: ListArgs) -> Outcome {
    let path = "/v1/identities";
    let answer = args.client.api()?.get(path).await?;
    let output = &args.client.output;
    output.print(&answer, || {
        let mut table = Table::new(&["INSTANCE", "SERVICE", "CONN", "EXPIRES IN", "STATE"]);
        for it in typed::<Items<Identity>>(path, answer.clone())?.items {
            table.row([
                Cell::from(it.instance),
                Cell::from(it.service),
                Cell::state(if it.connected { "up" } else { "DOWN" }),
                Cell::from(left(&it.expires)),
                if it.revoked { Cell::bad("REVOKED") } else { Cell::good("ok") },
            ]);
        }
        Ok(output.table(&table))
    })
}

/// Revokes.
pub(crate) async fn revoke(args: RevokeArgs) -> Outcome {
    let path = format!("/v1/identities/{}/revoke", args.name);
    let answer = args.client.api()?.post(&path, &json!({})).await?;
    args.client.output.print(&answer, || {
        let mut text = String::new();
        for it in answer["identities"].as_array().into_iter().flatten() {
            let word = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(text, "{}.{} revoked", word("instance"), word("service"));
        }
        if let Some(tokens) = answer["tokens"].as_u64().filter(|count| *count > 0) {
            let _ = writeln!(text, "{tokens} join token(s) are useless now");
        }
        Ok(text)
    })
}

/// How the authority stands.
pub(crate) async fn authority(args: ListArgs) -> Outcome {
    let path = "/v1/ca";
    let answer = args.client.api()?.get(path).await?;
    args.client.output.print(&answer, || shown(path, &answer))
}

/// Rotates the root.
pub(crate) async fn rotate(args: RotateArgs) -> Outcome {
    let path = match args.wait {
        None => "/v1/ca/rotate".to_owned(),
        Some(wait) => format!("/v1/ca/rotate?wait={}ms", wait.as_millis()),
    };
    let longest = args.wait.unwrap_or_default();
    let answer = args.client.api()?.post_waiting(&path, &json!({}), longest).await?;
    args.client.output.print(&answer, || shown(&path, &answer))
}

fn shown(path: &str, answer: &Value) -> Result<String, Failure> {
    let authority: Authority = typed(path, answer.clone())?;
    let mut text = String::new();
    for (index, root) in authority.roots.iter().enumerate() {
        let role = if index == 0 { "signs" } else { "is trusted too" };
        let _ = writeln!(text, "root {} {role}, ends in {}", root.pin, left(&root.expires));
    }
    let _ = writeln!(text, "issuing certificate ends in {}", left(&authority.issuing_expires));
    match &authority.rotation {
        None => text.push_str("no rotation is under way\n"),
        Some(Rotation { step, waiting_for }) => {
            let _ = writeln!(text, "rotation, step `{step}`, waits for {}", waiting_for.len());
            for Waiting { node, reason } in waiting_for {
                let _ = writeln!(text, "  {node} {reason}");
            }
        }
    }
    Ok(text)
}

/// One or two DNS labels.
fn identity(text: &str) -> Result<String, String> {
    let mut labels = text.splitn(2, '.');
    let valid = labels.all(|label| super::name(label).is_ok());
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected SERVICE, INSTANCE or INSTANCE.SERVICE".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_rotation_waits_for_is_said_with_the_reason() {
        let answer = json!({
            "roots": [{"pin": "aa", "expires": "2020-01-01T00:00:00Z"}, {"pin": "bb", "expires": "2020-01-01T00:00:00Z"}],
            "issuingExpires": "2020-01-01T00:00:00Z",
            "rotation": {"step": "trusting", "since": "2020-01-01T00:00:00Z",
                "waitingFor": [{"node": "api-1", "reason": "is not connected"}]},
        });
        let text = shown("/v1/ca", &answer).unwrap();
        assert!(text.contains("root bb is trusted too"), "{text}");
        assert!(
            text.contains("step `trusting`, waits for 1\n  api-1 is not connected\n"),
            "{text}"
        );
    }

    #[test]
    fn an_identity_is_one_or_two_labels() {
        assert!(identity("api").is_ok() && identity("api-1.api").is_ok());
        for wrong in ["", "a.b.c", "a/b", "A", ".a"] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
    }
}
