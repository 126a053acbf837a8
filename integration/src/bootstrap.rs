//! The text of an Envoy bootstrap with places for what only the running test knows.

use std::net::SocketAddr;

/// Fills addresses, files and ports into a text.
///
/// - `${NAME}` becomes the value set under NAME;
/// - an address set under NAME also gives `${NAME.port}` and `${NAME.host}`, and `${NAME}` itself is written as Envoy's
///   `{socket_address: {...}}`.
#[derive(Debug, Default, Clone)]
pub struct Values {
    replacements: Vec<(String, String)>,
    addresses: Vec<(String, SocketAddr)>,
}

impl Values {
    /// No values.
    pub fn new() -> Values {
        Values::default()
    }

    /// Sets an address.
    pub fn address(&mut self, name: &str, address: SocketAddr) {
        let (host, port) = (address.ip(), address.port());
        self.text(name, &format!("{{socket_address: {{address: {host}, port_value: {port}}}}}"));
        self.text(&format!("{name}.port"), &port.to_string());
        self.text(&format!("{name}.host"), &host.to_string());
        self.addresses.push((name.to_owned(), address));
    }

    /// Sets a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.replacements.push((format!("${{{name}}}"), value.to_owned()));
    }

    /// `template` with every place filled.
    pub fn fill(&self, template: &str) -> String {
        let mut text = template.to_owned();
        for (place, value) in &self.replacements {
            text = text.replace(place, value);
        }
        text
    }

    /// The reverse for observations: addresses of this run become the names they were set under.
    pub fn anonymize(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, address) in &self.addresses {
            text = text.replace(&address.to_string(), &format!("${{{name}}}"));
        }
        // The longest first: 127.0.0.1 stands in 127.0.0.10 as well.
        let mut hosts: Vec<(String, &String)> =
            self.addresses.iter().map(|(name, address)| (address.ip().to_string(), name)).collect();
        hosts.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        for (host, name) in hosts {
            text = text.replace(&host, &format!("${{{name}.host}}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_taken_out_again() {
        let mut values = Values::new();
        values.address("A", "127.3.4.5:678".parse().unwrap());
        assert_eq!(
            values.fill("a: ${A} ${A.port}"),
            "a: {socket_address: {address: 127.3.4.5, port_value: 678}} 678"
        );
        assert_eq!(values.anonymize("to 127.3.4.5:678, 127.3.4.5"), "to ${A}, ${A.host}");
        values.address("B", "127.3.4.50:679".parse().unwrap());
        assert_eq!(values.anonymize("127.3.4.50:679, 127.3.4.50"), "${B}, ${B.host}");
    }
}
