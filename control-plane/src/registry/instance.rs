//! [`Instance`]: a sidecar that is connected, as it introduced itself.

use crate::model::Labels;
use crate::model::endpoint::Locality;
use crate::model::service::{Protocol, Subset};
use outrigger_proto::registry::v1 as wire;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Which instance of which service; both from its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceName {
    pub(crate) service: Arc<str>,
    pub(crate) instance: Arc<str>,
}

/// A live instance. Replaced whole when something changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instance {
    pub(crate) name: InstanceName,
    /// What of it decides about its listeners.
    pub(crate) needs: Arc<Needs>,
    pub(crate) labels: Labels,
    pub(crate) locality: Locality,
    /// No new traffic is to reach it.
    pub(crate) draining: bool,
    /// How it introduced itself, with its epoch: what is remembered of it over a restart.
    pub(crate) hello: Arc<wire::Hello>,
}

/// What of an instance decides about its own listeners. Instances with the same needs share a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Needs {
    pub(crate) service: Arc<str>,
    /// Where others reach it.
    pub(crate) advertise: IpAddr,
    /// Of the inbound listener.
    pub(crate) inbound_port: u16,
    /// Of the outbound listener on loopback, if there is one.
    pub(crate) outbound_port: Option<u16>,
    pub(crate) app_ports: Vec<AppPort>,
    pub(crate) outbounds: Vec<Outbound>,
}

/// A port of the application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AppPort {
    /// The service's port, and the application's.
    pub(crate) port: u16,
    /// Absent: what the Service says.
    pub(crate) protocol: Option<Protocol>,
    /// Where the application listens.
    pub(crate) address: IpAddr,
}

/// An explicit local listener for one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Outbound {
    pub(crate) service: Arc<str>,
    pub(crate) port: u16,
    pub(crate) listen: SocketAddr,
}

impl Instance {
    /// Where other sidecars reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.needs.advertise, self.needs.inbound_port)
    }

    /// Whether the application has this port.
    pub(crate) fn serves(&self, port: u16) -> bool {
        self.needs.app_ports.iter().any(|it| it.port == port)
    }

    /// Whether it belongs to the subset; to `None` every instance does.
    pub(crate) fn is_in(&self, subset: Option<&Subset>) -> bool {
        subset.is_none_or(|subset| subset.selects(&self.labels))
    }
}

/// What is wrong with a Hello: the field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hello.{field}: {reason}")]
pub(crate) struct InvalidHello {
    field: String,
    reason: String,
}

impl InvalidHello {
    fn at(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl Instance {
    /// From what a sidecar says of itself.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub(crate) fn from_hello(name: InstanceName, hello: wire::Hello) -> Result<Self, InvalidHello> {
        let introduced = Arc::new(hello.clone());
        let wire::Hello {
            epoch: _,
            advertise,
            inbound_port,
            outbound_port,
            app_ports,
            outbounds,
            labels,
            region,
            zone,
            version: _,
        } = hello;
        let app_ports: Vec<AppPort> = app_ports
            .iter()
            .enumerate()
            .map(|(index, it)| app_port(&format!("app_ports[{index}]"), it))
            .collect::<Result<_, _>>()?;
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = app_ports.iter().find(|it| !seen.insert(it.port)) {
            return Err(InvalidHello::at(
                "app_ports",
                format!("port {} is given twice", twice.port),
            ));
        }
        let outbounds = outbounds
            .iter()
            .enumerate()
            .map(|(index, it)| outbound(&format!("outbounds[{index}]"), it))
            .collect::<Result<_, _>>()?;
        let needs = Needs {
            service: name.service.clone(),
            advertise: ip("advertise", &advertise)?,
            inbound_port: port("inbound_port", inbound_port)?,
            outbound_port: match outbound_port {
                0 => None,
                given => Some(port("outbound_port", given)?),
            },
            app_ports,
            outbounds,
        };
        Ok(Self {
            name,
            needs: Arc::new(needs),
            labels: labels.into_iter().collect(),
            locality: Locality { region, zone },
            draining: false,
            hello: introduced,
        })
    }
}

fn app_port(field: &str, it: &wire::AppPort) -> Result<AppPort, InvalidHello> {
    let protocol = match it.protocol.as_str() {
        "" => None,
        "http" => Some(Protocol::Http),
        "http2" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "tcp" => Some(Protocol::Tcp),
        "tls" => Some(Protocol::Tls),
        other => {
            let reason = format!("{other:?} is none of http, http2, grpc, tcp, tls");
            return Err(InvalidHello::at(format!("{field}.protocol"), reason));
        }
    };
    let address = match it.address.as_str() {
        "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        given => ip(&format!("{field}.address"), given)?,
    };
    Ok(AppPort { port: port(&format!("{field}.port"), it.port)?, protocol, address })
}

fn outbound(field: &str, it: &wire::Outbound) -> Result<Outbound, InvalidHello> {
    if it.service.is_empty() {
        return Err(InvalidHello::at(format!("{field}.service"), "is missing"));
    }
    let listen = it.listen.parse().map_err(|_| {
        InvalidHello::at(format!("{field}.listen"), format!("{:?} is not IP:PORT", it.listen))
    })?;
    Ok(Outbound {
        service: it.service.as_str().into(),
        port: port(&format!("{field}.port"), it.port)?,
        listen,
    })
}

fn port(field: &str, port: u32) -> Result<u16, InvalidHello> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(InvalidHello::at(field, format!("{port} is no port (1 to 65535)"))),
    }
}

fn ip(field: &str, address: &str) -> Result<IpAddr, InvalidHello> {
    let parsed = address.parse::<IpAddr>();
    parsed.map_err(|_| InvalidHello::at(field, format!("{address:?} is not an IP address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> InstanceName {
        InstanceName { service: "api".into(), instance: "api-1".into() }
    }

    fn hello() -> wire::Hello {
        wire::Hello {
            epoch: 1,
            advertise: "127.0.0.2".to_owned(),
            inbound_port: 15006,
            app_ports: vec![wire::AppPort { port: 9000, ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn an_application_listens_on_loopback_unless_it_says_otherwise() {
        let instance = Instance::from_hello(name(), hello()).unwrap();
        assert_eq!(instance.needs.app_ports[0].address, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(instance.needs.outbound_port, None);
        assert_eq!(instance.address(), "127.0.0.2:15006".parse().unwrap());
    }

    #[test]
    fn a_wrong_field_is_refused_by_name() {
        let error = |change: fn(&mut wire::Hello)| {
            let mut hello = hello();
            change(&mut hello);
            Instance::from_hello(name(), hello).unwrap_err().to_string()
        };
        let message = error(|it| it.advertise = "host".to_owned());
        assert_eq!(message, r#"hello.advertise: "host" is not an IP address"#);
        let message = error(|it| it.inbound_port = 0);
        assert_eq!(message, "hello.inbound_port: 0 is no port (1 to 65535)");
        let message = error(|it| it.app_ports[0].protocol = "htp".to_owned());
        assert!(message.starts_with("hello.app_ports[0].protocol: \"htp\""), "{message}");
        let message = error(|it| it.app_ports.push(it.app_ports[0].clone()));
        assert_eq!(message, "hello.app_ports: port 9000 is given twice");
        let message = error(|it| {
            it.outbounds =
                vec![wire::Outbound { service: "db".to_owned(), port: 1, listen: "x".to_owned() }];
        });
        assert_eq!(message, r#"hello.outbounds[0].listen: "x" is not IP:PORT"#);
    }
}
