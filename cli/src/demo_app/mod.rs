//! `outrigger demo-app`: the application of the demo's services, as small as it can be.
//!
//! - [`switches`]: what can be changed while it runs: failing, delaying, its version.
//! - [`next_hop`]: the service it calls, over HTTP or gRPC, always through its own sidecar.
//! - [`http`]: the HTTP server of `web` and `api`.
//! - [`grpc`]: the gRPC server of `ledger`, with the switches on a second, plain HTTP port.

mod grpc;
mod http;
mod next_hop;
mod switches;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};

use self::next_hop::NextHop;
use self::switches::Switches;

/// Arguments of the hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct DemoAppArgs {
    /// Service this application is an instance of
    #[arg(long)]
    service: String,
    /// Name of this instance. Default: the name of this host
    #[arg(long)]
    instance: Option<String>,
    /// Version it answers with until switched
    #[arg(long, default_value = "v1")]
    version: String,
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// What is spoken on the listening address
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    protocol: Protocol,
    /// With --protocol grpc: address of the HTTP server for the switches
    #[arg(long)]
    switches: Option<SocketAddr>,
    /// Address of the next hop (a listener of the own sidecar), `HOST:PORT`
    #[arg(long)]
    next: Option<String>,
    /// Authority to call the next hop by
    #[arg(long, default_value = "next")]
    next_host: String,
    /// What the next hop speaks
    #[arg(long, value_enum, default_value_t = Protocol::Http)]
    next_protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Http,
    Grpc,
}

/// What every request needs: who we are, the switches, whom to call.
#[derive(Debug)]
struct App {
    service: String,
    instance: String,
    switches: Switches,
    next: Option<NextHop>,
}

/// Serves until killed.
///
/// # Errors
/// When an address cannot be listened on.
pub(crate) async fn run(args: DemoAppArgs) -> anyhow::Result<()> {
    let next = match &args.next {
        Some(next) => Some(resolve(next).await?),
        None => None,
    };
    let next = match (next, args.next_protocol) {
        (None, _) => None,
        (Some(address), Protocol::Http) => Some(NextHop::http(address, args.next_host)),
        (Some(address), Protocol::Grpc) => Some(NextHop::grpc(address, &args.next_host)?),
    };
    let app = Arc::new(App {
        service: args.service,
        instance: args.instance.unwrap_or_else(host_name),
        switches: Switches::new(args.version),
        next,
    });
    match args.protocol {
        Protocol::Http => http::serve(bind(args.listen).await?, app).await,
        Protocol::Grpc => {
            if let Some(address) = args.switches {
                tokio::spawn(http::serve(bind(address).await?, app.clone()));
            }
            grpc::serve(bind(args.listen).await?, app).await
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

/// The first address of a name. Names lead to the sidecar for as long as the application lives.
async fn resolve(name: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = tokio::net::lookup_host(name).await.with_context(|| name.to_owned())?;
    addresses.next().with_context(|| format!("{name} has no address"))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
