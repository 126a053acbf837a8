//! Arguments of the sidecar: Envoy's names where Envoy has the flag, and what a mesh member needs besides.
//!
//! [`Args`] is embedded by the `outrigger` binary; [`main`] is all that the thin binary of this package calls.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, ValueEnum};

/// The data plane: from an Envoy bootstrap (`-c`), or as a member of an Outrigger mesh (`--join`).
#[derive(Debug, Clone, Parser)]
#[command(name = "outrigger-sidecar", version, about)]
pub struct Args {
    /// Bootstrap file, YAML or JSON, in Envoy's shape
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,

    /// Bootstrap as YAML or JSON text, merged over the file
    #[arg(long, value_name = "TEXT")]
    pub config_yaml: Option<String>,

    /// `validate` reads the configuration, prints every problem with its field path, and exits
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,

    /// Worker threads. Default: the cores available to this process, cgroup limits included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,

    /// Node id, instead of the bootstrap's `node.id`
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,

    /// Node cluster, instead of the bootstrap's `node.cluster`
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,

    /// Zone, instead of the bootstrap's `node.locality.zone`
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,

    /// Least severe level that is logged
    #[arg(short = 'l', long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Seconds a drain may take. Default: 600 for listeners that an update replaces, as in Envoy; 30 for the whole
    /// process after SIGTERM
    #[arg(long, value_name = "SECONDS")]
    pub drain_time_s: Option<u64>,

    /// `gradual` asks a growing share of connections to close over the drain time, `immediate` asks all at once
    #[arg(long, value_enum, default_value_t = DrainStrategy::Gradual)]
    pub drain_strategy: DrainStrategy,

    /// The bound address of the admin interface is written to this file
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,

    /// Accepted for compatibility: there is no shared memory that needs an id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub base_id: u32,

    /// Accepted for compatibility: shown by the admin interface
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub restart_epoch: u32,

    /// Accepted for compatibility: there is no parent process to shut down
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub parent_shutdown_time_s: u64,

    /// Accepted for compatibility: there is no hot restart to disable
    #[arg(long)]
    pub disable_hot_restart: bool,

    /// Do not refuse keys in the bootstrap that its messages do not have
    #[arg(long)]
    pub allow_unknown_static_fields: bool,

    /// Refuse discovered resources with fields that this version does not know, at the price of some 20 MB for descriptors
    #[arg(long)]
    pub reject_unknown_dynamic_fields: bool,

    /// Join a mesh with this token
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["config_path", "config_yaml", "join_file"])]
    pub join: Option<String>,

    /// Join a mesh with the token in this file. Without either, the token is taken from OUTRIGGER_JOIN
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config_path", "config_yaml"])]
    pub join_file: Option<PathBuf>,

    /// Seconds to wait for the file with the token to be there and for the control plane to answer, when joining: who
    /// starts together with its control plane may be first. 0: none
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Mesh")]
    pub join_wait_s: u64,

    /// Service this sidecar belongs to. Default: what the join token says
    #[arg(long, value_name = "NAME", help_heading = "Mesh")]
    pub service: Option<String>,

    /// Name of this instance, unique within its service. Default: from the host name
    #[arg(long, value_name = "NAME", help_heading = "Mesh")]
    pub instance: Option<String>,

    /// Port of the application, `P` or `P:PROTOCOL` (http, http2, grpc, tcp, tls); repeatable
    #[arg(long = "app-port", value_name = "P[:PROTOCOL]", help_heading = "Mesh")]
    pub app_ports: Vec<AppPort>,

    /// Address at which the application listens, for all of its ports
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", help_heading = "Mesh")]
    pub app_address: IpAddr,

    /// Label of this instance, `KEY=VALUE`; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", help_heading = "Mesh")]
    pub labels: Vec<Label>,

    /// Address at which other sidecars reach this one. Default: the local address towards the control plane
    #[arg(long, value_name = "IP", help_heading = "Mesh")]
    pub advertise: Option<IpAddr>,

    /// Port of the inbound listener
    #[arg(long, value_name = "PORT", default_value_t = 15006, help_heading = "Mesh")]
    pub inbound_port: u16,

    /// Port of the outbound listener on loopback; 0: none
    #[arg(long, value_name = "PORT", default_value_t = 15001, help_heading = "Mesh")]
    pub outbound_port: u16,

    /// A local listener for one service, `NAME:PORT=LISTEN` with LISTEN = `IP:PORT`; repeatable
    #[arg(long = "outbound", value_name = "NAME:PORT=LISTEN", help_heading = "Mesh")]
    pub outbounds: Vec<Outbound>,

    /// Address of the admin interface
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15000", help_heading = "Mesh")]
    pub admin: SocketAddr,

    /// Folder of the identity, and of the last good discovered configuration (`xds/`). A start that finds no control
    /// plane serves from it until there is one, with `--config-path` as well; the secrets in it are for their owner only
    #[arg(long, value_name = "DIR", help_heading = "Mesh")]
    pub data_dir: Option<PathBuf>,

    /// Region of this instance
    #[arg(long, value_name = "NAME", default_value = "", help_heading = "Mesh")]
    pub region: String,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve.
    Serve,
    /// Check it and exit: 0 if it is good, 1 if not.
    Validate,
}

/// Envoy's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    Error,
    /// The same as `error`: nothing here is more severe.
    Critical,
    Off,
}

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Envoy's drain strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// The share of responses that close their connection grows over the drain time.
    Gradual,
    /// Every response closes its connection.
    Immediate,
}

/// `P[:PROTOCOL]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPort {
    /// Port of the service, at which the application listens (at [`Args::app_address`]).
    pub port: u16,
    /// http, http2, grpc, tcp or tls; `None`: what the Service says.
    pub protocol: Option<Box<str>>,
}

impl FromStr for AppPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = match text.split_once(':') {
            Some((port, protocol)) => (port, Some(protocol)),
            None => (text, None),
        };
        if let Some(protocol) = protocol
            && !["http", "http2", "grpc", "tcp", "tls"].contains(&protocol)
        {
            return Err(format!("unknown protocol {protocol:?}: http, http2, grpc, tcp or tls"));
        }
        Ok(Self { port: parse_port(port)?, protocol: protocol.map(Into::into) })
    }
}

/// `KEY=VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Left of the first `=`.
    pub key: String,
    /// Right of it.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("expected KEY=VALUE".to_owned()),
        }
    }
}

/// `NAME:PORT=LISTEN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// Where the local listener is bound.
    pub listen: SocketAddr,
}

impl FromStr for Outbound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "expected NAME:PORT=IP:PORT";
        let (target, listen) = text.split_once('=').ok_or(SHAPE)?;
        let (service, port) = target.rsplit_once(':').ok_or(SHAPE)?;
        if service.is_empty() {
            return Err(SHAPE.to_owned());
        }
        let listen = listen
            .parse()
            .map_err(|_| format!("{listen:?} is not an address to listen at, IP:PORT"))?;
        Ok(Self { service: service.to_owned(), port: parse_port(port)?, listen })
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// Runs the sidecar until it is told to stop.
///
/// Exit codes: 0 after a drain or a valid `--mode validate`, 1 for anything that kept it from serving, 2 for arguments
/// that contradict each other.
pub fn main(args: Args) -> ExitCode {
    crate::server::run(args)
}

/// Parses the arguments of this process and runs the sidecar.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Args::try_parse_from(arguments) {
        Ok(args) => main(args),
        Err(error) => {
            // Help and version are "errors" that go to standard output with exit code 0.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("sidecar").chain(arguments.iter().copied()))
    }

    #[test]
    fn envoys_flags_are_understood_as_envoy_writes_them() {
        let args = parse(&[
            "-c",
            "envoy.yaml",
            "--service-node",
            "n1",
            "--service-cluster",
            "c1",
            "-l",
            "warn",
            "--drain-time-s",
            "5",
            "--drain-strategy",
            "immediate",
            "--base-id",
            "7",
            "--restart-epoch",
            "0",
            "--parent-shutdown-time-s",
            "10",
            "--concurrency",
            "2",
        ])
        .unwrap();
        assert_eq!(args.log_level, LogLevel::Warning);
        assert_eq!(args.drain_strategy, DrainStrategy::Immediate);
        assert_eq!(args.concurrency, Some(2));
        assert_eq!(args.drain_time_s, Some(5));
    }

    #[test]
    fn an_outbound_listener_names_service_port_and_address() {
        let outbound: Outbound = "api:9000=127.0.0.1:7001".parse().unwrap();
        assert_eq!(outbound.service, "api");
        assert_eq!(outbound.port, 9000);
        assert_eq!(outbound.listen, "127.0.0.1:7001".parse().unwrap());
        for wrong in
            ["api=127.0.0.1:7001", "api:9000", "api:0=127.0.0.1:1", ":1=127.0.0.1:1", "api:1=x"]
        {
            assert!(wrong.parse::<Outbound>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_app_port_may_name_its_protocol() {
        assert_eq!(
            "8080:grpc".parse::<AppPort>().unwrap(),
            AppPort { port: 8080, protocol: Some("grpc".into()) }
        );
        assert_eq!("8080".parse::<AppPort>().unwrap().protocol, None);
        assert!("8080:quic".parse::<AppPort>().is_err());
        assert!("70000".parse::<AppPort>().is_err());
    }

    #[test]
    fn a_token_and_a_bootstrap_exclude_each_other() {
        assert!(parse(&["-c", "x.yaml", "--join", "orj1.x"]).is_err());
        assert!(parse(&["--join", "orj1.x", "--join-file", "f"]).is_err());
    }
}
