//! What can be measured. Each file is one way of measuring, and gives one or several lines of the report.

mod control_plane;
mod discovery;
mod handshakes;
mod instructions;
mod latency;
mod memory;
mod requests;
mod start;
mod workers;

use anyhow::{Context, Result};

use crate::measure::{Line, Target};
use crate::options::Options;
use crate::peer::Peer;
use crate::tools::Tools;
use crate::upstream::Upstream;

/// What every scenario has.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) tools: &'a Tools,
    pub(crate) upstream: &'a Upstream,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Http1,
    Pair,
    PairLarge,
    Http2,
    Grpc,
    Everything,
    Tcp,
    TcpLarge,
    TlsPassthrough,
    Handshakes,
    Latency,
    LatencyPair,
    Start,
    Memory,
    Clusters,
    Updates,
    ControlPlane,
    Workers,
    Instructions,
}

impl Scenario {
    /// In the order of the report.
    pub(crate) const ALL: &'static [Scenario] = &[
        Scenario::Http1,
        Scenario::Pair,
        Scenario::PairLarge,
        Scenario::Http2,
        Scenario::Grpc,
        Scenario::Everything,
        Scenario::Tcp,
        Scenario::TcpLarge,
        Scenario::TlsPassthrough,
        Scenario::Handshakes,
        Scenario::Latency,
        Scenario::LatencyPair,
        Scenario::Start,
        Scenario::Memory,
        Scenario::Clusters,
        Scenario::Updates,
        Scenario::ControlPlane,
        Scenario::Workers,
        Scenario::Instructions,
    ];

    /// By which it is chosen.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Http1 => "http1",
            Scenario::Pair => "pair",
            Scenario::PairLarge => "pair-64k",
            Scenario::Http2 => "http2",
            Scenario::Grpc => "grpc",
            Scenario::Everything => "everything",
            Scenario::Tcp => "tcp",
            Scenario::TcpLarge => "tcp-64k",
            Scenario::TlsPassthrough => "tls-passthrough",
            Scenario::Start => "start",
            Scenario::Memory => "memory",
            Scenario::Handshakes => "handshakes",
            Scenario::Latency => "latency",
            Scenario::LatencyPair => "latency-pair",
            Scenario::Clusters => "clusters",
            Scenario::Updates => "updates",
            Scenario::ControlPlane => "control-plane",
            Scenario::Workers => "workers",
            Scenario::Instructions => "instructions",
        }
    }

    /// In a few words.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Scenario::Http1 => "one proxy, HTTP/1 on both sides: CPU per request",
            Scenario::Pair => "two, mTLS HTTP/2 between: CPU per request of both",
            Scenario::PairLarge => "the same with bodies of 64 KiB",
            Scenario::Http2 => "one proxy, HTTP/2 on both sides",
            Scenario::Grpc => "gRPC, unary",
            Scenario::Everything => "JSON log, RBAC, rate limit, retries, 200 routes",
            Scenario::Tcp => "TCP proxy, small answers",
            Scenario::TcpLarge => "TCP proxy, 64 KiB answers",
            Scenario::TlsPassthrough => "TCP proxy by server name, TLS inside",
            Scenario::Start => "from exec to the first 200, and memory then",
            Scenario::Memory => "memory idle, and with 1,000 idle connections",
            Scenario::Handshakes => "new mTLS connections per CPU second",
            Scenario::Latency => "latency added by one proxy at 30% of Envoy's capacity, open loop",
            Scenario::LatencyPair => "the same of a pair",
            Scenario::Clusters => {
                "10,000 clusters by delta ADS, and one endpoint changed among them"
            }
            Scenario::Updates => "throughput with 100 updates a second",
            Scenario::ControlPlane => "our control plane with 1,000 streams",
            Scenario::Workers => "two workers instead of one",
            Scenario::Instructions => {
                "what requests and updates cost, in instructions, by what they cost before"
            }
        }
    }

    /// Whether `--quick` includes it.
    pub(crate) fn is_quick(self) -> bool {
        !matches!(
            self,
            Scenario::PairLarge
                | Scenario::TcpLarge
                | Scenario::TlsPassthrough
                | Scenario::Latency
                | Scenario::LatencyPair
                | Scenario::Clusters
                | Scenario::ControlPlane
                | Scenario::Workers
                | Scenario::Instructions
        )
    }

    /// By its name.
    pub(crate) fn named(name: &str) -> Result<Scenario> {
        let known = || Scenario::ALL.iter().map(|it| it.name()).collect::<Vec<_>>().join(" ");
        let found = Scenario::ALL.iter().find(|it| it.name() == name).copied();
        found.with_context(|| format!("{name} is no scenario; there are {}", known()))
    }

    /// Measures.
    pub(crate) async fn run(self, bench: &Bench<'_>) -> Result<Vec<Line>> {
        use crate::config::Case;
        use crate::load::Load;
        use Target::AtMost;
        let (case, load, targets, user): (_, _, Vec<Target>, _) = match self {
            Scenario::Http1 => {
                let targets = vec![AtMost(0.40, Peer::Envoy), AtMost(1.15, Peer::Haproxy)];
                (Case::Http1, Load::Small, targets, Some(0.22))
            }
            Scenario::Pair => (Case::Pair, Load::Small, vec![AtMost(0.38, Peer::Envoy)], None),
            Scenario::PairLarge => (Case::Pair, Load::Large, vec![AtMost(0.85, Peer::Envoy)], None),
            Scenario::Http2 => (Case::Http2, Load::Http2, vec![AtMost(0.45, Peer::Envoy)], None),
            Scenario::Grpc => (Case::Grpc, Load::Grpc, vec![AtMost(0.45, Peer::Envoy)], None),
            Scenario::Everything => {
                (Case::Everything, Load::Small, vec![AtMost(0.40, Peer::Envoy)], None)
            }
            Scenario::Tcp => {
                let targets = vec![AtMost(0.8, Peer::Envoy), AtMost(1.1, Peer::Haproxy)];
                (Case::Tcp, Load::Small, targets, None)
            }
            Scenario::TcpLarge => {
                let targets = vec![AtMost(1.0, Peer::Envoy), AtMost(1.1, Peer::Haproxy)];
                (Case::Tcp, Load::Large, targets, None)
            }
            Scenario::TlsPassthrough => {
                let targets = vec![AtMost(1.0, Peer::Envoy), AtMost(1.1, Peer::Haproxy)];
                (Case::TlsPassthrough, Load::Tls, targets, None)
            }
            Scenario::Start => return start::run(bench).await,
            Scenario::Memory => return memory::run(bench).await,
            Scenario::Handshakes => return handshakes::run(bench).await,
            Scenario::Latency => return latency::run(bench, Case::Http1).await,
            Scenario::LatencyPair => return latency::run(bench, Case::Pair).await,
            Scenario::Clusters => return discovery::clusters(bench).await,
            Scenario::Updates => return discovery::updates(bench).await,
            Scenario::ControlPlane => return control_plane::run(bench).await,
            Scenario::Workers => return workers::run(bench).await,
            Scenario::Instructions => return instructions::run(bench).await,
        };
        let plan = requests::Plan { name: self.name(), case, load, targets, user };
        requests::run(bench, plan).await
    }
}
