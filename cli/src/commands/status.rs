//! `outrigger status [KIND NAME]`.

use std::fmt::Write as _;

use clap::Args;
use outrigger_control_plane::model::Kind;
use serde_json::Value;

use super::{ClientArgs, kind, name, watch};
use crate::client::{ObjectStatus, Sidecar, Status, typed};
use crate::exit::Outcome;
use crate::output::{Cell, OutputArgs, Table, age, left};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only one object: its kind ...
    #[arg(value_parser = kind, requires = "name")]
    kind: Option<Kind>,
    /// ... and its name
    #[arg(value_parser = name)]
    name: Option<String>,
    /// Show it again every second
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Every sidecar with what it serves, every object that is not in effect everywhere, and all reasons.
pub(crate) async fn run(args: StatusArgs) -> Outcome {
    let api = args.client.api()?;
    let output = &args.client.output;
    let one = args.kind.zip(args.name.as_deref());
    watch::show(args.watch, async || match one {
        Some((kind, name)) => {
            let path = format!("/v1/status/{}/{name}", kind.plural());
            let answer = api.get(&path).await?;
            output.render(&answer, || {
                let mut status: ObjectStatus = typed(&path, answer.clone())?;
                kind.as_str().clone_into(&mut status.kind);
                name.clone_into(&mut status.name);
                Ok(objects(&[&status], output))
            })
        }
        None => {
            let answer = api.get("/v1/status").await?;
            output.render(&answer, || Ok(everything(&typed("/v1/status", answer.clone())?, output)))
        }
    })
    .await
}

fn everything(status: &Status, output: &OutputArgs) -> String {
    let mut text = format!("revision {}\n\n", status.revision);
    text.push_str(&output.table(&sidecars(&status.sidecars, status.revision, output.wide())));
    for sidecar in &status.sidecars {
        for (name, state) in sidecar.types() {
            if let Some(reason) = state.and_then(|state| state.reason.as_deref()) {
                let _ = writeln!(text, "\n{}, {name}: {reason}", sidecar.node);
            }
        }
    }
    for alarm in &status.alarms {
        let _ = writeln!(text, "\nALARM {}: {}", alarm.code, alarm.detail);
    }
    let shown: Vec<&ObjectStatus> = status
        .objects
        .iter()
        .filter(|object| output.wide() || object.state != "Accepted")
        .collect();
    text.push('\n');
    if shown.is_empty() {
        let _ = writeln!(text, "all {} objects are in effect", status.objects.len());
    } else {
        text.push_str(&objects(&shown, output));
    }
    text
}

/// All columns if wide; else the five types in one.
fn sidecars(sidecars: &[Sidecar], revision: u64, wide: bool) -> Table {
    let mut header = vec!["NODE", "SERVICE", "CONN"];
    if wide {
        header.extend(["CLIENT", "LISTENERS", "ROUTES", "CLUSTERS", "ENDPOINTS", "SECRETS"]);
    } else {
        header.push("CONFIG");
    }
    header.extend(["CERT", "REV", "CONTACT"]);
    let mut table = Table::new(&header);
    for sidecar in sidecars {
        let mut cells = vec![
            Cell::from(sidecar.node.as_str()),
            Cell::from(sidecar.service.as_str()),
            Cell::state(if sidecar.connected { "up" } else { "DOWN" }),
        ];
        if wide {
            cells.push(Cell::from(sidecar.client.as_str()));
            for (_, state) in sidecar.types() {
                cells.push(state.map_or(Cell::from(""), |state| Cell::state(&state.state)));
            }
        } else {
            cells.push(config(sidecar));
        }
        cells
            .push(Cell::from(sidecar.certificate_expires.as_deref().map(left).unwrap_or_default()));
        cells.push(match sidecar.revision {
            Some(serves) if serves == revision => Cell::from(format!("r{serves}")),
            Some(serves) => Cell::attention(format!("r{serves}!")),
            None => Cell::from(""),
        });
        let contact = sidecar.last_contact.as_deref().map(age).unwrap_or_default();
        cells.push(Cell::from(format!("{contact} ago")));
        table.row(cells);
    }
    table
}

/// `ok`, or what is not: `REJECTED clusters`, `pending routes, endpoints`.
fn config(sidecar: &Sidecar) -> Cell {
    let in_state = |wanted: &str| {
        let names: Vec<&str> = sidecar
            .types()
            .iter()
            .filter(|(_, state)| state.is_some_and(|state| state.state == wanted))
            .map(|(name, _)| *name)
            .collect();
        names.join(", ")
    };
    match (in_state("REJECTED"), in_state("pending")) {
        (rejected, _) if !rejected.is_empty() => Cell::bad(format!("REJECTED {rejected}")),
        (_, pending) if !pending.is_empty() => Cell::attention(format!("pending {pending}")),
        _ => Cell::good("ok"),
    }
}

fn objects(objects: &[&ObjectStatus], output: &OutputArgs) -> String {
    let mut table = Table::new(&["KIND", "NAME", "STATE", "IN EFFECT"]);
    for object in objects {
        table.row([
            Cell::from(object.kind.as_str()),
            Cell::from(object.name.as_str()),
            Cell::state(&object.state),
            Cell::from(format!("{}/{}", object.acked, object.total)),
        ]);
    }
    let mut text = output.table(&table);
    for object in objects {
        for problem in &object.problems {
            let _ =
                writeln!(text, "{}/{}: {}", object.kind, object.name, problem_in_words(problem));
        }
    }
    text
}

fn problem_in_words(problem: &Value) -> String {
    match (problem["node"].as_str(), problem["reason"].as_str()) {
        (Some(node), Some(reason)) => format!("{node}: {reason}"),
        (None, Some(reason)) => reason.to_owned(),
        _ => problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use serde_json::json;

    fn shown(output: Format) -> String {
        let status = json!({
            "revision": 42,
            "sidecars": [
                {"node": "api-1", "service": "api", "instance": "api-1", "connected": true, "client": "outrigger",
                 "revision": 42, "clusters": {"state": "ok"}, "lastContact": "2020-01-01T00:00:00Z"},
                {"node": "web-1", "service": "web", "instance": "web-1", "connected": true, "client": "outrigger",
                 "revision": 41, "clusters": {"state": "REJECTED", "reason": "clusters/api: lb_policy: unknown"}},
                {"node": "job-7", "service": "job", "instance": "job-7", "connected": false, "client": "envoy"},
            ],
            "objects": [
                {"kind": "Service", "name": "api", "state": "Accepted", "acked": 2, "total": 2, "problems": []},
                {"kind": "Route", "name": "canary", "state": "Partial", "acked": 1, "total": 2,
                 "problems": [{"node": "web-1", "reason": "no such cluster"}]},
            ],
        });
        let args = OutputArgs { output, no_color: true };
        everything(&serde_json::from_value(status).unwrap(), &args)
    }

    #[test]
    fn a_rejection_is_shown_with_its_type_and_reason() {
        let text = shown(Format::Table);
        assert!(text.contains("REJECTED clusters"), "{text}");
        assert!(text.contains("web-1, clusters: clusters/api: lb_policy: unknown"), "{text}");
        assert!(text.contains("r41!"), "{text}");
        assert!(text.contains("DOWN"), "{text}");
    }

    #[test]
    fn objects_in_effect_everywhere_are_shown_only_when_wide() {
        let text = shown(Format::Table);
        assert!(text.contains("canary") && !text.contains("Accepted"), "{text}");
        assert!(text.contains("Route/canary: web-1: no such cluster"), "{text}");
        assert!(shown(Format::Wide).contains("Accepted"));
    }

    #[test]
    fn the_table_keeps_within_eighty_columns() {
        let text = shown(Format::Table);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
