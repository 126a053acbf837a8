//! `outrigger get KIND [NAME]`.

use clap::Args;
use outrigger_control_plane::model::Kind;
use serde_json::Value;

use super::{ClientArgs, kind, name, watch};
use crate::client::{Items, Object, typed};
use crate::exit::{Failure, Outcome};
use crate::output::{Cell, Format, Table, to_yaml};

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// mesh, service, route, policy, gateway or endpoint; plurals too
    #[arg(value_parser = kind)]
    kind: Kind,
    /// One object; all of the kind if left out
    #[arg(value_parser = name)]
    name: Option<String>,
    /// Show it again every second
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// One object (as YAML unless asked otherwise), or a table of all.
pub(crate) async fn run(args: GetArgs) -> Outcome {
    let api = args.client.api()?;
    let path = match &args.name {
        Some(name) => format!("/v1/{}/{name}", args.kind.plural()),
        None => format!("/v1/{}", args.kind.plural()),
    };
    watch::show(args.watch, async || {
        let answer = api.get(&path).await?;
        args.client.output.render(&answer, || match &args.name {
            Some(_) if args.client.output.output == Format::Table => to_yaml(&answer),
            Some(_) => table(&args, vec![typed(&path, answer.clone())?]),
            None => table(&args, typed::<Items<Object>>(&path, answer.clone())?.items),
        })
    })
    .await
}

fn table(args: &GetArgs, objects: Vec<Object>) -> Result<String, Failure> {
    let mut table = Table::new(&["NAME", "WHAT", "REV", "STATE", "IN EFFECT"]);
    for object in objects {
        let (state, effect) = match &object.status {
            Some(status) => {
                (Cell::state(&status.state), format!("{}/{}", status.acked, status.total))
            }
            None => (Cell::from(""), String::new()),
        };
        table.row([
            Cell::from(object.name.as_str()),
            Cell::from(in_short(args.kind, &object)),
            Cell::from(object.revision.map(|revision| revision.to_string()).unwrap_or_default()),
            state,
            Cell::from(effect),
        ]);
    }
    Ok(args.client.output.table(&table))
}

/// What the object is about, in a few words.
fn in_short(kind: Kind, object: &Object) -> String {
    let spec = &object.spec;
    match kind {
        Kind::Mesh => format!(
            "{}, mtls {}, default {}",
            text(&spec["trustDomain"]),
            text(&spec["mtls"]),
            text(&spec["defaultAction"])
        ),
        Kind::Service => join(&spec["ports"], |port| {
            format!("{}/{}", text(&port["port"]), text(&port["protocol"]))
        }),
        Kind::Route => {
            let through = match spec["gateway"].as_str() {
                Some(gateway) => format!(" at {gateway}"),
                None => String::new(),
            };
            format!("{}{through} -> {}", join(&spec["hosts"], text), backends(&spec["rules"]))
        }
        Kind::Policy => format!(
            "{} {} -> {}",
            text(&spec["action"]),
            join(&spec["from"], |peer| text(&peer["service"])),
            join(&spec["to"], |peer| text(&peer["service"]))
        ),
        Kind::Gateway => join(&spec["listeners"], |listener| {
            format!("{}/{}", text(&listener["port"]), text(&listener["protocol"]))
        }),
        Kind::Endpoint => format!(
            "{} at {}:{}",
            text(&spec["service"]),
            text(&spec["address"]),
            text(&spec["port"])
        ),
    }
}

fn backends(rules: &Value) -> String {
    let per_rule = rules.as_array().into_iter().flatten().map(|rule| {
        join(&rule["backendRefs"], |backend| {
            let mut shown = text(&backend["name"]);
            if let Some(subset) = backend["subset"].as_str() {
                shown = format!("{shown}/{subset}");
            }
            match backend["weight"].as_u64() {
                Some(weight) => format!("{shown}={weight}"),
                None => shown,
            }
        })
    });
    per_rule.filter(|backends| !backends.is_empty()).collect::<Vec<_>>().join("; ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "*".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn join(list: &Value, shown: impl Fn(&Value) -> String) -> String {
    match list.as_array() {
        Some(items) if !items.is_empty() => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        _ => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(kind: Kind, spec: Value) -> String {
        let object = json!({"kind": kind.as_str(), "name": "x", "spec": spec});
        in_short(kind, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn every_kind_is_told_in_a_few_words() {
        assert_eq!(
            shown(Kind::Service, json!({"ports": [{"port": 9000, "protocol": "http"}]})),
            "9000/http"
        );
        assert_eq!(
            shown(
                Kind::Route,
                json!({"hosts": ["shop"], "gateway": "edge", "rules": [{"backendRefs": [
                    {"name": "api", "subset": "v1", "weight": 90}, {"name": "api", "subset": "v2", "weight": 10}]}]})
            ),
            "shop at edge -> api/v1=90, api/v2=10"
        );
        assert_eq!(
            shown(Kind::Policy, json!({"action": "allow", "from": [{"service": "web"}], "to": []})),
            "allow web -> *"
        );
        assert_eq!(
            shown(Kind::Endpoint, json!({"service": "db", "address": "127.0.0.1", "port": 5432})),
            "db at 127.0.0.1:5432"
        );
    }
}
