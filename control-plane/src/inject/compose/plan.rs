//! What becomes of each service: who gets a sidecar and how, which ports and names the mesh has, who calls whom.

use super::labels::Mode;
use super::ports::{self, Declared};
use super::project::{Project, Service};
use super::{CONTROL, MESH_NETWORK, Options};
use crate::inject::yaml::{Content, Yaml};
use crate::model::problem::{Code, Problem};
use crate::model::read::check_name;
use crate::model::service::Protocol;
use std::net::Ipv4Addr;

/// Ports of every sidecar.
const TAKEN: [u16; 2] = [15000, 15006];
/// The user that sidecars run as.
const SIDECAR_UID: &str = "1337";
/// More replicas are a mistake, or work for `--scale`.
const MOST_REPLICAS: u32 = 100;

/// What becomes of the services of a file.
pub(super) struct Plan {
    pub(super) members: Vec<Member>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) mesh: Vec<MeshService>,
    /// The network of the file that all members share; `None`: there is none.
    pub(super) shared_network: Option<String>,
}

/// A service that gets sidecars.
pub(super) struct Member {
    /// Which service of the file.
    pub(super) index: usize,
    /// Which of [`Plan::mesh`].
    pub(super) mesh: usize,
    pub(super) mode: Mode,
    /// Names of its applications: its own, or one for each replica.
    pub(super) replicas: Vec<String>,
    /// Its ports in the mesh.
    pub(super) ports: Vec<(u16, Protocol)>,
    pub(super) version: Option<String>,
    /// Which of [`Plan::mesh`] it can call.
    pub(super) calls: Vec<usize>,
    /// Names of its links, and which of [`Plan::mesh`] they lead to.
    pub(super) aliases: Vec<(String, usize)>,
    /// Its networks.
    pub(super) networks: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// A service that stays as it is.
pub(super) struct Skipped {
    pub(super) index: usize,
    pub(super) reason: String,
}

/// A service of the mesh: one or several of the file.
pub(super) struct MeshService {
    pub(super) name: String,
    pub(super) ports: Vec<(u16, Protocol)>,
    pub(super) versions: Vec<String>,
    /// Where callers find it, on their own loopback.
    pub(super) address: Ipv4Addr,
    /// What they may call it.
    pub(super) names: Vec<String>,
}

impl Plan {
    /// The member that a service of the file is.
    pub(super) fn member(&self, index: usize) -> Option<&Member> {
        self.members.iter().find(|member| member.index == index)
    }
}

impl Member {
    /// The container that owns the network of a replica.
    pub(super) fn owner(&self, replica: &str) -> String {
        match self.mode {
            Mode::Trio => format!("{replica}-net"),
            Mode::Wrapper => replica.to_owned(),
        }
    }
}

/// Decides everything, or finds everything that is wrong.
pub(super) fn plan(project: &Project<'_>, options: &Options) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut plan =
        Plan { members: Vec::new(), skipped: Vec::new(), mesh: Vec::new(), shared_network: None };
    for name in options.only.iter().filter(|name| project.service(name).is_none()) {
        let names = project.services.iter().map(|service| service.name.as_str());
        let problem = Problem::new(Code::NotFound, format!("--only: there is no service `{name}`"));
        problems.push(problem.choices(name, names));
    }
    for (index, service) in project.services.iter().enumerate() {
        match look(service, index, options, &mut problems) {
            Look::Member(member, name) => {
                let member = Member { mesh: mesh_service(&mut plan.mesh, &name), ..member };
                plan.members.push(member);
            }
            Look::Skip(reason) => plan.skipped.push(Skipped { index, reason }),
            Look::Wrong => {}
        }
    }
    combine(project, &mut plan, &mut problems);
    for position in 0..plan.members.len() {
        call(project, &mut plan, position, &mut problems);
    }
    for service in &mut plan.mesh {
        service.ports.sort_unstable();
    }
    plan.shared_network = shared_network(&plan.members);
    if plan.shared_network.is_none() {
        // Whoever kept networks apart should know.
        for member in &mut plan.members {
            let note = "joins the network `outrigger`, since the services share none";
            member.notes.push(note.to_owned());
        }
    }
    refuse_taken_names(project, &plan, &mut problems);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

enum Look {
    Member(Member, String),
    Skip(String),
    Wrong,
}

/// One service, by itself.
fn look(service: &Service, index: usize, options: &Options, problems: &mut Vec<Problem>) -> Look {
    let labels = &service.labels;
    let known = problems.len();
    if labels.inject == Some(false) {
        return Look::Skip("outrigger.inject is false".to_owned());
    }
    if !options.only.is_empty() && !options.only.contains(&service.name) {
        return Look::Skip("not among --only".to_owned());
    }
    if let Some(mode) = service.yaml.get("network_mode").and_then(Yaml::as_text) {
        let reason = match mode {
            "host" => "network_mode: host has no network of its own".to_owned(),
            "none" => "network_mode: none has no network".to_owned(),
            "bridge" => "network_mode: bridge has no names".to_owned(),
            other => format!("network_mode: {other} belongs to another container"),
        };
        if labels.inject == Some(true) {
            problems.push(service.problem(
                Code::InvalidValue,
                "network_mode",
                format!("{reason}, so it cannot be injected"),
            ));
            return Look::Wrong;
        }
        return Look::Skip(reason);
    }
    let declared = ports::declared(&service.yaml);
    let calls_somebody =
        !service.names("depends_on").is_empty() || !service.names("links").is_empty();
    let wanted = labels.inject == Some(true) || labels.ports.is_some() || labels.calls.is_some();
    if declared == Declared::default() && !calls_somebody && !wanted {
        return Look::Skip("no port and no depends_on".to_owned());
    }
    let mut notes = Vec::new();
    let ports = ports_of(service, &declared, &mut notes, problems);
    let mode = if labels.job { Mode::Wrapper } else { labels.mode.unwrap_or(options.mode) };
    if labels.job && labels.mode == Some(Mode::Trio) {
        let reason = "a job ends by itself, and a sidecar in another container would not: a job takes mode wrapper";
        problems.push(service.problem(Code::InvalidValue, "labels", reason));
    }
    let user = service.yaml.get("user").and_then(Yaml::as_text).unwrap_or_default();
    if user.split(':').next() == Some(SIDECAR_UID) {
        let reason = "user 1337 is the sidecar's: give the application another";
        problems.push(service.problem(Code::InvalidValue, "user", reason));
    }
    if mode == Mode::Wrapper && service.names("entrypoint").is_empty() {
        let reason = "mode wrapper runs the application as its child: say its `entrypoint` here, the image's own is not known";
        problems.push(service.problem(Code::MissingField, "entrypoint", reason));
    }
    let replicas = match mode {
        Mode::Wrapper => Ok(vec![service.name.clone()]),
        Mode::Trio => replicas(service, &declared, options),
    };
    let replicas = match replicas {
        Ok(replicas) if replicas.is_empty() => return Look::Skip("0 replicas".to_owned()),
        Ok(replicas) => replicas,
        Err(problem) => {
            problems.push(*problem);
            Vec::new()
        }
    };
    let name = mesh_name(service, &mut notes);
    if let Err(reason) = check_name(&name) {
        let reason = format!(
            "`{name}` cannot be a name in the mesh ({reason}): give it one with the label `outrigger.service`"
        );
        problems.push(service.problem(Code::InvalidValue, "", reason));
    }
    if problems.len() > known {
        return Look::Wrong;
    }
    let published: Vec<String> = declared.published.iter().map(u16::to_string).collect();
    if !published.is_empty() {
        notes.push(format!(
            "published at {}, where anybody may call it in plaintext",
            published.join(", ")
        ));
    }
    let mut networks: Vec<String> =
        service.names("networks").into_iter().map(str::to_owned).collect();
    if networks.is_empty() {
        networks.push("default".to_owned());
    }
    let version = labels.version.clone();
    let member = Member {
        index,
        mesh: 0,
        mode,
        replicas,
        ports,
        version,
        calls: Vec::new(),
        aliases: Vec::new(),
        networks,
        notes,
    };
    Look::Member(member, name)
}

/// The ports that it has in the mesh.
fn ports_of(
    service: &Service,
    declared: &Declared,
    notes: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Vec<(u16, Protocol)> {
    let labels = &service.labels;
    let given: Vec<_> = match &labels.ports {
        Some(ports) => ports.iter().map(|port| (port.number, port.protocol)).collect(),
        None => {
            let key = if service.yaml.get("ports").is_some() { "ports" } else { "expose" };
            let example: Vec<String> = declared.ports.iter().take(4).map(u16::to_string).collect();
            let example = if example.is_empty() { "9000".to_owned() } else { example.join(",") };
            if let Some(unclear) = &declared.unclear {
                let reason = format!(
                    "the port in `{unclear}` is not one number: say which ports the mesh has with the label `outrigger.port`, as in \"{example}\""
                );
                problems.push(service.problem(Code::InvalidValue, key, reason));
                return Vec::new();
            }
            if declared.ports.len() > 1 {
                let reason = format!(
                    "it has several ports, and not all may speak the same: say which ports the mesh has with the label `outrigger.port`, as in \"{}\"",
                    example.replacen(',', ":http,", 1)
                );
                problems.push(service.problem(Code::InvalidValue, key, reason));
                return Vec::new();
            }
            declared.ports.iter().map(|port| (*port, None)).collect()
        }
    };
    let mut ports: Vec<(u16, Protocol)> = Vec::new();
    for (number, protocol) in given {
        let (guessed, why) = ports::guess(number);
        let protocol = protocol.or(labels.protocol);
        if let (None, Some(why)) = (protocol, why) {
            notes.push(format!("{number} is {why}'s"));
        }
        if TAKEN.contains(&number) {
            let reason = format!("port {number} is the sidecar's: the application needs another");
            problems.push(service.problem(Code::InvalidValue, "labels", reason));
        }
        if ports.iter().any(|(known, _)| *known == number) {
            let reason = format!("`outrigger.port` has {number} twice");
            problems.push(service.problem(Code::Duplicate, "labels", reason));
        }
        ports.push((number, protocol.unwrap_or(guessed)));
    }
    if labels.ports.is_some() {
        for port in declared.ports.iter().filter(|port| !ports.iter().any(|(it, _)| it == *port)) {
            notes.push(format!("members cannot call its port {port}, which is not in the mesh"));
        }
    }
    ports
}

/// The names of its applications.
fn replicas(
    service: &Service,
    declared: &Declared,
    options: &Options,
) -> Result<Vec<String>, Box<Problem>> {
    let deploy = service.yaml.get("deploy").and_then(|deploy| deploy.get("replicas"));
    let (key, given) = match (deploy, service.yaml.get("scale")) {
        (Some(replicas), _) => ("deploy", replicas),
        (None, Some(scale)) => ("scale", scale),
        (None, None) => return Ok(vec![service.name.clone()]),
    };
    let number = given.as_text().and_then(|text| text.parse::<u32>().ok());
    let Some(number) = number.filter(|number| *number <= MOST_REPLICAS) else {
        let reason = format!(
            "expected a number of replicas up to {MOST_REPLICAS}: each gets its own containers; with the label `outrigger.mode: wrapper` any number works"
        );
        return Err(Box::new(service.problem(Code::InvalidValue, key, reason)));
    };
    if number <= 1 {
        return Ok((0..number).map(|_| service.name.clone()).collect());
    }
    if options.form == super::Form::Override {
        let reason = "an override cannot turn one service into several: inject the whole file, or take the label `outrigger.mode: wrapper`";
        return Err(Box::new(service.problem(Code::NotSupported, key, reason)));
    }
    if service.yaml.get("container_name").is_some() {
        let reason = format!("{number} replicas cannot all have this name");
        return Err(Box::new(service.problem(Code::InvalidValue, "container_name", reason)));
    }
    if let Some(port) = declared.published.first() {
        let reason = format!(
            "{number} replicas cannot all publish host port {port}: leave the host port out, or give it a range"
        );
        return Err(Box::new(service.problem(Code::InvalidValue, "ports", reason)));
    }
    Ok((1..=number).map(|number| format!("{}-{number}", service.name)).collect())
}

/// The label, or the name of the service as far as the mesh allows it.
fn mesh_name(service: &Service, notes: &mut Vec<String>) -> String {
    if let Some(name) = &service.labels.service {
        return name.clone();
    }
    let name = service.name.to_ascii_lowercase().replace(['_', '.'], "-");
    if name != service.name {
        notes.push(format!("named {name} in the mesh"));
    }
    name
}

fn mesh_service(mesh: &mut Vec<MeshService>, name: &str) -> usize {
    if let Some(known) = mesh.iter().position(|service| service.name == name) {
        return known;
    }
    let index = mesh.len();
    let (high, low) = (index / 250, index % 250);
    let part = |number: usize| u8::try_from(number + 1).unwrap_or(u8::MAX);
    mesh.push(MeshService {
        name: name.to_owned(),
        ports: Vec::new(),
        versions: Vec::new(),
        address: Ipv4Addr::new(127, 0, part(high), part(low)),
        names: Vec::new(),
    });
    index
}

/// Ports, versions and names of the mesh's services, from all that belong to each.
fn combine(project: &Project<'_>, plan: &mut Plan, problems: &mut Vec<Problem>) {
    for member in &plan.members {
        let service = &project.services[member.index];
        let mesh = &mut plan.mesh[member.mesh];
        for (port, protocol) in &member.ports {
            match mesh.ports.iter().find(|(known, _)| known == port) {
                Some((_, known)) if known != protocol => {
                    let reason = format!(
                        "`{}` speaks {} at {port}, and here it would be {}: one service, one protocol",
                        mesh.name,
                        ports::name(*known),
                        ports::name(*protocol)
                    );
                    problems.push(service.problem(Code::InvalidValue, "labels", reason));
                }
                Some(_) => {}
                None => mesh.ports.push((*port, *protocol)),
            }
        }
        if let Some(version) = &member.version
            && !mesh.versions.contains(version)
        {
            mesh.versions.push(version.clone());
        }
    }
    for (index, mesh) in plan.mesh.iter_mut().enumerate() {
        mesh.names.push(mesh.name.clone());
        let mut members = plan.members.iter().filter(|member| member.mesh == index);
        // Names of one version out of several lead to that version alone, past the mesh.
        if let (Some(member), None) = (members.next(), members.next()) {
            for name in names_of(&project.services[member.index]) {
                if !mesh.names.contains(&name) {
                    mesh.names.push(name);
                }
            }
        }
    }
}

/// Everything that others in the file may call a service.
pub(super) fn names_of(service: &Service) -> Vec<String> {
    let mut names = vec![service.name.clone()];
    let container = service.yaml.get("container_name").and_then(Yaml::as_text);
    names.extend(container.filter(|name| !name.contains('$')).map(str::to_owned));
    if let Some(Yaml { value: Content::Map(networks), .. }) = service.yaml.get("networks") {
        for aliases in networks.iter().filter_map(|network| network.value.get("aliases")) {
            names.extend(aliases.as_texts().into_iter().map(str::to_owned));
        }
    }
    names
}

/// Whom a member can call, by its label or else everybody; and what its links are called.
fn call(project: &Project<'_>, plan: &mut Plan, position: usize, problems: &mut Vec<Problem>) {
    let member = &plan.members[position];
    let service = &project.services[member.index];
    let mut depends: Vec<usize> = Vec::new();
    let mut aliases = Vec::new();
    for dependency in service.names("depends_on") {
        depends.extend(find_member(project, plan, dependency).map(|it| it.mesh));
    }
    for link in service.names("links") {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        if let Some(target) = find_member(project, plan, target) {
            depends.push(target.mesh);
            aliases.push((alias.to_owned(), target.mesh));
        }
    }
    let mut wanted = Vec::new();
    match &service.labels.calls {
        Some(names) => {
            for (name, at) in names {
                match plan.mesh.iter().position(|mesh| mesh.name == *name && !mesh.ports.is_empty())
                {
                    Some(index) => wanted.push((index, true)),
                    None => {
                        let choices = plan.mesh.iter().filter(|mesh| !mesh.ports.is_empty());
                        let reason = format!(
                            "`outrigger.calls`: the mesh has no service `{name}` with a port"
                        );
                        let problem = Problem::new(Code::NotFound, reason).at(*at);
                        let problem =
                            problem.field(format!("{}.labels.outrigger.calls", service.path()));
                        problems
                            .push(problem.choices(name, choices.map(|mesh| mesh.name.as_str())));
                    }
                }
            }
        }
        None => {
            wanted.extend((0..plan.mesh.len()).map(|index| (index, depends.contains(&index))));
        }
    }
    let own: Vec<u16> = member
        .ports
        .iter()
        .map(|(port, _)| *port)
        .chain(ports::declared(&service.yaml).ports)
        .collect();
    let mut calls = Vec::new();
    let mut unreachable = Vec::new();
    for (index, certain) in wanted {
        let target = &plan.mesh[index];
        if index == member.mesh || target.ports.is_empty() || calls.contains(&index) {
            continue;
        }
        match target.ports.iter().find(|(port, _)| own.contains(port)) {
            None => calls.push(index),
            Some((port, _)) if certain => {
                let reason = format!(
                    "it listens at port {port} itself, so its sidecar cannot listen there for calls to `{}`: give one of the two another port, or name those it does call with the label `outrigger.calls`",
                    target.name
                );
                problems.push(service.problem(Code::InvalidValue, "", reason));
            }
            Some((port, _)) => unreachable.push(format!("{}:{port}", target.name)),
        }
    }
    let member = &mut plan.members[position];
    if !unreachable.is_empty() {
        member.notes.push(format!(
            "cannot call {} through the mesh: it has the same port itself",
            unreachable.join(", ")
        ));
    }
    member.aliases = aliases;
    member.calls = calls;
}

fn find_member<'a>(project: &Project<'_>, plan: &'a Plan, name: &str) -> Option<&'a Member> {
    plan.members.iter().find(|member| project.services[member.index].name == name)
}

/// The first network of the first member that all others have too.
fn shared_network(members: &[Member]) -> Option<String> {
    let first = members.first()?;
    first
        .networks
        .iter()
        .find(|it| members.iter().all(|member| member.networks.contains(it)))
        .cloned()
}

/// The names of what is added must be free.
fn refuse_taken_names(project: &Project<'_>, plan: &Plan, problems: &mut Vec<Problem>) {
    let mut refuse = |added: &str, because: &str| {
        if let Some(service) = project.service(added) {
            let reason = format!(
                "`{added}` is what {because} will be called: give this service another name"
            );
            problems.push(service.problem(Code::Duplicate, "", reason));
        }
    };
    if !plan.members.is_empty() {
        refuse(CONTROL, "the control plane");
    }
    for member in &plan.members {
        let name = &project.services[member.index].name;
        for replica in &member.replicas {
            if member.mode == Mode::Trio {
                refuse(&format!("{replica}-net"), &format!("the network owner of `{name}`"));
                refuse(&format!("{replica}-mesh"), &format!("the sidecar of `{name}`"));
            }
            if replica != name {
                refuse(replica, &format!("a replica of `{name}`"));
            }
        }
        if member.mode == Mode::Wrapper {
            refuse(super::INSTALL, "what brings the binary to wrapped services");
        }
    }
    let networks = project.tree.get("networks").and_then(|it| it.get(MESH_NETWORK));
    if let (None, Some(node)) = (&plan.shared_network, networks) {
        let reason = format!(
            "the services share no network, so the mesh adds one called `{MESH_NETWORK}`: give this one another name"
        );
        problems.push(
            Problem::new(Code::Duplicate, reason)
                .at(Some(node.at))
                .field(format!("networks.{MESH_NETWORK}")),
        );
    }
}
