//! CPU per request and resident memory of our sidecar beside real Envoy 1.40, in one run on one machine.
//!
//! ```text
//! cargo build --release
//! cargo bench -p outrigger-integration --bench side_by_side -- --seconds 4 --rounds 3 --restarts 3
//! ```
//!
//! What is measured: (user + system time of the proxy's processes) / requests, from `/proc/PID/stat` before and after a
//! closed-loop `wrk` of 64 connections. Peers run in turn, in fresh processes several times, because luck of one
//! process's memory layout moves a figure by a tenth; the median of all rounds is quoted. The proxies share one core,
//! load and upstream (nginx, answering 12 bytes from memory) the other. A round with an answer that is not 2xx, or a
//! socket error, is an error. Both peers get the same bootstrap, with what a sidecar has on by default: stats, request
//! ids, least request, outlier detection, circuit breakers, a timeout.
//!
//! Scenarios: `http1`, one proxy with HTTP/1 on both sides; `pair`, two of them with HTTP/2 over mutual TLS between.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;
use outrigger_integration::peers::{apt_install, peers, target};
use outrigger_integration::pki::Authority;
use outrigger_integration::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

const CONNECTIONS: &str = "64";
const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";

fn main() -> Result<()> {
    let options = Options::from_arguments()?;
    install_tools()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

struct Options {
    seconds: u64,
    rounds: usize,
    restarts: usize,
    scenarios: Vec<String>,
    binary: PathBuf,
    output: PathBuf,
}

impl Options {
    fn from_arguments() -> Result<Options> {
        let mut options = Options {
            seconds: 4,
            rounds: 3,
            restarts: 3,
            scenarios: vec!["http1".to_owned(), "pair".to_owned()],
            binary: target().join("release/outrigger"),
            output: target().join("side_by_side.json"),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            // Cargo says so to every benchmark.
            if name == "--bench" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--seconds" => options.seconds = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
                "--restarts" => options.restarts = value.parse()?,
                "--scenario" => options.scenarios = vec![value],
                "--binary" => options.binary = PathBuf::from(value),
                "--output" => options.output = PathBuf::from(value),
                _ => bail!(
                    "{name}: known are --seconds --rounds --restarts --scenario --binary --output"
                ),
            }
        }
        ensure!(
            options.binary.exists(),
            "{} is missing: cargo build --release, or --binary FILE",
            options.binary.display()
        );
        Ok(options)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Envoy,
    Outrigger,
}

const PEERS: [Peer; 2] = [Peer::Envoy, Peer::Outrigger];

/// What one round told, in microseconds per request and KiB, over all processes of a peer.
#[derive(Debug, Clone, Copy)]
struct Round {
    user: f64,
    system: f64,
    resident: f64,
    requests_per_second: f64,
}

async fn measure(options: &Options) -> Result<()> {
    let upstream = Nginx::start()?;
    let mut report = Vec::new();
    for scenario in &options.scenarios {
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        let mut idle: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for restart in 0..options.restarts {
            let mut running = Vec::new();
            for peer in PEERS {
                running.push(Running::start(scenario, peer, options, upstream.address).await?);
            }
            for (index, proxies) in running.iter().enumerate() {
                idle[index].push(proxies.resident()?);
                // Connections and memory are warm before anything counts.
                proxies.load(1)?;
            }
            for round in 0..options.rounds {
                for (index, proxies) in running.iter().enumerate() {
                    let seen = proxies.round(options.seconds)?;
                    println!(
                        "{scenario} {:?} start {restart} round {round}: {:.2} us user + {:.2} us system per request, {:.0} req/s, {:.1} MB",
                        PEERS[index],
                        seen.user,
                        seen.system,
                        seen.requests_per_second,
                        seen.resident / 1024.0,
                    );
                    rounds[index].push(seen);
                }
            }
        }
        report.push(summary(scenario, &rounds, &idle));
    }
    println!("\n{}", table(&report));
    let envoy = peers().context("peers")?;
    let version = Command::new(&envoy.envoy).arg("--version").output()?;
    let whole = json!({
        "envoy": String::from_utf8_lossy(&version.stdout).trim(),
        "connections": CONNECTIONS, "seconds": options.seconds, "rounds": options.rounds,
        "restarts": options.restarts, "scenarios": report,
    });
    fs::write(&options.output, serde_json::to_string_pretty(&whole)?)?;
    println!("written to {}", options.output.display());
    Ok(())
}

fn summary(scenario: &str, rounds: &[Vec<Round>; 2], idle: &[Vec<f64>; 2]) -> Value {
    let of =
        |index: usize, value: fn(&Round) -> f64| median(rounds[index].iter().map(value).collect());
    let side = |index: usize| {
        json!({
            "cpu_us": of(index, |round| round.user + round.system),
            "user_us": of(index, |round| round.user),
            "system_us": of(index, |round| round.system),
            "resident_kib": of(index, |round| round.resident),
            "idle_resident_kib": median(idle[index].clone()),
            "requests_per_second": of(index, |round| round.requests_per_second),
        })
    };
    let (envoy, ours) = (side(0), side(1));
    let ratio = |field: &str| {
        let (ours, envoy) = (ours[field].as_f64(), envoy[field].as_f64());
        ours.zip(envoy).map(|(ours, envoy)| ours / envoy)
    };
    let ratios = json!({
        "cpu": ratio("cpu_us"), "user": ratio("user_us"), "resident": ratio("resident_kib"),
        "idle_resident": ratio("idle_resident_kib"),
    });
    json!({"scenario": scenario, "envoy": envoy, "outrigger": ours, "ratio": ratios})
}

fn table(report: &[Value]) -> String {
    let mut text = String::from(
        "scenario  peer        CPU us/req   user  system  MB loaded  MB idle   ratio to Envoy: CPU  user  MB loaded\n",
    );
    for scenario in report {
        for peer in ["envoy", "outrigger"] {
            let side = &scenario[peer];
            let number = |field: &str| side[field].as_f64().unwrap_or(f64::NAN);
            let ratio = |field: &str| {
                let own = peer == "outrigger";
                if own { scenario["ratio"][field].as_f64().unwrap_or(f64::NAN) } else { 1.0 }
            };
            let _ = writeln!(
                text,
                "{:<9} {peer:<10} {:>11.2} {:>6.2} {:>7.2} {:>10.1} {:>8.1} {:>21.2} {:>5.2} {:>10.2}",
                scenario["scenario"].as_str().unwrap_or_default(),
                number("cpu_us"),
                number("user_us"),
                number("system_us"),
                number("resident_kib") / 1024.0,
                number("idle_resident_kib") / 1024.0,
                ratio("cpu"),
                ratio("user"),
                ratio("resident"),
            );
        }
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The processes of one peer in one scenario.
struct Running {
    entry: SocketAddr,
    processes: Vec<Process>,
    _folder: TempDir,
}

impl Running {
    async fn start(
        scenario: &str,
        peer: Peer,
        options: &Options,
        upstream: SocketAddr,
    ) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("bench")?;
        authority.write(folder.path(), "ca")?;
        authority.leaf(&["spiffe://bench/proxy"])?.write(folder.path(), "leaf")?;
        let (entry, middle) = (address::free()?, address::free()?);
        let mut values = Values::new();
        values.text("DIR", &folder.path().display().to_string());
        values.address("ENTRY", entry);
        values.address("MIDDLE", middle);
        values.address("UPSTREAM", upstream);
        let parts: Vec<String> = match scenario {
            "http1" => vec![proxy("ENTRY", "", "UPSTREAM", "")],
            "pair" => vec![
                proxy("ENTRY", "", "MIDDLE", TO_TLS),
                proxy("MIDDLE", FROM_TLS, "UPSTREAM", ""),
            ],
            _ => bail!("{scenario}: known are http1 and pair"),
        };
        let mut processes = Vec::new();
        // The far end first: what is in front of it may connect at once.
        for (index, text) in parts.iter().enumerate().rev() {
            let file = folder.path().join(format!("{index}.yaml"));
            fs::write(&file, values.fill(text))?;
            processes.push(launch(peer, &file, options)?);
        }
        let running = Running { entry, processes, _folder: folder };
        running.ready().await?;
        Ok(running)
    }

    async fn ready(&self) -> Result<()> {
        for _ in 0..500 {
            let outcome = Request::get("/").send(self.entry).await;
            if outcome.status() == 200 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let logs: Vec<String> = self.processes.iter().map(Process::tail).collect();
        bail!("no answer through the proxy:\n{}", logs.join("\n"));
    }

    fn round(&self, seconds: u64) -> Result<Round> {
        let before = self.cpu()?;
        let requests = self.load(seconds)?;
        let after = self.cpu()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let per_request = |ticks_used: u64| ticks_used as f64 / ticks * 1e6 / requests;
        Ok(Round {
            user: per_request(after.0 - before.0),
            system: per_request(after.1 - before.1),
            resident: self.resident()?,
            requests_per_second: requests / seconds as f64,
        })
    }

    /// Runs the load; returns how many requests were answered, all of them by 2xx.
    fn load(&self, seconds: u64) -> Result<f64> {
        let output = Command::new("taskset")
            .args(["-c", LOAD_CORE, "wrk", "-t", "1", "-c", CONNECTIONS])
            .args(["-d", &format!("{seconds}s"), &format!("http://{}/", self.entry)])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {text}");
        ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "failures:\n{text}");
        let line = text.lines().find(|line| line.contains("requests in")).context("wrk's count")?;
        let count = line.split_whitespace().next().context("wrk's count")?;
        Ok(count.parse()?)
    }

    /// User and system time of all processes, in clock ticks.
    fn cpu(&self) -> Result<(u64, u64)> {
        let mut total = (0, 0);
        for process in &self.processes {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
            // The name, in parentheses, may hold spaces; fields are counted behind it.
            let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let number = |index: usize| -> Result<u64> {
                Ok(fields.get(index).context("/proc/PID/stat")?.parse()?)
            };
            total.0 += number(11)?;
            total.1 += number(12)?;
        }
        Ok(total)
    }

    /// Resident memory of all processes, in KiB.
    fn resident(&self) -> Result<f64> {
        let mut total = 0.0;
        for process in &self.processes {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
            total += line.split_whitespace().nth(1).context("VmRSS")?.parse::<f64>()?;
        }
        Ok(total)
    }
}

fn launch(peer: Peer, file: &Path, options: &Options) -> Result<Process> {
    let mut command = Command::new("taskset");
    command.args(["-c", PROXY_CORE]);
    match peer {
        Peer::Envoy => {
            command.arg(&peers().context("Envoy is not installed")?.envoy);
            command.arg("--disable-hot-restart");
        }
        Peer::Outrigger => {
            command.arg(&options.binary).arg("sidecar");
        }
    }
    command.arg("-c").arg(file).args(["--concurrency", "1", "--log-level", "error"]);
    Process::spawn(&format!("{peer:?}"), command)
}

/// The upstream.
struct Nginx {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Nginx {
    fn start() -> Result<Nginx> {
        let folder = tempfile::tempdir()?;
        let address = address::free()?;
        let place = folder.path().display();
        let text = format!(
            "daemon off; worker_processes 1; pid {place}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;
  uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
  server {{ listen {address}; location / {{ default_type text/plain; return 200 'hello world\\n'; }} }}
}}
"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = Command::new("taskset");
        command.args(["-c", LOAD_CORE, "nginx", "-c"]).arg(&file);
        let process = Process::spawn("nginx", command)?;
        Ok(Nginx { address, _process: process, _folder: folder })
    }
}

fn install_tools() -> Result<()> {
    let missing = |program: &str| Command::new(program).arg("-v").output().is_err();
    if missing("wrk") || missing("nginx") {
        println!("installing wrk and nginx ...");
        apt_install(&["wrk", "nginx-light"])?;
    }
    Ok(())
}

const FROM_TLS: &str = "
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: ${DIR}/leaf.crt}, private_key: {filename: ${DIR}/leaf.key}}]
            validation_context: {trusted_ca: {filename: ${DIR}/ca.crt}}
";

const TO_TLS: &str = "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: proxy
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates: [{certificate_chain: {filename: ${DIR}/leaf.crt}, private_key: {filename: ${DIR}/leaf.key}}]
          validation_context:
            trusted_ca: {filename: ${DIR}/ca.crt}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://bench/proxy'}}]
";

/// One proxy's bootstrap: from `${listen}` to `${upstream}`.
fn proxy(listen: &str, from: &str, upstream: &str, to: &str) -> String {
    format!(
        "node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
  - name: in
    address: ${{{listen}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{prefix: /}}
                route:
                  cluster: out
                  timeout: 15s
                  retry_policy: {{retry_on: 'connect-failure,refused-stream,unavailable', num_retries: 2}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
{from}
  clusters:
  - name: out
    type: STATIC
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 1024, max_pending_requests: 1024, max_requests: 1024, max_retries: 3}}]}}
    outlier_detection: {{consecutive_5xx: 5, interval: 10s, base_ejection_time: 30s}}
    load_assignment:
      cluster_name: out
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: ${{{upstream}}}}}}}]}}]
{to}
"
    )
}
