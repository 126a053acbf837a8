//! Arguments of the control plane.
//!
//! [`Args`] is embedded by the `outrigger` binary; [`main`] is all that the thin binary of this package calls.

use crate::logging;
use crate::model::read::check_name;
use crate::server::{self, Settings};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// The control plane: takes what is wanted of the mesh, and serves it to sidecars as xDS.
#[derive(Debug, Clone, Parser)]
#[command(name = "outrigger-control-plane", version, about)]
pub struct Args {
    /// Folder of the store and of the certificate authority; made if it is not there, readable by its owner only
    #[arg(long, value_name = "DIR", default_value = "./outrigger-data")]
    pub data_dir: PathBuf,

    /// Address of the mesh API. Without --api-tokens it asks nobody who he is: keep it on loopback then
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700", value_parser = address)]
    pub api: String,

    /// Address of discovery and identity, for sidecars, with mTLS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7701", value_parser = address)]
    pub xds: String,

    /// Address of plaintext discovery for foreign clients such as Envoy or gRPC, in development
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub xds_insecure: Option<String>,

    /// Address at which sidecars reach discovery; join tokens carry it. Default: the one of --xds, or, if that is any
    /// address, the one of this host's default route
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub advertise: Option<String>,

    /// Folder of resource files that are the configuration of the mesh; they are watched, and the API is read-only
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Resources, as YAML documents, that are made at the start if there is no object with their kind and name. What is
    /// there already stays as it is
    #[arg(long, value_name = "YAML", conflicts_with = "config_dir")]
    pub seed: Option<String>,

    /// Keep a join token for a service in a file, `SERVICE=FILE`: written at the start, and again in time; repeatable.
    /// Whoever can read the file can join as that service
    #[arg(long = "issue-token", value_name = "SERVICE=FILE")]
    pub issue_tokens: Vec<TokenFile>,

    /// File with the bearer tokens of the API: `tokens: [{name: ci, role: viewer|editor|admin, token: ...}]`, readable by
    /// its owner only
    #[arg(long, value_name = "FILE")]
    pub api_tokens: Option<PathBuf>,

    /// Where the mesh is kept: `embedded`, in a file in the data folder
    #[arg(long, value_name = "STORE", default_value = "embedded", value_parser = store)]
    pub store: String,

    /// Least severe level that is logged
    #[arg(short = 'l', long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// How log lines are written, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Log levels, with Envoy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the names say it
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    Error,
    Off,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `SERVICE=FILE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// The service whose identity the token gives.
    pub service: String,
    /// Where it is written.
    pub file: PathBuf,
}

impl FromStr for TokenFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((service, file)) if !file.is_empty() => {
                check_name(service)?;
                Ok(Self { service: service.to_owned(), file: file.into() })
            }
            _ => Err("expected SERVICE=FILE".to_owned()),
        }
    }
}

/// `HOST:PORT`; the host is resolved when it is needed.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT".to_owned()),
    }
}

fn store(text: &str) -> Result<String, String> {
    match text {
        "embedded" => Ok(text.to_owned()),
        _ if text.starts_with("etcd://") => {
            Err("etcd is not supported by this version: the one store is `embedded`".to_owned())
        }
        _ => Err("the one store is `embedded`".to_owned()),
    }
}

/// Runs the control plane until SIGTERM or SIGINT.
///
/// Exit codes: 0 after an orderly stop, 1 for anything that kept it from serving.
pub fn main(args: Args) -> ExitCode {
    logging::init(args.log_level, args.log_format);
    let Args { data_dir, api, xds, xds_insecure, advertise, config_dir, api_tokens, .. } = args;
    let Args { seed, issue_tokens, .. } = args;
    server::run(Settings {
        data_dir,
        api,
        xds,
        xds_insecure,
        advertise,
        config_dir,
        api_tokens,
        seed,
        issue_tokens,
    })
}

/// Parses the arguments of this process and runs the control plane.
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
        Args::try_parse_from(std::iter::once("control-plane").chain(arguments.iter().copied()))
    }

    #[test]
    fn defaults_are_those_of_the_interface() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.data_dir, PathBuf::from("./outrigger-data"));
        assert_eq!((args.api.as_str(), args.xds.as_str()), ("127.0.0.1:7700", "127.0.0.1:7701"));
        assert_eq!((args.xds_insecure, args.config_dir), (None, None));
    }

    #[test]
    fn what_is_no_address_or_store_is_a_usage_error() {
        for wrong in [
            ["--api", "7700"],
            ["--api", ":7700"],
            ["--xds", "localhost:99999"],
            ["--store", "etcd://a:1"],
            ["--log-level", "loud"],
            ["--issue-token", "api"],
            ["--issue-token", "Api=/token"],
        ] {
            assert_eq!(parse(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert!(parse(&["--api", "[::1]:0", "--xds", "localhost:0", "-l", "warn"]).is_ok());
    }
}
