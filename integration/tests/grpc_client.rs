//! grpcio as a proxyless client of our control plane (`xds:///api`): its calls succeed and follow the endpoints.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use outrigger_integration::control_plane::ControlPlane;
use outrigger_integration::peers::{fixture, peers};
use outrigger_integration::process::Process;
use outrigger_integration::upstream::{Reply, Upstream};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_by_service_name_follow_the_endpoints() -> Result<()> {
    follows("xds:///api").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_by_name_and_port_follow_the_endpoints() -> Result<()> {
    follows("xds:///api:9000").await
}

async fn follows(target: &str) -> Result<()> {
    let Some(peers) = peers() else { return Ok(()) };
    let control_plane = ControlPlane::start().await?;
    let (one, two) = (server("one").await?, server("two").await?);
    control_plane
        .apply(&format!(
            "kind: Service\nname: api\nspec: {{ports: [{{port: 9000, protocol: grpc}}]}}\n---\n{}",
            endpoint(&one)
        ))
        .await?;

    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": control_plane.xds_insecure.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": "grpc-1"},
    });
    let mut command = Command::new(&peers.python);
    command.arg("-u").arg(fixture("grpc_client.py")).arg(target);
    command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
    let mut client = Client { process: Process::spawn("grpc_client.py", command)?, calls: 0 };
    client.process.wait_for_line("ready", Duration::from_secs(20))?;

    ensure!(client.call()? == "one");
    control_plane.apply(&endpoint(&two)).await?;
    client.until(&["one", "two"])?;
    control_plane.delete("/v1/endpoints/one").await?;
    client.until(&["two"])?;
    drop(one);
    for _ in 0..10 {
        ensure!(client.call()? == "two");
    }
    Ok(())
}

/// A gRPC server as far as one unary call goes: the answer is its name.
async fn server(name: &str) -> Result<Upstream> {
    let upstream = Upstream::start(name).await?;
    let length = char::from(u8::try_from(name.len())?);
    let message = format!("\0\0\0\0{length}{name}");
    upstream.default_reply(Some(
        Reply::status(200)
            .header("content-type", "application/grpc")
            .chunks(&[&message])
            .trailer("grpc-status", "0"),
    ));
    Ok(upstream)
}

fn endpoint(upstream: &Upstream) -> String {
    let (name, address) = (upstream.name(), upstream.address());
    format!(
        "kind: Endpoint\nname: {name}\nspec: {{service: api, address: {}, port: {}}}\n",
        address.ip(),
        address.port()
    )
}

struct Client {
    process: Process,
    calls: usize,
}

impl Client {
    /// One call; says who answered.
    fn call(&mut self) -> Result<String> {
        self.process.say("call")?;
        self.calls += 1;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answers: Vec<Value> = self
                .process
                .log()
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok())
                .filter(|answer: &Value| answer.get("ready").is_none())
                .collect();
            if let Some(answer) = answers.get(self.calls - 1) {
                return Ok(answer["answer"]
                    .as_str()
                    .with_context(|| answer.to_string())?
                    .to_owned());
            }
            if Instant::now() > deadline {
                bail!("no answer:\n{}", self.process.tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Calls until ten calls in a row are answered by exactly these. No call may fail.
    fn until(&mut self, expected: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answered: BTreeSet<String> = (0..10).map(|_| self.call()).collect::<Result<_>>()?;
            if answered == expected {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{answered:?} answer, not {expected:?}");
        }
    }
}
