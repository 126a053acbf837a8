//! A proxy under the control plane of somebody else: `fixtures/PRODUCT` has the bootstrap that the product hands out and
//! the resources that it sends, rebuilt from what it documents; the independent server plays its part.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::ads::AdsServer;
use crate::bootstrap::Values;
use crate::peers::{fixture, peers};
use crate::proxy::{Kind, Proxy};

/// In the order in which a control plane sends them.
const ORDER: [&str; 9] = ["rtds", "cds", "eds", "sds", "ecds", "lds", "srds", "rds", "vhds"];

/// Messages of Istio's own build of Envoy, which the one that we compare with does not know.
const NOT_OF_ENVOY: [&str; 4] = ["istio.", "io.istio.", "stats.", "envoy.tcp.metadataexchange."];

/// A proxy that lives on what a product sends.
pub struct Foreign {
    /// The proxy.
    pub proxy: Proxy,
    /// What plays the product.
    pub server: AdsServer,
    kinds: Vec<&'static str>,
}

impl Foreign {
    /// Starts a proxy from `fixtures/PRODUCT/bootstrap.yaml`, and sends it what is in the other `files` of that folder.
    /// `${XDS}` is the address of the server in there, `${SOCKET}` its Unix socket; everything else is among `values`.
    ///
    /// # Errors
    /// Something does not start, or a file is not as it should be.
    pub async fn start(
        kind: Kind,
        product: &str,
        files: &[&str],
        values: &Values,
    ) -> Result<Foreign> {
        let mut server = AdsServer::start(peers().context("peers")?)?;
        let mut values = values.clone();
        values.address("XDS", server.address());
        values.text("SOCKET", &server.socket().display().to_string());
        let read = |file: &str| -> Result<Value> {
            let path = fixture(product).join(file);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let mut value = serde_saphyr::from_str(&values.fill(&text))
                .with_context(|| path.display().to_string())?;
            if kind == Kind::Envoy {
                leave_out(&mut value);
            }
            Ok(value)
        };
        let mut kinds = Vec::new();
        let files: Vec<Value> = files.iter().map(|file| read(file)).collect::<Result<_>>()?;
        for kind in ORDER {
            let lists = files.iter().filter_map(|file| file[kind].as_array());
            let resources: Vec<Value> = lists.flatten().cloned().collect();
            if !resources.is_empty() {
                server.set(kind, "1", &resources)?;
                kinds.push(kind);
            }
        }
        let bootstrap: Map<String, Value> = serde_json::from_value(read("bootstrap.yaml")?)?;
        // Lines, as one with `admin` goes before them.
        let bootstrap: String =
            bootstrap.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let proxy = Proxy::start(kind, &bootstrap).await?;
        Ok(Foreign { proxy, server, kinds })
    }

    /// Waits until the proxy has taken resources of every kind that there are, but virtual hosts, which are asked for when
    /// they are needed, and asserts that it refused nothing.
    ///
    /// # Errors
    /// It refused something, or does not ask for it.
    pub async fn accepted(&self) -> Result<()> {
        for kind in self.kinds.iter().filter(|kind| **kind != "vhds") {
            let answer = |event: &Value| {
                event["event"] == "request"
                    && event["type"] == *kind
                    && event["nonce"].as_str().is_some_and(|nonce| !nonce.is_empty())
            };
            self.server.wait_since(0, &format!("answer to {kind}"), answer).await?;
        }
        // What was answered late is refused late.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for event in self.server.events() {
            let error = event["error"].as_str().unwrap_or_default();
            ensure!(error.is_empty(), "{} refuses {}: {error}", self.proxy.kind, event["type"]);
        }
        Ok(())
    }
}

/// Takes extensions out that are not Envoy's: elements of lists, with their configuration.
fn leave_out(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !is_not_of_envoy(&item["typed_config"]));
            items.iter_mut().for_each(leave_out);
        }
        Value::Object(fields) => fields.values_mut().for_each(leave_out),
        _ => {}
    }
}

fn is_not_of_envoy(config: &Value) -> bool {
    let url = config["type_url"].as_str().or(config["@type"].as_str()).unwrap_or_default();
    let message = url.rsplit('/').next().unwrap_or_default();
    NOT_OF_ENVOY.iter().any(|package| message.starts_with(package))
}
