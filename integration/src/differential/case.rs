//! What a test writes down.

use anyhow::{Result, bail};
use futures_util::future::BoxFuture;

use super::{Observation, World};
use crate::client::Request;
use crate::proxy::Kind;
use crate::upstream::Reply;

/// Cases that share one bootstrap, and so one start of each proxy.
pub struct Group {
    /// Its name; accepted differences name their case as `GROUP/CASE`.
    pub name: &'static str,
    /// The bootstrap, without `admin`. Places of the form `${LISTEN...}` get an address each, `${DIR}` is a folder with
    /// the certificates that [`World`] lists, and each upstream's address stands under its name.
    pub bootstrap: String,
    /// The upstreams to start.
    pub upstreams: Vec<(&'static str, UpstreamKind)>,
    /// A field of this bootstrap that our sidecar does not support, by its path or the end of it: then it has to refuse
    /// the bootstrap by that name, and only Envoy runs the cases.
    pub unsupported: Option<&'static str>,
    /// The cases, run in this order.
    pub cases: Vec<Case>,
}

/// What an upstream expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// HTTP/1 or HTTP/2 without TLS.
    Plain,
    /// The same, at 127.0.0.1: where the name `localhost` leads.
    Localhost,
    /// TLS with the certificate `DIR/NAME.crt`; no client certificate asked for.
    Tls(&'static str),
    /// TLS with the certificate `DIR/NAME.crt`; a client certificate of `DIR/ca.crt` is required.
    MutualTls(&'static str),
    /// Bytes, no HTTP.
    Tcp,
    /// A server for access logs over gRPC.
    AccessLog,
    /// A server for load reports.
    LoadReports,
    /// A service of rate limits over gRPC.
    RateLimits,
    /// A server that keeps datagrams.
    Udp,
    /// An address at which nobody listens.
    Closed,
}

/// One rule, by name, and how to see it.
pub struct Case {
    /// The rule.
    pub name: &'static str,
    steps: Vec<Step>,
}

type Custom = Box<dyn for<'a> Fn(&'a World) -> BoxFuture<'a, Result<Observation>> + Send + Sync>;

enum Step {
    Script(&'static str, Vec<Reply>),
    Send { listener: &'static str, request: Box<Request>, expected: &'static str },
    Custom(Custom),
}

impl Case {
    /// A case without steps.
    pub fn new(name: &'static str) -> Case {
        Case { name, steps: Vec::new() }
    }

    /// A case that is one piece of code.
    pub fn custom(
        name: &'static str,
        code: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<Observation>> + Send + Sync + 'static,
    ) -> Case {
        Case { name, steps: vec![Step::Custom(Box::new(code))] }
    }

    /// From here on the upstream answers with these, in order.
    #[must_use]
    pub fn script(
        mut self,
        upstream: &'static str,
        replies: impl IntoIterator<Item = Reply>,
    ) -> Case {
        self.steps.push(Step::Script(upstream, replies.into_iter().collect()));
        self
    }

    /// Sends a request to `${LISTEN}`. `expected` is what Envoy must do for the case to show its rule: the status and
    /// the names of the upstreams reached, in order (`200 a`, `503 a,a`, `404 -`; `failed` for no response).
    #[must_use]
    pub fn send(self, request: Request, expected: &'static str) -> Case {
        self.send_to("LISTEN", request, expected)
    }

    /// Sends a request to another listener.
    #[must_use]
    pub fn send_to(
        mut self,
        listener: &'static str,
        request: Request,
        expected: &'static str,
    ) -> Case {
        self.steps.push(Step::Send { listener, request: Box::new(request), expected });
        self
    }

    /// `GET path` to `${LISTEN}`.
    #[must_use]
    pub fn get(self, path: &str, expected: &'static str) -> Case {
        self.send(Request::get(path), expected)
    }

    /// Does the steps and reports what was seen.
    pub(super) async fn run(&self, world: &World) -> Result<Observation> {
        let mut observation = Observation::default();
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Script(upstream, replies) => {
                    world.upstream(upstream)?.script(replies.iter().cloned());
                }
                Step::Custom(code) => observation.extend(code(world).await?),
                Step::Send { listener, request, expected } => {
                    let step = format!("step {index}");
                    let seen = world.send(&mut observation, &step, listener, request).await?;
                    if world.proxy.kind == Kind::Envoy && seen != *expected {
                        bail!(
                            "step {index}: Envoy did {seen:?} instead of {expected:?}:\n{observation}"
                        );
                    }
                }
            }
        }
        Ok(observation)
    }
}
