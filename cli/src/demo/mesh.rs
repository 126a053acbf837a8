//! A running demo mesh: its processes, and what acts do with them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::addresses::{Network, free_port, gateway_port};
use super::process::{Ended, Memory, Process};
use super::progress::Progress;
use super::resources;
use super::topology::{App, BATCH, Calls, HOST, INBOUND_PORT, INSTANCES, Instance, OUTSIDER};
use super::wait::until;
use crate::client::{Api, Applied, Apply, Endpoint, Items, Status, Token, typed};
use crate::http_pool::Pool;
use crate::load::Plan;

/// Longest time for anything to come up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Everything that runs. Dropped, every process is killed.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// State of every process, logs.
    folder: PathBuf,
    network: Network,
    api: Api,
    api_address: SocketAddr,
    xds_address: SocketAddr,
    gateway: SocketAddr,
    control_plane: Option<Process>,
    members: BTreeMap<&'static str, Member>,
    started_in: Duration,
}

/// One instance, as far as it runs.
#[derive(Debug)]
struct Member {
    instance: Instance,
    /// Where the sidecar's outbound listener is, if it has one.
    outbound: Option<SocketAddr>,
    app: Option<Process>,
    sidecar: Option<Process>,
}

impl Mesh {
    /// Starts everything, its state in `folder` (which must exist), and waits until every sidecar is in sync and a
    /// request gets through.
    ///
    /// # Errors
    /// Naming what did not come up, with the last lines of its log.
    pub(crate) async fn start(folder: PathBuf, progress: &Progress) -> anyhow::Result<Self> {
        let start = Instant::now();
        let network = Network::claim()?;
        let (api_address, xds_address) = network.control_plane();
        let gateway_port = gateway_port()?;
        let api = Api::new(&format!("http://{api_address}")).map_err(|error| anyhow!(error))?;
        std::fs::create_dir_all(folder.join("logs"))?;
        let mut mesh = Self {
            folder,
            network,
            api,
            api_address,
            xds_address,
            gateway: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), gateway_port),
            control_plane: None,
            members: BTreeMap::new(),
            started_in: Duration::ZERO,
        };
        progress.show("starting the control plane");
        mesh.start_control_plane()?;
        for instance in INSTANCES {
            mesh.add_member(instance)?;
        }
        mesh.control_plane_ready().await?;
        progress.show("applying the demo's resources");
        mesh.apply_text(resources::MESH).await?;
        mesh.apply_text(&resources::gateway(gateway_port)).await?;
        for instance in INSTANCES {
            progress.show(&format!("starting {}", instance.name));
            mesh.write_token(&instance).await?;
            mesh.start_sidecar(instance.name)?;
        }
        progress.show("waiting for every sidecar to be in sync");
        mesh.in_sync(PATIENCE).await?;
        mesh.first_request().await?;
        mesh.started_in = start.elapsed();
        progress.clear();
        Ok(mesh)
    }

    /// How long the start took, from nothing to the first answered request.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The API of its control plane.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Its addresses.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Where requests come in.
    pub(crate) fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// GET requests for the shop through the gateway.
    pub(crate) fn plan(&self, rate: u32) -> Plan {
        let host = format!("{HOST}:{}", self.gateway.port());
        Plan::get(self.gateway, &host, "/orders", rate)
    }

    /// Names of the instances that have a sidecar running.
    pub(crate) fn sidecars(&self) -> Vec<&'static str> {
        let running = self.members.iter().filter(|(_, member)| member.sidecar.is_some());
        running.map(|(name, _)| *name).collect()
    }

    /// Instances that have both an application and a sidecar running.
    pub(crate) fn meshed(&self) -> impl Iterator<Item = &Instance> {
        self.members
            .values()
            .filter(|member| member.app.is_some() && member.sidecar.is_some())
            .map(|member| &member.instance)
    }

    /// An instance by name.
    pub(crate) fn instance(&self, name: &str) -> anyhow::Result<&Instance> {
        Ok(&self.member(name)?.instance)
    }

    /// Memory of every process, this one included, and how many they are.
    pub(crate) fn memory(&self) -> anyhow::Result<(Memory, usize)> {
        let processes = self
            .members
            .values()
            .flat_map(|member| [member.app.as_ref(), member.sidecar.as_ref()])
            .chain([self.control_plane.as_ref()])
            .flatten();
        let mut pids: Vec<u32> = processes.filter_map(Process::pid).collect();
        pids.push(std::process::id());
        let each = pids.iter().map(|pid| Memory::of(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((each.into_iter().sum(), pids.len()))
    }

    // The control plane.

    /// Starts the control plane on what its folder holds.
    pub(crate) fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let data = self.folder.join("control-plane");
        let arguments = arguments(&[
            "control-plane",
            "--data-dir",
            &data.display().to_string(),
            "--api",
            &self.api_address.to_string(),
            "--xds",
            &self.xds_address.to_string(),
        ]);
        self.control_plane = Some(Process::start("control-plane", &self.logs(), arguments)?);
        Ok(())
    }

    /// Waits until the control plane answers.
    pub(crate) async fn control_plane_ready(&mut self) -> anyhow::Result<()> {
        let Some(process) = &mut self.control_plane else { bail!("no control plane is running") };
        let api = &self.api;
        until("the control plane is ready", PATIENCE, async || {
            process.check()?;
            Ok(Some(api.get_text("/readyz").await?))
        })
        .await?;
        Ok(())
    }

    /// kill -9.
    pub(crate) async fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        match self.control_plane.take() {
            Some(process) => process.kill().await,
            None => bail!("no control plane is running"),
        }
    }

    /// Applies documents and waits until all sidecars concerned serve them.
    pub(crate) async fn apply(&self, documents: &[Value]) -> anyhow::Result<Applied> {
        self.apply_text(&resources::documents(documents)).await
    }

    /// The same without waiting.
    pub(crate) async fn apply_at_once(&self, documents: &[Value]) -> anyhow::Result<Applied> {
        let text = resources::documents(documents);
        Ok(typed("/v1/apply", self.api.apply(&text, Apply::default()).await?)?)
    }

    async fn apply_text(&self, text: &str) -> anyhow::Result<Applied> {
        let options = Apply { dry_run: false, wait: Some(Duration::from_secs(10)) };
        Ok(typed("/v1/apply", self.api.apply(text, options).await?)?)
    }

    /// What the control plane says of everything.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        Ok(self.api.get_as("/v1/status").await?)
    }

    /// Every endpoint of a service.
    pub(crate) async fn endpoints(&self, service: &str) -> anyhow::Result<Vec<Endpoint>> {
        let path = format!("/v1/endpoints?service={service}");
        Ok(self.api.get_as::<Items<Endpoint>>(&path).await?.items)
    }

    /// Waits until every running sidecar has the newest revision in effect and every application is an endpoint.
    pub(crate) async fn in_sync(&mut self, patience: Duration) -> anyhow::Result<Duration> {
        let mesh = self;
        let ((), took) = until("every sidecar is in sync", patience, async || {
            mesh.check_processes()?;
            match mesh.laggard().await? {
                None => Ok(Some(())),
                Some(laggard) => Err(anyhow!(laggard)),
            }
        })
        .await?;
        Ok(took)
    }

    fn check_processes(&mut self) -> Result<(), Ended> {
        for member in self.members.values_mut() {
            for process in [&mut member.app, &mut member.sidecar].into_iter().flatten() {
                process.check()?;
            }
        }
        self.control_plane.as_mut().map_or(Ok(()), Process::check)
    }

    /// The first thing that is not in sync, in words.
    pub(crate) async fn laggard(&self) -> anyhow::Result<Option<String>> {
        let status = self.status().await?;
        for name in self.sidecars() {
            let Some(sidecar) = status.sidecars.iter().find(|it| it.instance == name) else {
                return Ok(Some(format!("{name} is not connected{}", self.last_words_of(name))));
            };
            if !sidecar.in_sync() {
                let types: Vec<String> = sidecar
                    .types()
                    .iter()
                    .filter_map(|(name, state)| state.map(|state| (name, state)))
                    .filter(|(_, state)| state.state != "ok")
                    .map(|(name, state)| {
                        format!("{name} {} {}", state.state, state.reason.as_deref().unwrap_or(""))
                    })
                    .collect();
                let connected = if sidecar.connected { "connected" } else { "not connected" };
                return Ok(Some(format!("{name} is {connected}, {}", types.join(", "))));
            }
            if sidecar.revision != Some(status.revision) {
                return Ok(Some(format!(
                    "{name} serves revision {:?} of {}",
                    sidecar.revision, status.revision
                )));
            }
        }
        for (name, member) in &self.members {
            if member.sidecar.is_none() || member.app.is_none() {
                continue;
            }
            let endpoints = self.endpoints(member.instance.service).await?;
            if !endpoints.iter().any(|it| it.instance == *name && it.health == "healthy") {
                return Ok(Some(format!("{name} is no healthy endpoint")));
            }
        }
        Ok(None)
    }

    // Instances.

    /// Starts the application of an instance; its sidecar is started by itself.
    fn add_member(&mut self, instance: Instance) -> anyhow::Result<()> {
        let folder = self.folder.join(instance.name);
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
        let outbound = match instance.calls {
            Calls::Nobody => None,
            Calls::ByHost { .. } => {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                Some(SocketAddr::new(ip, free_port(ip)?))
            }
            Calls::Listener { port, .. } => Some(SocketAddr::new(instance.ip(&self.network), port)),
        };
        let name = instance.name;
        self.members.insert(name, Member { instance, outbound, app: None, sidecar: None });
        self.start_app(name)
    }

    /// Starts the application of an instance, if it has one.
    pub(crate) fn start_app(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name)?;
        let instance = &member.instance;
        let Some(listen) = instance.app_address(&self.network) else { return Ok(()) };
        let mut arguments = arguments(&[
            "demo-app",
            "--service",
            instance.service,
            "--instance",
            instance.name,
            "--version",
            instance.version,
            "--listen",
            &listen.to_string(),
        ]);
        let mut add = |name: &str, value: String| {
            arguments.extend([OsString::from(name), OsString::from(value)]);
        };
        if let Some(App::Grpc { .. }) = instance.app {
            add("--protocol", "grpc".to_owned());
            if let Some(switches) = instance.switches_address(&self.network) {
                add("--switches", switches.to_string());
            }
        }
        if let (
            Some(outbound),
            Calls::ByHost { service, port } | Calls::Listener { service, port },
        ) = (member.outbound, instance.calls)
        {
            add("--next", outbound.to_string());
            add("--next-host", format!("{service}:{port}"));
            if speaks_grpc(service) {
                add("--next-protocol", "grpc".to_owned());
            }
        }
        let process = Process::start(&format!("{name}-app"), &self.logs(), arguments)?;
        self.member_mut(name)?.app = Some(process);
        Ok(())
    }

    /// Starts the sidecar of an instance on what its folder holds.
    pub(crate) fn start_sidecar(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name)?;
        let instance = &member.instance;
        let folder = self.folder.join(name);
        let mut arguments = arguments(&[
            "sidecar",
            "--join-file",
            &folder.join("token").display().to_string(),
            "--data-dir",
            &folder.join("data").display().to_string(),
            "--service",
            instance.service,
            "--instance",
            instance.name,
            "--label",
            &format!("version={}", instance.version),
            "--advertise",
            &instance.ip(&self.network).to_string(),
            "--inbound-port",
            &INBOUND_PORT.to_string(),
            "--admin",
            &instance.admin_address(&self.network).to_string(),
            "--concurrency",
            "1",
        ]);
        let mut add = |name: &str, value: String| {
            arguments.extend([OsString::from(name), OsString::from(value)]);
        };
        match instance.app {
            Some(App::Http { port }) => add("--app-port", format!("{port}:http")),
            Some(App::Grpc { port }) => add("--app-port", format!("{port}:grpc")),
            None => {}
        }
        if instance.app.is_some() {
            add("--app-address", instance.ip(&self.network).to_string());
        }
        match (instance.calls, member.outbound) {
            (Calls::ByHost { .. }, Some(outbound)) => {
                add("--outbound-port", outbound.port().to_string());
            }
            (Calls::Listener { service, port }, Some(outbound)) => {
                add("--outbound-port", "0".to_owned());
                add("--outbound", format!("{service}:{port}={outbound}"));
            }
            _ => add("--outbound-port", "0".to_owned()),
        }
        let process = Process::start(&format!("{name}-sidecar"), &self.logs(), arguments)?;
        self.member_mut(name)?.sidecar = Some(process);
        Ok(())
    }

    /// Gets a token for the instance and leaves it where its sidecar looks.
    async fn write_token(&self, instance: &Instance) -> anyhow::Result<()> {
        let body = json!({ "service": instance.service, "ttl": "10m", "uses": 1 });
        let token: Token = typed("/v1/tokens", self.api.post("/v1/tokens", &body).await?)?;
        let path = self.folder.join(instance.name).join("token");
        let mut file = std::fs::File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        std::io::Write::write_all(&mut file, token.token.as_bytes())?;
        Ok(())
    }

    /// Lets one more instance join.
    pub(crate) async fn join(&mut self, instance: Instance) -> anyhow::Result<()> {
        let name = instance.name;
        self.add_member(instance.clone())?;
        self.write_token(&instance).await?;
        self.start_sidecar(name)?;
        self.in_sync(PATIENCE).await?;
        Ok(())
    }

    /// Starts an application that has no sidecar.
    pub(crate) fn add_outsider(&mut self) -> anyhow::Result<SocketAddr> {
        self.add_member(OUTSIDER)?;
        OUTSIDER.app_address(&self.network).context("the outsider has an application")
    }

    /// Ends all that runs of an instance, in order, and forgets it.
    pub(crate) async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        if let Some(member) = self.members.remove(name) {
            if let Some(sidecar) = member.sidecar {
                sidecar.terminate(END_PATIENCE).await?;
            }
            if let Some(app) = member.app {
                app.kill().await?;
            }
        }
        Ok(())
    }

    /// kill -9, application and sidecar at once.
    pub(crate) async fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.member_mut(name)?;
        let (app, sidecar) = (member.app.take(), member.sidecar.take());
        let kill = async |process: Option<Process>| match process {
            Some(process) => process.kill().await,
            None => Ok(()),
        };
        let (app, sidecar) = tokio::join!(kill(app), kill(sidecar));
        app.and(sidecar)
    }

    /// SIGTERM, its end awaited, and a new start on the same folder.
    pub(crate) async fn restart_sidecar(&mut self, name: &str) -> anyhow::Result<()> {
        match self.member_mut(name)?.sidecar.take() {
            Some(sidecar) => sidecar.terminate(END_PATIENCE).await?,
            None => bail!("{name} has no sidecar running"),
        }
        self.start_sidecar(name)
    }

    /// Brings back what an act that failed may have left undone: processes, switches, resources.
    ///
    /// # Errors
    /// When it is beyond repair.
    pub(crate) async fn restore(&mut self) -> anyhow::Result<()> {
        if self.control_plane.as_mut().is_none_or(|process| process.check().is_err()) {
            self.start_control_plane()?;
        }
        self.control_plane_ready().await?;
        for guest in [BATCH.name, OUTSIDER.name] {
            if let Some(member) = self.members.remove(guest) {
                // Dropped, its processes are killed.
                drop(member);
            }
        }
        for instance in INSTANCES {
            let member = self.member_mut(instance.name)?;
            let dead = |process: &mut Option<Process>| {
                process.as_mut().is_none_or(|process| process.check().is_err())
            };
            let (app, sidecar) = (dead(&mut member.app), dead(&mut member.sidecar));
            if app {
                self.start_app(instance.name)?;
            }
            if sidecar {
                self.start_sidecar(instance.name)?;
            }
            if instance.app.is_some() {
                let mesh = &*self;
                until("switches can be turned back", PATIENCE, async || {
                    mesh.switch(instance.name, "/fail?rate=0").await?;
                    mesh.switch(instance.name, "/delay?ms=0").await?;
                    Ok(Some(()))
                })
                .await?;
            }
        }
        let leftovers = [
            resources::deletion("Endpoint", OUTSIDER.name),
            resources::deletion("Route", "reports"),
            resources::deletion("Policy", "batch-may-call-api"),
        ];
        self.apply_text(&format!("{}{}", resources::MESH, resources::documents(&leftovers)))
            .await?;
        self.in_sync(PATIENCE).await?;
        Ok(())
    }

    /// Turns a switch of an instance's application, e.g. `/fail?rate=1`.
    pub(crate) async fn switch(&self, name: &str, switch: &str) -> anyhow::Result<()> {
        let address = self.member(name)?.instance.switches_address(&self.network);
        let address = address.with_context(|| format!("{name} has no application"))?;
        let response = get(address, switch, name).await?;
        if !response.status().is_success() {
            bail!("{name} {switch}: status {}", response.status());
        }
        Ok(())
    }

    /// One request through the listener that an instance has for a service.
    pub(crate) async fn call_from(
        &self,
        name: &str,
        path: &str,
    ) -> anyhow::Result<Response<Bytes>> {
        let member = self.member(name)?;
        let outbound = member.outbound.with_context(|| format!("{name} calls nobody"))?;
        get(outbound, path, "api:9000").await
    }

    /// A counter or gauge of a sidecar by its full name; `None` if there is no such.
    pub(crate) async fn stat(&self, name: &str, stat: &str) -> anyhow::Result<Option<u64>> {
        let address = self.member(name)?.instance.admin_address(&self.network);
        let response = get(address, "/stats", &address.to_string()).await?;
        if !response.status().is_success() {
            bail!("the admin interface of {name} answers {}", response.status());
        }
        let text = String::from_utf8_lossy(response.body());
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| *name == stat)
            .and_then(|(_, value)| value.trim().parse().ok()))
    }

    /// All that the sidecar of an instance has logged.
    pub(crate) fn sidecar_log(&self, name: &str) -> anyhow::Result<String> {
        let member = self.member(name)?;
        Ok(member.sidecar.as_ref().map(Process::printed).unwrap_or_default())
    }

    fn last_words_of(&self, name: &str) -> String {
        match self.members.get(name).and_then(|member| member.sidecar.as_ref()) {
            Some(sidecar) => format!("; its sidecar says:\n{}", sidecar.last_words()),
            None => String::new(),
        }
    }

    async fn first_request(&self) -> anyhow::Result<()> {
        let stats = async || {
            let stats = self.plan(100).requests(1).run().await;
            if stats.failed > 0 {
                bail!("{}", stats.causes_in_words());
            }
            Ok(Some(()))
        };
        until("a request gets through", PATIENCE, stats).await?;
        Ok(())
    }

    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        self.members.get(name).with_context(|| format!("there is no instance {name}"))
    }

    fn member_mut(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        self.members.get_mut(name).with_context(|| format!("there is no instance {name}"))
    }

    fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Ends everything in order: sidecars first, each with SIGTERM, then applications, then the control plane.
    ///
    /// # Errors
    /// When a process had to be killed, or ended with an error. None is left in any case.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut ending = tokio::task::JoinSet::new();
        let mut apps = Vec::new();
        for (_, member) in std::mem::take(&mut self.members) {
            if let Some(sidecar) = member.sidecar {
                ending.spawn(sidecar.terminate(END_PATIENCE));
            }
            apps.extend(member.app);
        }
        let mut outcome = Ok(());
        while let Some(ended) = ending.join_next().await {
            outcome = outcome.and(ended?);
        }
        for app in apps {
            outcome = outcome.and(app.kill().await);
        }
        if let Some(control_plane) = self.control_plane.take() {
            outcome = outcome.and(control_plane.terminate(END_PATIENCE).await);
        }
        outcome
    }
}

fn speaks_grpc(service: &str) -> bool {
    INSTANCES.iter().any(|it| it.service == service && matches!(it.app, Some(App::Grpc { .. })))
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Copies every log of the demo in `folder` to another, which is made if need be.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn copy_logs(folder: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(folder.join("logs"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// One plain GET.
pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
    host: &str,
) -> anyhow::Result<Response<Bytes>> {
    let request = Request::get(path).header("host", host).body(Full::default())?;
    Ok(Pool::new(address, Duration::from_secs(10)).send(request).await?)
}
