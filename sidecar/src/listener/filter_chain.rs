//! Which filter chain takes a connection.
//!
//! Envoy's rules (documentation of `FilterChainMatch`): destination port, then server name, then transport protocol, then
//! application protocols. At each step the most specific criterion that matches is taken and there is no way back: if the
//! chains below it do not match, the default chain takes the connection. "Any" is the least specific criterion.

use std::collections::HashMap;

use crate::config::listener::{FilterChainMatch, ServerNamePattern, TransportProtocol};

/// What is known of a connection before a chain is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Criteria<'a> {
    /// Port the client connected to.
    pub(crate) destination_port: u16,
    /// Server name of the ClientHello, lower case; empty: none.
    pub(crate) server_name: &'a str,
    /// What the inspector found; without an inspector it is a raw buffer.
    pub(crate) transport_protocol: TransportProtocol,
    /// Protocols that the client offers.
    pub(crate) application_protocols: &'a [Vec<u8>],
}

impl Default for Criteria<'_> {
    fn default() -> Self {
        Self {
            destination_port: 0,
            server_name: "",
            transport_protocol: TransportProtocol::RawBuffer,
            application_protocols: &[],
        }
    }
}

/// The criteria of all chains of a listener, compiled.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    ports: Step<u16, ServerNames>,
}

/// One criterion: the values it may have, and what holds where nothing was asked for.
#[derive(Debug)]
struct Step<K, V> {
    values: HashMap<K, V>,
    any: Option<V>,
}

impl<K, V> Default for Step<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), any: None }
    }
}

impl<K: std::hash::Hash + Eq, V: Default> Step<K, V> {
    fn entry(&mut self, key: Option<K>) -> &mut V {
        match key {
            Some(key) => self.values.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }
}

#[derive(Debug, Default)]
struct ServerNames {
    exact: HashMap<Box<str>, Transports>,
    /// By suffix with its leading dot.
    suffixes: HashMap<Box<str>, Transports>,
    any: Option<Transports>,
}

type Transports = Step<TransportProtocol, Protocols>;

/// Chains by application protocol; the values are indices of chains.
type Protocols = Step<Box<[u8]>, Option<usize>>;

/// Two chains ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous {
    /// Index of the earlier chain.
    pub(crate) first: usize,
    /// Index of the later chain.
    pub(crate) second: usize,
}

impl Matcher {
    /// Compiles the criteria of the chains, given in the order of the configuration.
    ///
    /// # Errors
    /// If two chains ask for exactly the same, as Envoy rejects them.
    pub(crate) fn build<'a>(
        chains: impl IntoIterator<Item = &'a FilterChainMatch>,
    ) -> Result<Self, Ambiguous> {
        let mut matcher = Self::default();
        for (index, chain) in chains.into_iter().enumerate() {
            let names = matcher.ports.entry(chain.destination_port);
            if chain.server_names.is_empty() {
                add(names.any.get_or_insert_default(), chain, index)?;
            }
            for name in &chain.server_names {
                let transports = match name {
                    ServerNamePattern::Exact(name) => names.exact.entry(name.clone()).or_default(),
                    ServerNamePattern::Suffix(suffix) => {
                        names.suffixes.entry(suffix.clone()).or_default()
                    }
                };
                add(transports, chain, index)?;
            }
        }
        Ok(matcher)
    }

    /// Index of the chain that takes the connection; `None`: the default chain, if there is one.
    pub(crate) fn find(&self, criteria: &Criteria<'_>) -> Option<usize> {
        let names =
            self.ports.values.get(&criteria.destination_port).or(self.ports.any.as_ref())?;
        let transports = names.find(criteria.server_name)?;
        let protocols =
            transports.values.get(&criteria.transport_protocol).or(transports.any.as_ref())?;
        criteria
            .application_protocols
            .iter()
            .find_map(|protocol| protocols.values.get(protocol.as_slice()))
            .or(protocols.any.as_ref())
            .copied()
            .flatten()
    }
}

impl ServerNames {
    fn find(&self, name: &str) -> Option<&Transports> {
        if !name.is_empty() {
            if let Some(found) = self.exact.get(name) {
                return Some(found);
            }
            // Longest suffix first. A suffix never takes the bare domain: `*.a.b` does not match `a.b`.
            let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
            for at in dots {
                if let Some(found) = name.get(at..).and_then(|suffix| self.suffixes.get(suffix)) {
                    return Some(found);
                }
            }
        }
        self.any.as_ref()
    }
}

fn add(
    transports: &mut Transports,
    chain: &FilterChainMatch,
    index: usize,
) -> Result<(), Ambiguous> {
    let protocols = transports.entry(chain.transport_protocol);
    if chain.application_protocols.is_empty() {
        return set(protocols.any.get_or_insert_default(), index);
    }
    for protocol in &chain.application_protocols {
        set(protocols.values.entry(protocol.clone()).or_default(), index)?;
    }
    Ok(())
}

fn set(slot: &mut Option<usize>, index: usize) -> Result<(), Ambiguous> {
    match *slot {
        Some(first) if first != index => Err(Ambiguous { first, second: index }),
        _ => {
            *slot = Some(index);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ServerNamePattern> {
        names
            .iter()
            .map(|name| match name.strip_prefix('*') {
                Some(suffix) => ServerNamePattern::Suffix(suffix.into()),
                None => ServerNamePattern::Exact((*name).into()),
            })
            .collect()
    }

    fn server_names(list: &[&str]) -> FilterChainMatch {
        FilterChainMatch { server_names: names(list), ..FilterChainMatch::default() }
    }

    fn by_name(matcher: &Matcher, server_name: &str) -> Option<usize> {
        matcher.find(&Criteria { server_name, ..Criteria::default() })
    }

    #[test]
    fn the_port_is_decided_first_and_there_is_no_way_back() {
        let matcher = Matcher::build(&[
            FilterChainMatch { destination_port: Some(80), ..server_names(&["a.com"]) },
            FilterChainMatch::default(),
        ])
        .unwrap();
        let on_80 = Criteria { destination_port: 80, server_name: "b.com", ..Criteria::default() };
        assert_eq!(matcher.find(&on_80), None);
        assert_eq!(matcher.find(&Criteria { server_name: "a.com", ..on_80 }), Some(0));
        assert_eq!(matcher.find(&Criteria { destination_port: 81, ..on_80 }), Some(1));
    }

    #[test]
    fn an_exact_name_beats_the_longest_suffix_which_beats_shorter_ones_and_none() {
        let matcher = Matcher::build(&[
            server_names(&["*.com"]),
            server_names(&["*.example.com"]),
            server_names(&["www.example.com"]),
            FilterChainMatch::default(),
        ])
        .unwrap();
        assert_eq!(by_name(&matcher, "www.example.com"), Some(2));
        assert_eq!(by_name(&matcher, "x.y.example.com"), Some(1));
        assert_eq!(by_name(&matcher, "example.com"), Some(0));
        assert_eq!(by_name(&matcher, "example.org"), Some(3));
        assert_eq!(by_name(&matcher, ""), Some(3));
    }

    #[test]
    fn a_suffix_does_not_take_the_bare_domain() {
        let matcher = Matcher::build(&[server_names(&["*.example.com"])]).unwrap();
        assert_eq!(by_name(&matcher, "example.com"), None);
        assert_eq!(by_name(&matcher, ".example.com"), None);
    }

    #[test]
    fn transport_protocol_is_decided_before_alpn() {
        let alpn: Vec<Box<[u8]>> = vec![b"h2".as_slice().into()];
        let matcher = Matcher::build(&[
            FilterChainMatch {
                transport_protocol: Some(TransportProtocol::Tls),
                ..FilterChainMatch::default()
            },
            FilterChainMatch { application_protocols: alpn, ..FilterChainMatch::default() },
        ])
        .unwrap();
        let offered = vec![b"h2".to_vec()];
        let plain = Criteria { application_protocols: &offered, ..Criteria::default() };
        let tls = Criteria { transport_protocol: TransportProtocol::Tls, ..plain };
        assert_eq!(matcher.find(&tls), Some(0));
        assert_eq!(matcher.find(&plain), Some(1));
        assert_eq!(matcher.find(&Criteria { application_protocols: &[], ..plain }), None);
    }

    #[test]
    fn the_first_protocol_that_the_client_offers_and_a_chain_names_decides() {
        let chain = |protocol: &[u8]| FilterChainMatch {
            application_protocols: vec![protocol.into()],
            ..FilterChainMatch::default()
        };
        let matcher = Matcher::build(&[chain(b"http/1.1"), chain(b"h2")]).unwrap();
        let offered = vec![b"h3".to_vec(), b"h2".to_vec(), b"http/1.1".to_vec()];
        let criteria = Criteria { application_protocols: &offered, ..Criteria::default() };
        assert_eq!(matcher.find(&criteria), Some(1));
    }

    #[test]
    fn two_chains_that_ask_for_the_same_are_refused() {
        let chains = [server_names(&["a.com", "b.com"]), server_names(&["b.com"])];
        assert_eq!(Matcher::build(&chains).unwrap_err(), Ambiguous { first: 0, second: 1 });
    }

    #[test]
    fn a_chain_without_criteria_takes_every_connection() {
        let matcher = Matcher::build(&[FilterChainMatch::default()]).unwrap();
        assert_eq!(matcher.find(&Criteria::default()), Some(0));
    }
}
