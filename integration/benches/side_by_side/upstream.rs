//! What all proxies stand in front of: nginx, answering from memory, on the load's core. gRPC has one of its own.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Result, bail};
use outrigger_integration::address;
use outrigger_integration::bootstrap::Values;
use outrigger_integration::client::Request;
use outrigger_integration::pki::Authority;
use outrigger_integration::process::Process;
use tempfile::TempDir;

use crate::grpc_echo::GrpcEcho;
use crate::machine;

/// The answer at `/`.
pub(crate) const SMALL: &str = "hello world\n";
/// Length of the answer at [`LARGE_PATH`].
pub(crate) const LARGE: usize = 64 * 1024;
/// Where the large answer is.
pub(crate) const LARGE_PATH: &str = "/large";
/// Where a gRPC call is answered, with its own message.
pub(crate) const GRPC_PATH: &str = "/bench.Echo/Say";
/// A gRPC message of 12 bytes, in its frame.
pub(crate) const GRPC: &[u8; 17] = b"\0\0\0\0\x0c\x0a\x0ahello you!";

/// The upstream, and the certificates of a measurement.
pub(crate) struct Upstream {
    http: SocketAddr,
    http2: SocketAddr,
    tls: SocketAddr,
    grpc: GrpcEcho,
    authority: Authority,
    process: Process,
    _folder: TempDir,
}

impl Upstream {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start() -> Result<Upstream> {
        let folder = tempfile::tempdir()?;
        // nginx gives up its rights, and must still be able to read.
        make_readable(&folder)?;
        let (http, http2, tls) = (address::free()?, address::free()?, address::free()?);
        let authority = Authority::new("bench")?;
        authority.leaf(&["localhost"])?.write(folder.path(), "server")?;
        let place = folder.path().display();
        // A string of the configuration holds at most 4 KiB, a variable as many as are put after each other.
        let kibibyte = "0123456789abcdef".repeat(64);
        let large = "$k".repeat(LARGE / 1024);
        let locations = format!(
            "location = {LARGE_PATH} {{ default_type text/plain; set $k '{kibibyte}'; return 200 \"{large}\"; }}
    location / {{ default_type text/plain; return 200 '{}'; }}",
            SMALL.escape_default()
        );
        let text = format!(
            "daemon off; master_process off; pid {place}/pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;
  uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
  server {{ listen {http} backlog=4096; {locations} }}
  server {{
    listen {http2} http2 backlog=4096; {locations} }}
  server {{
    listen {tls} ssl backlog=4096; ssl_certificate {place}/server.crt; ssl_certificate_key {place}/server.key;
    {locations}
  }}
}}
"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = machine::pinned(&machine::load_core());
        command.args(["nginx", "-c"]).arg(&file);
        let process = Process::spawn("upstream", command)?;
        let grpc = GrpcEcho::start()?;
        let upstream = Upstream { http, http2, tls, grpc, authority, process, _folder: folder };
        for _ in 0..500 {
            if Request::get("/").send(http).await.status() == 200 {
                return Ok(upstream);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bail!("the upstream does not answer:\n{}", upstream.process.tail());
    }

    /// Its addresses, for a configuration.
    pub(crate) fn fill(&self, values: &mut Values) {
        values.address("UPSTREAM", self.http);
        values.address("UPSTREAM_HTTP2", self.http2);
        values.address("UPSTREAM_TLS", self.tls);
        values.address("UPSTREAM_GRPC", self.grpc.address());
    }

    /// Its address of HTTP/1.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Who signs the certificates of proxies and upstream.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// A temporary folder that other users may read.
fn make_readable(folder: &TempDir) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?)
}
