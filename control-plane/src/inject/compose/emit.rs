//! The services that are added to a file, and what changes of those that are there.

use super::labels::Mode;
use super::plan::{Member, MeshService, Plan, names_of};
use super::project::{Project, Service, keys};
use super::{CONTROL, INSTALL, MESH_NETWORK, Options, ports};
use crate::inject::yaml::{Content, Field, Yaml, field, map, text, texts};
use crate::model::problem::{Code, Problem};
use std::fmt::Write as _;

/// What the owner of a network has instead of the application: none of it is allowed beside `network_mode: service:...`.
const MOVED: [&str; 11] = [
    "hostname",
    "domainname",
    "mac_address",
    "networks",
    "ports",
    "expose",
    "dns",
    "dns_search",
    "dns_opt",
    "extra_hosts",
    "external_links",
];
/// Where the binary is in the image, and where wrapped services have it.
const BINARY: &str = "/outrigger";
const WRAPPED_BINARY: &str = "/.outrigger/outrigger";
const WRAPPED_FOLDER: &str = "/.outrigger";
/// Where sidecars and the control plane keep what they must not lose. The image has this folder, and its owner is who they
/// run as: a new volume takes that over.
const STATE: &str = "/var/lib/outrigger";
const DATA: &str = "/var/lib/outrigger/data";
/// Where join tokens are.
const TOKENS: &str = "/run/outrigger";

/// What is added and changed.
pub(super) struct Pieces {
    /// Each service of the file, in its order.
    pub(super) services: Vec<Piece>,
    /// Services behind them.
    pub(super) added: Vec<Field>,
    pub(super) volumes: Vec<Field>,
    pub(super) networks: Vec<Field>,
}

/// What a service of the file becomes: one, or its replicas.
pub(super) struct Piece {
    pub(super) index: usize,
    pub(super) copies: Vec<Copy>,
    /// What it extends has to be written out: others cannot extend what is injected.
    pub(super) alone: bool,
}

/// One application.
pub(super) struct Copy {
    pub(super) name: String,
    /// Keys that it has no longer.
    pub(super) without: Vec<String>,
    /// Fields that it has instead, or in addition.
    pub(super) with: Vec<Field>,
    /// The services that stand beside it.
    pub(super) beside: Vec<Field>,
}

impl Copy {
    /// Whether anything changes.
    pub(super) fn changes(&self) -> bool {
        !self.without.is_empty() || !self.with.is_empty()
    }

    /// Whether a key of the file is not taken over as it is.
    pub(super) fn touches(&self, key: &str) -> bool {
        self.without.iter().any(|it| it == key) || self.with.iter().any(|it| it.key == key)
    }
}

/// Makes everything that is added.
pub(super) fn emit(
    project: &Project<'_>,
    plan: &Plan,
    options: &Options,
) -> Result<Pieces, Vec<Problem>> {
    let mut problems = Vec::new();
    let emitter = Emitter { project, plan, options };
    let mut services = Vec::new();
    for (index, service) in project.services.iter().enumerate() {
        let copies = match plan.member(index) {
            Some(member) => member
                .replicas
                .iter()
                .map(|name| emitter.application(service, member, name))
                .collect(),
            None => vec![emitter.bystander(service, &mut problems)],
        };
        services.push(Piece { index, copies, alone: false });
    }
    // Whoever extends what is changed stands alone, and so does whoever extends that.
    loop {
        let changed = |piece: &Piece| piece.alone || piece.copies.iter().any(Copy::changes);
        let next = services.iter().position(|piece| {
            let base = project.services[piece.index].extends.as_deref();
            let base = base.and_then(|base| project.services.iter().position(|it| it.name == base));
            !piece.alone && base.and_then(|base| services.get(base)).is_some_and(changed)
        });
        match next {
            Some(next) => services[next].alone = true,
            None => break,
        }
    }
    let mut added = vec![emitter.control_plane()];
    let wrapped = plan.members.iter().any(|member| member.mode == Mode::Wrapper);
    if wrapped {
        added.push(emitter.install());
    }
    let volumes = emitter.volumes(wrapped);
    for volume in &volumes {
        if let Some(node) = project.tree.get("volumes").and_then(|it| it.get(&volume.key)) {
            let reason = format!(
                "`{}` is what a volume of the mesh will be called: give this one another name",
                volume.key
            );
            problems.push(
                Problem::new(Code::Duplicate, reason)
                    .at(Some(node.at))
                    .field(format!("volumes.{}", volume.key)),
            );
        }
    }
    let networks = match plan.shared_network {
        Some(_) => Vec::new(),
        None => vec![field(MESH_NETWORK, map([]))],
    };
    if problems.is_empty() {
        Ok(Pieces { services, added, volumes, networks })
    } else {
        Err(problems)
    }
}

struct Emitter<'a> {
    project: &'a Project<'a>,
    plan: &'a Plan,
    options: &'a Options,
}

impl Emitter<'_> {
    /// An application, and what stands beside it.
    fn application(&self, service: &Service, member: &Member, name: &str) -> Copy {
        match member.mode {
            Mode::Trio => self.trio(service, member, name),
            Mode::Wrapper => self.wrapped(service, member),
        }
    }

    fn trio(&self, service: &Service, member: &Member, name: &str) -> Copy {
        let owner = format!("{name}-net");
        let sidecar = format!("{name}-mesh");
        let mut without: Vec<String> = MOVED.iter().map(|key| (*key).to_owned()).collect();
        without.extend(["links", "scale", "network_mode"].map(str::to_owned));
        without.retain(|key| service.yaml.get(key).is_some());
        let mut with = vec![field("network_mode", text(format!("service:{owner}")))];
        if member.replicas.len() > 1
            && let Some(deploy) = service.yaml.get("deploy")
        {
            let rest: Vec<_> = deploy
                .fields()
                .iter()
                .filter(|it| !["replicas", "mode"].contains(&it.key.as_str()))
                .cloned()
                .collect();
            without.push("deploy".to_owned());
            if !rest.is_empty() {
                with.push(field("deploy", Content::Map(rest).into()));
            }
        }
        let (of_network, others) = self.sysctls(service);
        if !of_network.is_empty() {
            without.push("sysctls".to_owned());
            if !others.is_empty() {
                with.push(field("sysctls", Content::Map(others).into()));
            }
        }
        let mut depends = vec![field(&sidecar, condition("service_healthy"))];
        depends.extend(self.dependencies(service));
        with.push(field("depends_on", Content::Map(depends).into()));
        let beside = vec![
            field(&owner, self.owner(service, member, name, of_network)),
            field(&sidecar, self.sidecar(service, member, name, &owner)),
        ];
        Copy { name: name.to_owned(), without, with, beside }
    }

    /// The container that has the network.
    fn owner(&self, service: &Service, member: &Member, name: &str, sysctls: Vec<Field>) -> Yaml {
        let mut fields =
            vec![field("image", text(&self.options.image)), field("command", texts(["pause"]))];
        fields.extend(self.profiles(service));
        for key in MOVED {
            match key {
                "networks" => fields.push(field("networks", self.networks(service, member, name))),
                "extra_hosts" => fields.extend(self.hosts(service, member)),
                _ => fields.extend(service.yaml.get(key).map(|value| field(key, value.clone()))),
            }
        }
        let links = self.links(service);
        if !links.is_empty() {
            fields.push(field("links", texts(links)));
        }
        if !sysctls.is_empty() {
            fields.push(field("sysctls", Content::Map(sysctls).into()));
        }
        fields.extend(confined());
        fields.push(field("restart", text("unless-stopped")));
        Content::Map(fields).into()
    }

    /// The container that speaks for the application.
    fn sidecar(&self, service: &Service, member: &Member, name: &str, owner: &str) -> Yaml {
        let mut command = vec!["sidecar".to_owned(), format!("--instance={}", label(name))];
        command.push(format!("--data-dir={DATA}"));
        command.extend(self.sidecar_arguments(member));
        let mut fields =
            vec![field("image", text(&self.options.image)), field("command", texts(command))];
        fields.extend(self.profiles(service));
        fields.push(field("network_mode", text(format!("service:{owner}"))));
        fields.push(field("user", text("1337:1337")));
        fields.extend(confined());
        let token = format!("{}:{TOKENS}:ro", self.token_volume(member));
        fields.push(field("volumes", texts([format!("{}:{STATE}", state_volume(name)), token])));
        fields.push(field(
            "depends_on",
            map([(owner, condition("service_started")), (CONTROL, condition("service_started"))]),
        ));
        fields.push(field("healthcheck", healthcheck(None, "2s")));
        fields.push(field("restart", text("unless-stopped")));
        fields.push(field("stop_grace_period", text("30s")));
        Content::Map(fields).into()
    }

    /// What a sidecar is told, however it is started.
    fn sidecar_arguments(&self, member: &Member) -> Vec<String> {
        let service = &self.plan.mesh[member.mesh];
        let mut arguments = vec![
            format!("--service={}", service.name),
            format!("--join-file={TOKENS}/token"),
            "--join-wait-s=60".to_owned(),
            "--outbound-port=0".to_owned(),
        ];
        for (port, protocol) in &member.ports {
            arguments.push(format!("--app-port={port}:{}", ports::name(*protocol)));
        }
        if let Some(version) = &member.version {
            arguments.push(format!("--label=version={version}"));
        }
        for target in member.calls.iter().map(|index| &self.plan.mesh[*index]) {
            for (port, _) in &target.ports {
                let MeshService { name, address, .. } = target;
                arguments.push(format!("--outbound={name}:{port}={address}:{port}"));
            }
        }
        arguments
    }

    /// Application and sidecar in one container.
    fn wrapped(&self, service: &Service, member: &Member) -> Copy {
        let mut entrypoint = vec![WRAPPED_BINARY.to_owned(), "run".to_owned()];
        entrypoint.extend(self.sidecar_arguments(member));
        entrypoint.push("--".to_owned());
        let mut command = words(service.yaml.get("entrypoint"));
        command.extend(words(service.yaml.get("command")));
        let mut volumes = items(service, "volumes");
        volumes.push(text(format!("outrigger-bin:{WRAPPED_FOLDER}:ro")));
        volumes.push(text(format!("{}:{TOKENS}:ro", self.token_volume(member))));
        let mut depends = vec![
            field(INSTALL, condition("service_completed_successfully")),
            field(CONTROL, condition("service_started")),
        ];
        depends.extend(self.dependencies(service));
        let mut with = vec![
            field("entrypoint", texts(entrypoint)),
            field("command", Content::List(command).into()),
            field("volumes", Content::List(volumes).into()),
            field("depends_on", Content::Map(depends).into()),
        ];
        with.extend(self.hosts(service, member));
        if self.plan.shared_network.is_none() {
            with.push(field("networks", self.networks(service, member, &service.name)));
        }
        let mut without = Vec::new();
        if service.yaml.get("links").is_some() {
            without.push("links".to_owned());
            let links = self.links(service);
            if !links.is_empty() {
                with.push(field("links", texts(links)));
            }
        }
        Copy { name: service.name.clone(), without, with, beside: Vec::new() }
    }

    /// A service without a sidecar, as far as it refers to what has another shape now.
    fn bystander(&self, service: &Service, problems: &mut Vec<Problem>) -> Copy {
        let mut with = Vec::new();
        let several = |name: &str| self.member(name).filter(|member| member.replicas.len() > 1);
        if service.names("depends_on").into_iter().any(|name| several(name).is_some()) {
            with.push(field("depends_on", Content::Map(self.dependencies(service)).into()));
        }
        let members: Vec<&str> = service
            .names("links")
            .into_iter()
            .filter(|link| self.member(target(link)).is_some())
            .collect();
        if !members.is_empty() {
            let links = service.names("links").into_iter().flat_map(|link| {
                let (name, alias) = link.split_once(':').unwrap_or((link, link));
                match self.member(name) {
                    None => vec![link.to_owned()],
                    Some(member) => member
                        .replicas
                        .iter()
                        .map(|it| format!("{}:{alias}", member.owner(it)))
                        .collect(),
                }
            });
            with.push(field("links", texts(links)));
        }
        let mode = service.yaml.get("network_mode").and_then(Yaml::as_text).unwrap_or_default();
        if let Some((name, member)) =
            mode.strip_prefix("service:").and_then(|name| Some((name, self.member(name)?)))
        {
            match member.replicas.as_slice() {
                [one] => with.push(field("network_mode", text(format!("service:{}", member.owner(one))))),
                _ => problems.push(service.problem(Code::InvalidValue, "network_mode", format!("`{name}` becomes several containers: say which by its name, or inject it with the label `outrigger.mode: wrapper`"))),
            }
        }
        for key in ["volumes_from", "pid", "ipc"] {
            for name in service.names(key) {
                let name = name.trim_start_matches("service:");
                if let Some(member) = several(target(name)) {
                    let reason = format!(
                        "`{}` becomes {} containers: there is no `{}` to refer to",
                        target(name),
                        member.replicas.len(),
                        target(name)
                    );
                    problems.push(service.problem(Code::InvalidValue, key, reason));
                }
            }
        }
        Copy { name: service.name.clone(), without: Vec::new(), with, beside: Vec::new() }
    }

    /// Once for the file.
    fn control_plane(&self) -> Field {
        let mut command = vec![
            text("control-plane"),
            text(format!("--data-dir={DATA}")),
            text("--xds=0.0.0.0:7701"),
            text(format!("--advertise={CONTROL}:7701")),
        ];
        if self.options.publish_api {
            command.push(text("--api=0.0.0.0:7700"));
        }
        let mut volumes = vec![format!("{CONTROL}:{STATE}")];
        for service in &self.plan.mesh {
            command.push(text(format!("--issue-token={0}={TOKENS}/{0}/token", service.name)));
            volumes.push(format!("{}:{TOKENS}/{}", token_volume(service), service.name));
        }
        if let Some(seed) = self.seed() {
            command.extend([text("--seed"), Content::Quoted(seed).into()]);
        }
        let network = self.plan.shared_network.as_deref().unwrap_or(MESH_NETWORK);
        let mut fields = vec![
            field("image", text(&self.options.image)),
            field("command", Content::List(command).into()),
        ];
        fields.extend(self.control_profiles());
        if self.options.publish_api {
            fields.push(field("ports", texts(["127.0.0.1:7700:7700"])));
        }
        fields.push(field("networks", texts([network])));
        fields.push(field("user", text("1337:1337")));
        fields.extend(confined());
        fields.push(field("volumes", texts(volumes)));
        fields.push(field("healthcheck", healthcheck(Some("http://127.0.0.1:7700/readyz"), "5s")));
        fields.push(field("restart", text("unless-stopped")));
        field(CONTROL, Content::Map(fields).into())
    }

    /// Copies the binary to where wrapped services find it. Its owner is root, so that no application changes it.
    fn install(&self) -> Field {
        let mut fields = vec![
            field("image", text(&self.options.image)),
            field("command", texts(["install", WRAPPED_FOLDER])),
            field("network_mode", text("none")),
            field("user", text("0:0")),
        ];
        fields.extend(confined());
        fields.push(field("volumes", texts([format!("outrigger-bin:{WRAPPED_FOLDER}")])));
        field(INSTALL, Content::Map(fields).into())
    }

    fn volumes(&self, wrapped: bool) -> Vec<Field> {
        let mut volumes = vec![field(CONTROL, map([]))];
        if wrapped {
            volumes.push(field("outrigger-bin", map([])));
        }
        for member in self.plan.members.iter().filter(|member| member.mode == Mode::Trio) {
            volumes.extend(member.replicas.iter().map(|name| field(&state_volume(name), map([]))));
        }
        for (index, service) in self.plan.mesh.iter().enumerate() {
            let mut members = self.plan.members.iter().filter(|member| member.mesh == index);
            // A wrapped application runs as whoever its image says.
            let mode =
                if members.any(|member| member.mode == Mode::Wrapper) { "0755" } else { "0700" };
            let options = map([
                ("type", text("tmpfs")),
                ("device", text("tmpfs")),
                ("o", text(format!("uid=1337,gid=1337,mode={mode},size=1m"))),
            ]);
            volumes.push(field(&token_volume(service), map([("driver_opts", options)])));
        }
        volumes
    }

    /// The Services of the mesh, as documents.
    fn seed(&self) -> Option<String> {
        let mut seed = String::new();
        for service in self.plan.mesh.iter().filter(|service| !service.ports.is_empty()) {
            if !seed.is_empty() {
                seed.push_str("---\n");
            }
            let _ = writeln!(seed, "kind: Service\nname: {}\nspec:\n  ports:", service.name);
            for (port, protocol) in &service.ports {
                let _ =
                    writeln!(seed, "  - {{port: {port}, protocol: {}}}", ports::name(*protocol));
            }
            if !service.versions.is_empty() {
                seed.push_str("  subsets:\n");
            }
            for version in &service.versions {
                let version = serde_json::Value::from(version.as_str());
                let _ = writeln!(seed, "  - {{name: {version}, labels: {{version: {version}}}}}");
            }
        }
        (!seed.is_empty()).then_some(seed)
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.plan.members.iter().find(|it| self.project.services[it.index].name == name)
    }

    /// What it depends on, replicas for what became several; what it links to counts.
    fn dependencies(&self, service: &Service) -> Vec<Field> {
        let mut all: Vec<Field> = Vec::new();
        let mut add = |name: &str, value: Yaml| {
            let names = match self.member(name) {
                Some(member) => member.replicas.clone(),
                None => vec![name.to_owned()],
            };
            for name in names {
                if !all.iter().any(|it| it.key == name) {
                    all.push(field(&name, value.clone()));
                }
            }
        };
        for Field { key, value, .. } in
            service.yaml.get("depends_on").map_or_else(Vec::new, |it| keys(it.clone()))
        {
            let value =
                if value.value == Content::Null { condition("service_started") } else { value };
            add(&key, value);
        }
        for link in service.names("links") {
            add(target(link), condition("service_started"));
        }
        all
    }

    /// Links to who is not in the mesh. What is in it is called by its name.
    fn links(&self, service: &Service) -> Vec<String> {
        let links = service.names("links").into_iter();
        links.filter(|link| self.member(target(link)).is_none()).map(str::to_owned).collect()
    }

    /// Its networks, with the names by which it was found there.
    fn networks(&self, service: &Service, member: &Member, name: &str) -> Yaml {
        let own = service.yaml.get("networks").map_or_else(Vec::new, |it| keys(it.clone()));
        let mut networks =
            if own.is_empty() { vec![field("default", Content::Null.into())] } else { own };
        let mut names = match member.mode {
            Mode::Trio => vec![service.name.clone()],
            // Compose gives it these itself.
            Mode::Wrapper => Vec::new(),
        };
        if member.mode == Mode::Trio {
            if name != service.name {
                names.push(name.to_owned());
            }
            let container = service.yaml.get("container_name").and_then(Yaml::as_text);
            names.extend(container.map(str::to_owned));
            for network in &mut networks {
                let mut aliases = names.clone();
                let given = network.value.get("aliases").map(Yaml::as_texts).unwrap_or_default();
                aliases.extend(
                    given
                        .into_iter()
                        .filter(|it| !names.iter().any(|name| name == it))
                        .map(str::to_owned),
                );
                let rest = network.value.fields().iter().filter(|it| it.key != "aliases").cloned();
                let fields = [field("aliases", texts(aliases))].into_iter().chain(rest);
                network.value = Content::Map(fields.collect()).into();
            }
        }
        if self.plan.shared_network.is_none() {
            networks.push(field(MESH_NETWORK, Content::Null.into()));
        }
        Content::Map(networks).into()
    }

    /// Its extra hosts, and the names of the services that it can call.
    fn hosts(&self, service: &Service, member: &Member) -> Option<Field> {
        let mut hosts = Vec::new();
        let mut known = Vec::new();
        match service.yaml.get("extra_hosts") {
            Some(Yaml { value: Content::Map(fields), .. }) => {
                for Field { key, value, .. } in fields {
                    known.push(key.clone());
                    hosts.push(text(format!("{key}:{}", value.as_text().unwrap_or_default())));
                }
            }
            Some(list) => {
                for item in list.items() {
                    let name = item.as_text().unwrap_or_default();
                    known.push(name.split([':', '=']).next().unwrap_or_default().to_owned());
                    hosts.push(item.clone());
                }
            }
            None => {}
        }
        // Its own names are its own.
        known.extend(names_of(service));
        let mut add = |name: &str, target: &MeshService| {
            if !known.iter().any(|it| it == name) {
                known.push(name.to_owned());
                hosts.push(text(format!("{name}:{}", target.address)));
            }
        };
        for target in member.calls.iter().map(|index| &self.plan.mesh[*index]) {
            target.names.iter().for_each(|name| add(name, target));
        }
        for (alias, index) in
            member.aliases.iter().filter(|(_, index)| member.calls.contains(index))
        {
            add(alias, &self.plan.mesh[*index]);
        }
        (!hosts.is_empty()).then(|| field("extra_hosts", Content::List(hosts).into()))
    }

    /// Those of the network, and the others.
    fn sysctls(&self, service: &Service) -> (Vec<Field>, Vec<Field>) {
        let Some(sysctls) = service.yaml.get("sysctls") else { return (Vec::new(), Vec::new()) };
        let fields = match &sysctls.value {
            Content::Map(fields) => fields.clone(),
            _ => sysctls
                .as_texts()
                .into_iter()
                .filter_map(|item| item.split_once('='))
                .map(|(key, value)| field(key, text(value)))
                .collect(),
        };
        fields.into_iter().partition(|field| field.key.starts_with("net."))
    }

    fn profiles(&self, service: &Service) -> Option<Field> {
        service.yaml.get("profiles").map(|profiles| field("profiles", profiles.clone()))
    }

    /// The control plane is there for any of its members.
    fn control_profiles(&self) -> Option<Field> {
        let mut all: Vec<String> = Vec::new();
        for member in &self.plan.members {
            let service = &self.project.services[member.index];
            let profiles = service.names("profiles");
            if profiles.is_empty() {
                return None;
            }
            for profile in profiles {
                if !all.iter().any(|it| it == profile) {
                    all.push(profile.to_owned());
                }
            }
        }
        (!all.is_empty()).then(|| field("profiles", texts(all)))
    }

    fn token_volume(&self, member: &Member) -> String {
        token_volume(&self.plan.mesh[member.mesh])
    }
}

fn token_volume(service: &MeshService) -> String {
    format!("outrigger-token-{}", service.name)
}

fn state_volume(application: &str) -> String {
    format!("outrigger-state-{}", label(application))
}

/// A name as the mesh takes it for an instance.
fn label(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// What is linked to, without the alias.
fn target(link: &str) -> &str {
    link.split(':').next().unwrap_or(link)
}

fn condition(condition: &str) -> Yaml {
    map([("condition", text(condition))])
}

/// No capability, nothing to write to, and no way to more.
fn confined() -> [Field; 3] {
    [
        field("cap_drop", texts(["ALL"])),
        field("security_opt", texts(["no-new-privileges:true"])),
        field("read_only", Content::Plain("true".to_owned()).into()),
    ]
}

fn healthcheck(url: Option<&str>, interval: &str) -> Yaml {
    let test = ["CMD", BINARY, "healthcheck"].into_iter().chain(url);
    map([
        ("test", texts(test)),
        ("interval", text(interval)),
        ("timeout", text("5s")),
        ("retries", Content::Plain("60".to_owned()).into()),
    ])
}

fn items(service: &Service, key: &str) -> Vec<Yaml> {
    match service.yaml.get(key) {
        Some(Yaml { value: Content::List(items), .. }) => items.clone(),
        Some(value) if value.as_text().is_some() => vec![value.clone()],
        _ => Vec::new(),
    }
}

/// The words of a command: a list of them, or a text that is split as a shell would, without running any.
fn words(command: Option<&Yaml>) -> Vec<Yaml> {
    match command {
        Some(Yaml { value: Content::List(items), .. }) => items.clone(),
        Some(value) => {
            split_words(value.as_text().unwrap_or_default()).into_iter().map(text).collect()
        }
        None => Vec::new(),
    }
}

fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
