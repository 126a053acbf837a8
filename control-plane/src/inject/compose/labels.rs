//! The labels `outrigger.*`, by which a service says what the mesh shall make of it.

use super::super::yaml::{Content, Yaml};
use super::ports::Port;
use crate::model::problem::{Code, Position, Problem};
use crate::model::read::check_name;
use crate::model::service::Protocol;

const PREFIX: &str = "outrigger.";
/// Every label there is, without the prefix.
const LABELS: [&str; 8] =
    ["inject", "service", "port", "protocol", "version", "calls", "mode", "lifecycle"];
const PROTOCOLS: [&str; 5] = ["http", "http2", "grpc", "tcp", "tls"];

/// What a service's labels say.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    /// `outrigger.inject`: whether it gets a sidecar.
    pub(super) inject: Option<bool>,
    /// `outrigger.service`: its name in the mesh.
    pub(super) service: Option<String>,
    /// `outrigger.port`: ports of the mesh, `9000` or `9000:http,9090:grpc`.
    pub(super) ports: Option<Vec<Port>>,
    /// `outrigger.protocol`: what is spoken at the ports that do not say it themselves.
    pub(super) protocol: Option<Protocol>,
    /// `outrigger.version`: the label `version` of the instances, and the name of the subset they make.
    pub(super) version: Option<String>,
    /// `outrigger.calls`: the services that it calls; all others if it does not say.
    pub(super) calls: Option<Vec<(String, Option<Position>)>>,
    /// `outrigger.mode`: three containers or one.
    pub(super) mode: Option<Mode>,
    /// `outrigger.lifecycle: job`: it ends by itself.
    pub(super) job: bool,
    /// Where the first of these labels is.
    pub(super) at: Option<Position>,
}

/// How application and sidecar stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Network owner, sidecar and application, a container each.
    Trio,
    /// One container: `outrigger run -- COMMAND`.
    Wrapper,
}

/// Reads the labels of the service at `path`; what is wrong with them goes to `problems`.
pub(super) fn read(service: &Yaml, path: &str, problems: &mut Vec<Problem>) -> Labels {
    let mut labels = Labels::default();
    if let Some(deploy) = service.get("deploy").and_then(|deploy| deploy.get("labels")) {
        for Label { key, key_at, .. } in pairs(deploy) {
            if key.starts_with(PREFIX) {
                let reason =
                    format!("`{key}` has no effect on a container here: it belongs in `labels`");
                let problem = Problem::new(Code::InvalidValue, reason).at(key_at);
                problems.push(problem.field(format!("{path}.deploy.labels")));
            }
        }
    }
    let Some(node) = service.get("labels") else { return labels };
    for label in pairs(node) {
        let Some(name) = label.key.strip_prefix(PREFIX) else { continue };
        labels.at = labels.at.or(label.key_at);
        let field = format!("{path}.labels.{}", label.key);
        if !LABELS.contains(&name) {
            let choices: Vec<String> = LABELS.iter().map(|it| format!("{PREFIX}{it}")).collect();
            let reason = format!("there is no label `{}`", label.key);
            let problem = Problem::new(Code::UnknownField, reason).at(label.key_at).field(field);
            problems.push(problem.choices(label.key, choices.iter().map(String::as_str)));
            continue;
        }
        if label.value.contains('$') {
            let reason = "variables are not known here: write the value itself";
            problems.push(Problem::new(Code::InvalidValue, reason).at(label.at).field(field));
            continue;
        }
        if let Err(problem) = labels.set(name, &label) {
            problems.push(problem.at(label.at).field(field));
        }
    }
    labels
}

impl Labels {
    fn set(&mut self, name: &str, label: &Label<'_>) -> Result<(), Box<Problem>> {
        let value = label.value;
        match name {
            "inject" => self.inject = Some(choice(value, &[("true", true), ("false", false)])?),
            "service" => self.service = Some(dns_label(value)?),
            "version" => self.version = Some(dns_label(value)?),
            "protocol" => self.protocol = Some(protocol(value)?),
            "port" => {
                let ports = value.split(',').map(|port| self::port(port.trim()));
                self.ports = Some(ports.collect::<Result<_, _>>()?);
            }
            "calls" => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                self.calls = Some(names.map(|name| (name.to_owned(), label.at)).collect());
            }
            "mode" => {
                let modes = [("trio", Mode::Trio), ("wrapper", Mode::Wrapper)];
                self.mode = Some(choice(value, &modes)?);
            }
            "lifecycle" => self.job = choice(value, &[("service", false), ("job", true)])?,
            _ => {}
        }
        Ok(())
    }
}

/// `P` or `P:PROTOCOL`.
fn port(text: &str) -> Result<Port, Box<Problem>> {
    let (number, spoken) = match text.split_once(':') {
        Some((number, spoken)) => (number, Some(protocol(spoken.trim())?)),
        None => (text, None),
    };
    match number.trim().parse() {
        Ok(number) if number != 0 => Ok(Port { number, protocol: spoken }),
        _ => {
            let reason = format!(
                "`{text}` is no port: expected `9000`, `9000:http`, or several with commas between"
            );
            Err(Box::new(Problem::new(Code::InvalidValue, reason)))
        }
    }
}

fn protocol(text: &str) -> Result<Protocol, Box<Problem>> {
    let all = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp, Protocol::Tls];
    let choices: Vec<_> = PROTOCOLS.into_iter().zip(all).collect();
    choice(text, &choices)
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Box<Problem>> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let reason = format!("`{text}` is none of the choices");
        let names = choices.iter().map(|(name, _)| *name);
        Box::new(Problem::new(Code::UnknownValue, reason).choices(text, names))
    })
}

fn dns_label(text: &str) -> Result<String, Box<Problem>> {
    match check_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(reason) => Err(Box::new(Problem::new(Code::InvalidValue, reason))),
    }
}

struct Label<'a> {
    key: &'a str,
    key_at: Option<Position>,
    value: &'a str,
    at: Option<Position>,
}

/// Labels in either form: a mapping, or a list of `KEY=VALUE`.
fn pairs(labels: &Yaml) -> Vec<Label<'_>> {
    match &labels.value {
        Content::Map(fields) => fields
            .iter()
            .map(|field| Label {
                key: &field.key,
                key_at: field.at,
                value: field.value.as_text().unwrap_or_default(),
                at: field.value.at,
            })
            .collect(),
        Content::List(items) => items
            .iter()
            .filter_map(|item| {
                let text = item.as_text()?;
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                Some(Label { key: key.trim(), key_at: item.at, value: value.trim(), at: item.at })
            })
            .collect(),
        _ => Vec::new(),
    }
}
