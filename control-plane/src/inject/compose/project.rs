//! A compose file as it is meant: its services with everything that `<<` and `extends` bring in.

use super::super::yaml::{Content, Field, Lines, Yaml, field, text};
use super::labels::{self, Labels};
use crate::model::problem::{Code, Position, Problem};
use crate::model::read::tree::{self, Anchor, Entry, Node, Value};

/// Longest chain of `extends`.
const MOST_EXTENDS: usize = 32;

/// Reads another file of the project by its path, as it is written there.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// A compose file.
pub(super) struct Project<'t> {
    pub(super) lines: Lines<'t>,
    /// The document, with the places of everything in it.
    pub(super) tree: Node,
    pub(super) anchors: Vec<Anchor>,
    pub(super) services: Vec<Service>,
}

/// A service of the file.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) at: Position,
    /// Everything it has.
    pub(super) yaml: Yaml,
    pub(super) labels: Labels,
    /// The service of the same file that it extends.
    pub(super) extends: Option<String>,
    /// Whether it extends any.
    pub(super) extended: bool,
}

impl Service {
    /// Its path in the file.
    pub(super) fn path(&self) -> String {
        format!("services.{}", self.name)
    }

    /// A problem with this service, at one of its keys if it has it, else at its name.
    pub(super) fn problem(&self, code: Code, key: &str, reason: impl Into<String>) -> Problem {
        let at = self.yaml.fields().iter().find(|field| field.key == key);
        let field = if at.is_some() { format!("{}.{key}", self.path()) } else { self.path() };
        let at = at.and_then(|field| field.at).or(Some(self.at));
        Problem::new(code, reason).at(at).field(field)
    }

    /// A list, or the keys of a mapping, or one text.
    pub(super) fn names(&self, key: &str) -> Vec<&str> {
        match self.yaml.get(key) {
            Some(Yaml { value: Content::Map(fields), .. }) => {
                fields.iter().map(|field| field.key.as_str()).collect()
            }
            Some(value) => value.as_texts(),
            None => Vec::new(),
        }
    }
}

impl<'t> Project<'t> {
    /// Reads a file.
    pub(super) fn read(text: &'t str, files: ReadFile<'_>) -> Result<Self, Vec<Problem>> {
        let lines = Lines::new(text);
        let tree = document(text)?;
        let mut problems = Vec::new();
        let mut services = Vec::new();
        for entry in entries(services_of(&tree)?) {
            let Entry { key, key_at, node } = entry;
            if !matches!(node.value, Value::Map(_)) {
                let reason = format!("a service is a mapping, this is {}", node.describe());
                let problem = Problem::new(Code::WrongType, reason).at(Some(node.at));
                problems.push(problem.field(format!("services.{key}")));
                continue;
            }
            let own = Yaml::of(node, &lines, true);
            let (extends, extended) = (extended_here(&own), own.get("extends").is_some());
            let base = Base { tree: &tree, lines: &lines, files, folder: "" };
            let yaml = match base.extend(own, &mut vec![key.clone()]) {
                Ok(yaml) => yaml,
                Err(reason) => {
                    let at = node.get("extends").map_or(*key_at, |it| it.at);
                    let problem = Problem::new(Code::NotFound, reason).at(Some(at));
                    problems.push(problem.field(format!("services.{key}.extends")));
                    continue;
                }
            };
            let labels = labels::read(&yaml, &format!("services.{key}"), &mut problems);
            let (name, at) = (key.clone(), *key_at);
            services.push(Service { name, at, yaml, labels, extends, extended });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { lines, tree, anchors: tree::anchors(text), services })
    }

    /// A service by name.
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// The fields of a mapping with their places.
pub(super) fn entries(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

/// The one document of a file.
fn document(text: &str) -> Result<Node, Vec<Problem>> {
    let (documents, problems) = tree::parse(text);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut documents = documents.into_iter();
    let first = documents.next();
    if let Some(second) = documents.next() {
        let problem =
            Problem::new(Code::Syntax, "a compose file is one document, this is the second");
        return Err(vec![problem.at(Some(second.at))]);
    }
    first.ok_or_else(|| vec![Problem::new(Code::Syntax, "there is nothing in this file")])
}

/// What `services` holds.
fn services_of(tree: &Node) -> Result<&Node, Vec<Problem>> {
    let wrong = |reason: &str, at: Position| {
        Err(vec![Problem::new(Code::MissingField, reason).at(Some(at)).field("services")])
    };
    match tree.get("services") {
        Some(node) if matches!(&node.value, Value::Map(services) if !services.is_empty()) => {
            Ok(node)
        }
        Some(node) => wrong("expected a mapping of at least one service", node.at),
        None if entries(tree)
            .iter()
            .any(|it| it.node.get("image").is_some() || it.node.get("build").is_some()) =>
        {
            wrong(
                "this is version 1 of the format, which has no networks to work with: put the services under `services:`",
                tree.at,
            )
        }
        None => wrong("this is no compose file: it has no `services`", tree.at),
    }
}

fn extended_here(service: &Yaml) -> Option<String> {
    let extends = service.get("extends")?;
    match extends.as_text() {
        Some(name) => Some(name.to_owned()),
        None if extends.get("file").is_none() => {
            extends.get("service").and_then(Yaml::as_text).map(str::to_owned)
        }
        None => None,
    }
}

/// The file in which services are looked for that others extend.
struct Base<'a> {
    tree: &'a Node,
    lines: &'a Lines<'a>,
    files: ReadFile<'a>,
    /// Folder of the file relative to that of the first, empty or with a slash at its end.
    folder: &'a str,
}

impl Base<'_> {
    /// `own` with what it extends.
    fn extend(&self, own: Yaml, chain: &mut Vec<String>) -> Result<Yaml, String> {
        let Some(extends) = own.get("extends") else { return Ok(own) };
        let (service, file) = match extends.as_text() {
            Some(name) => (name, None),
            None => (
                extends
                    .get("service")
                    .and_then(Yaml::as_text)
                    .ok_or("it does not say which `service`")?,
                extends.get("file").and_then(Yaml::as_text),
            ),
        };
        let id = format!("{}{}:{service}", self.folder, file.unwrap_or_default());
        if chain.len() > MOST_EXTENDS
            || chain.contains(&id)
            || (file.is_none()
                && chain.first().is_some_and(|it| it == service)
                && self.folder.is_empty())
        {
            return Err(format!("`{service}` extends itself in the end"));
        }
        chain.push(id);
        let base = match file {
            None => self.find(service, chain)?,
            Some(file) => {
                let path = format!("{}{file}", self.folder);
                let content = (self.files)(&path).map_err(|error| format!("{path}: {error}"))?;
                let tree = document(&content).map_err(|problems| {
                    problems.first().map_or(String::new(), |problem| format!("{path}:{problem}"))
                })?;
                let folder = path.rfind('/').map_or("", |slash| path.get(..=slash).unwrap_or(""));
                let lines = Lines::new(&content);
                let there = Base { tree: &tree, lines: &lines, files: self.files, folder };
                there.find(service, chain).map_err(|error| format!("{path}: {error}"))?
            }
        };
        let Content::Map(own) = own.value else { return Ok(own) };
        let Content::Map(base) = base.value else { return Err("it is no mapping".to_owned()) };
        Ok(Yaml::from(Content::Map(combine(base, own))))
    }

    fn find(&self, service: &str, chain: &mut Vec<String>) -> Result<Yaml, String> {
        let node = self.tree.get("services").and_then(|services| services.get(service));
        let node = node.ok_or_else(|| format!("there is no service `{service}`"))?;
        let mut found = Yaml::of(node, self.lines, false);
        if !self.folder.is_empty() {
            relocate(&mut found, self.folder);
        }
        self.extend(found, chain)
    }
}

/// Paths of a service of another folder, as seen from the folder of the first file.
fn relocate(service: &mut Yaml, folder: &str) {
    let Content::Map(fields) = &mut service.value else { return };
    for Field { key, value, .. } in fields {
        match (key.as_str(), &mut value.value) {
            ("build", Content::Map(build)) => {
                build
                    .iter_mut()
                    .filter(|it| it.key == "context")
                    .for_each(|it| prefix(&mut it.value, folder, true));
            }
            ("build", _) => prefix(value, folder, true),
            ("env_file", Content::List(items)) => {
                items.iter_mut().for_each(|it| prefix(it, folder, true))
            }
            ("env_file", _) => prefix(value, folder, true),
            ("volumes", Content::List(items)) => {
                for item in items {
                    match &mut item.value {
                        Content::Map(mount) => {
                            mount
                                .iter_mut()
                                .filter(|it| it.key == "source")
                                .for_each(|it| prefix(&mut it.value, folder, false));
                        }
                        _ => prefix(item, folder, false),
                    }
                }
            }
            _ => {}
        }
    }
}

/// Puts a folder before a relative path; of a volume, only before one that says that it is a path.
fn prefix(path: &mut Yaml, folder: &str, always: bool) {
    let Some(old) = path.as_text() else { return };
    let named = old.starts_with('.');
    let absolute = old.starts_with(['/', '~', '$']) || old.contains("://");
    if (always && !absolute) || named {
        let old = old.strip_prefix("./").unwrap_or(old);
        let start = if folder.starts_with(['.', '/']) { "" } else { "./" };
        *path = text(format!("{start}{folder}{old}"));
    }
}

/// What a service has that extends another, by compose's rules.
fn combine(base: Vec<Field>, own: Vec<Field>) -> Vec<Field> {
    // What ties a service to others is not passed on.
    let kept = |field: &Field| {
        let ties = ["extends", "links", "volumes_from", "depends_on"].contains(&field.key.as_str());
        let joins = field.key == "network_mode"
            && field.value.as_text().is_some_and(|mode| mode.starts_with("service:"));
        !ties && !joins
    };
    let mut all: Vec<Field> = base.into_iter().filter(kept).collect();
    for field in own.into_iter().filter(|field| field.key != "extends") {
        match all.iter_mut().find(|it| it.key == field.key) {
            Some(there) => {
                let old = std::mem::replace(&mut there.value, Content::Null.into());
                there.value = merge(&field.key, old, field.value);
                there.at = field.at;
            }
            None => all.push(field),
        }
    }
    all
}

fn merge(key: &str, base: Yaml, own: Yaml) -> Yaml {
    let at = own.at;
    let value = match key {
        "environment" | "labels" | "sysctls" => {
            Content::Map(merge_fields(pairs(base, '='), pairs(own, '=')))
        }
        "extra_hosts" => Content::Map(merge_fields(pairs(base, ':'), pairs(own, ':'))),
        "networks" => Content::Map(merge_fields(keys(base), keys(own))),
        "ports" | "expose" | "dns" | "dns_search" | "dns_opt" | "tmpfs" | "env_file"
        | "cap_add" | "cap_drop" | "security_opt" | "secrets" | "configs" | "external_links"
        | "profiles" => {
            let mut items = list(base);
            for item in list(own) {
                if !items.iter().any(|it| it.value == item.value) {
                    items.push(item);
                }
            }
            Content::List(items)
        }
        "volumes" | "devices" => {
            let own = list(own);
            let targets: Vec<_> = own.iter().map(target).collect();
            let base = list(base).into_iter().filter(|it| !targets.contains(&target(it)));
            Content::List(base.chain(own.iter().cloned()).collect())
        }
        "command" | "entrypoint" => own.value,
        _ => match (base.value, own.value) {
            (Content::Map(base), Content::Map(own)) => Content::Map(merge_fields(base, own)),
            (_, own) => own,
        },
    };
    Yaml { value, at }
}

fn merge_fields(base: Vec<Field>, own: Vec<Field>) -> Vec<Field> {
    let mut all = base;
    for field in own {
        match all.iter_mut().find(|it| it.key == field.key) {
            Some(there) => *there = field,
            None => all.push(field),
        }
    }
    all
}

/// `KEY=VALUE` items as a mapping.
fn pairs(value: Yaml, separator: char) -> Vec<Field> {
    match value.value {
        Content::Map(fields) => fields,
        Content::List(items) => items
            .iter()
            .filter_map(|item| {
                let (key, value) = match item.as_text()?.split_once(separator) {
                    Some((key, value)) => (key, text(value)),
                    None => (item.as_text()?, Content::Null.into()),
                };
                Some(Field { at: item.at, ..field(key, Yaml { at: item.at, ..value }) })
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Names as a mapping to nothing.
pub(super) fn keys(value: Yaml) -> Vec<Field> {
    match value.value {
        Content::Map(fields) => fields,
        _ => value.as_texts().into_iter().map(|key| field(key, Content::Null.into())).collect(),
    }
}

fn list(value: Yaml) -> Vec<Yaml> {
    match value.value {
        Content::List(items) => items,
        Content::Null => Vec::new(),
        _ => vec![value],
    }
}

/// Where something is mounted.
fn target(mount: &Yaml) -> Option<String> {
    match mount.as_text() {
        Some(text) => Some(text.split(':').nth(1).unwrap_or(text).to_owned()),
        None => mount.get("target").and_then(Yaml::as_text).map(str::to_owned),
    }
}
