//! What the demo consists of: load -> gateway -> web -> api (v1 x3, v2 x1) -> ledger (gRPC).

use std::net::{IpAddr, SocketAddr};

use super::addresses::Network;

/// Host that the gateway's route answers to.
pub(crate) const HOST: &str = "shop.localhost";
/// Port of the inbound listener of every sidecar.
pub(crate) const INBOUND_PORT: u16 = 15006;
const ADMIN_PORT: u16 = 15000;
/// Plain HTTP port of the ledger's switches.
const SWITCHES_PORT: u16 = 7080;

/// One instance: a sidecar, and an application behind it unless it is a gateway or a mere client.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Last part of its address.
    host: u8,
    pub(crate) app: Option<App>,
    pub(crate) calls: Calls,
}

/// What the application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    Http { port: u16 },
    Grpc { port: u16 },
}

/// Whom the instance calls, and how it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    Nobody,
    /// Through the sidecar's outbound listener, which goes by the request's host.
    ByHost {
        service: &'static str,
        port: u16,
    },
    /// Through a listener for this service alone.
    Listener {
        service: &'static str,
        port: u16,
    },
}

const API_PORT: u16 = 9000;

const fn api(name: &'static str, version: &'static str, host: u8) -> Instance {
    Instance {
        service: "api",
        name,
        version,
        host,
        app: Some(App::Http { port: API_PORT }),
        calls: Calls::Listener { service: "ledger", port: 7000 },
    }
}

/// Everything that is there from the start.
pub(crate) const INSTANCES: [Instance; 7] = [
    Instance {
        service: "edge",
        name: "edge-1",
        version: "v1",
        host: 10,
        app: None,
        calls: Calls::Nobody,
    },
    Instance {
        service: "web",
        name: "web-1",
        version: "v1",
        host: 20,
        app: Some(App::Http { port: 8000 }),
        calls: Calls::ByHost { service: "api", port: API_PORT },
    },
    api("api-1", "v1", 31),
    api("api-2", "v1", 32),
    api("api-3", "v1", 33),
    api("api-4", "v2", 34),
    Instance {
        service: "ledger",
        name: "ledger-1",
        version: "v1",
        host: 40,
        app: Some(App::Grpc { port: 7000 }),
        calls: Calls::Nobody,
    },
];

/// A member of the mesh that no Policy allows anything.
pub(crate) const BATCH: Instance = Instance {
    service: "batch",
    name: "batch-1",
    version: "v1",
    host: 50,
    app: None,
    calls: Calls::Listener { service: "api", port: API_PORT },
};

/// An instance of `api` without a sidecar, known to the mesh by an Endpoint object.
pub(crate) const OUTSIDER: Instance =
    Instance { calls: Calls::Nobody, ..api("api-plain", "v1", 60) };

impl Instance {
    /// Its address.
    pub(crate) fn ip(&self, network: &Network) -> IpAddr {
        IpAddr::V4(network.address(self.host))
    }

    /// Where its application listens.
    pub(crate) fn app_address(&self, network: &Network) -> Option<SocketAddr> {
        let (App::Http { port } | App::Grpc { port }) = self.app?;
        Some(SocketAddr::new(self.ip(network), port))
    }

    /// Where its application's switches are.
    pub(crate) fn switches_address(&self, network: &Network) -> Option<SocketAddr> {
        let port = match self.app? {
            App::Http { port } => port,
            App::Grpc { .. } => SWITCHES_PORT,
        };
        Some(SocketAddr::new(self.ip(network), port))
    }

    /// Where other sidecars reach its sidecar.
    pub(crate) fn inbound_address(&self, network: &Network) -> SocketAddr {
        SocketAddr::new(self.ip(network), INBOUND_PORT)
    }

    /// Where its sidecar's admin interface is.
    pub(crate) fn admin_address(&self, network: &Network) -> SocketAddr {
        SocketAddr::new(self.ip(network), ADMIN_PORT)
    }
}
