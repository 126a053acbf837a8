//! Which ports a service listens at, as far as its compose file says so.

use super::super::yaml::Yaml;
use crate::model::service::Protocol;

/// A port of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    /// What is spoken there, if that is said.
    pub(super) protocol: Option<Protocol>,
}

/// Ports at which something else than HTTP is spoken wherever they are used.
const WELL_KNOWN: [(u16, Protocol, &str); 17] = [
    (22, Protocol::Tcp, "SSH"),
    (25, Protocol::Tcp, "SMTP"),
    (587, Protocol::Tcp, "SMTP"),
    (389, Protocol::Tcp, "LDAP"),
    (1433, Protocol::Tcp, "SQL Server"),
    (1521, Protocol::Tcp, "Oracle"),
    (1883, Protocol::Tcp, "MQTT"),
    (2181, Protocol::Tcp, "ZooKeeper"),
    (3306, Protocol::Tcp, "MySQL"),
    (4222, Protocol::Tcp, "NATS"),
    (5432, Protocol::Tcp, "PostgreSQL"),
    (5672, Protocol::Tcp, "AMQP"),
    (6379, Protocol::Tcp, "Redis"),
    (9042, Protocol::Tcp, "Cassandra"),
    (9092, Protocol::Tcp, "Kafka"),
    (11211, Protocol::Tcp, "memcached"),
    (27017, Protocol::Tcp, "MongoDB"),
];

/// What is probably spoken at a port that no label speaks of, and the reason if it is not HTTP.
pub(super) fn guess(port: u16) -> (Protocol, Option<&'static str>) {
    match WELL_KNOWN.iter().find(|(number, ..)| *number == port) {
        Some((_, protocol, name)) => (*protocol, Some(name)),
        None if port == 50051 => (Protocol::Grpc, Some("gRPC")),
        None => (Protocol::Http, None),
    }
}

/// A protocol's name, as labels and sidecars write it.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
    }
}

/// Ports that `expose` and `ports` name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// Of TCP, in the order in which they are first named.
    pub(super) ports: Vec<u16>,
    /// Host ports that are published, as they are written; only those of one number.
    pub(super) published: Vec<u16>,
    /// Something could not be understood, as written: a range, a variable.
    pub(super) unclear: Option<String>,
}

/// What a service declares.
pub(super) fn declared(service: &Yaml) -> Declared {
    let mut declared = Declared::default();
    for key in ["expose", "ports"] {
        for item in service.get(key).map_or(&[][..], Yaml::items) {
            match item.as_text() {
                Some(text) => declared.short(text),
                None => declared.long(item),
            }
        }
    }
    declared
}

impl Declared {
    /// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`
    fn short(&mut self, text: &str) {
        let mut parts = split(text);
        let container = parts.pop().unwrap_or_default();
        let (port, transport) = container.split_once('/').unwrap_or((&container, "tcp"));
        if transport != "tcp" {
            return;
        }
        self.add(port, text);
        if let Some(host) = parts.pop().and_then(|host| host.parse().ok()) {
            self.published.push(host);
        }
    }

    /// `{target: 80, published: 8080, protocol: tcp}`
    fn long(&mut self, item: &Yaml) {
        let of = |key: &str| item.get(key).and_then(Yaml::as_text);
        if of("protocol").is_some_and(|transport| transport != "tcp") {
            return;
        }
        let target = of("target").unwrap_or_default();
        self.add(target, target);
        self.published.extend(of("published").and_then(|host| host.parse::<u16>().ok()));
    }

    fn add(&mut self, port: &str, written: &str) {
        match port.trim().parse() {
            Ok(port) if self.ports.contains(&port) => {}
            Ok(port) => self.ports.push(port),
            Err(_) => self.unclear = self.unclear.take().or_else(|| Some(written.to_owned())),
        }
    }
}

/// Splits at colons that are not part of a variable (`${PORT:-80}`) or of an IPv6 address.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == ':' && depth == 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::super::yaml::{map, texts};
    use super::*;

    fn of(ports: &[&str]) -> Declared {
        declared(&map([("ports", texts(ports.iter().copied()))]))
    }

    #[test]
    fn the_port_of_the_container_counts_in_every_form() {
        for text in [
            "80",
            "8080:80",
            "127.0.0.1:8080:80",
            "127.0.0.1::80",
            "80/tcp",
            "[::1]:8080:80",
            "${HOST_PORT:-8080}:80",
            "9000-9005:80",
        ] {
            let found = of(&[text]);
            assert_eq!((found.ports.as_slice(), &found.unclear), (&[80][..], &None), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_number_is_unclear_and_udp_does_not_count() {
        assert_eq!(of(&["8080:${PORT:-80}"]).unclear.as_deref(), Some("8080:${PORT:-80}"));
        assert_eq!(of(&["3000-3005"]).unclear.as_deref(), Some("3000-3005"));
        assert_eq!(of(&["53:53/udp"]), Declared::default());
        assert_eq!(of(&["8080:80", "80"]).published, [8080]);
    }
}
