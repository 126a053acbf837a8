//! Which filter chain takes a connection.
//!
//! Envoy's rules (documentation of `FilterChainMatch`): the destination's port, then its address, server name, transport
//! protocol, application protocols, the direct source's address, whether it is local, the source's address, its port. At
//! each step the most specific criterion that matches is taken and there is no way back: if the chains below it do not
//! match, the default chain takes the connection. "Any" is the least specific criterion.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::config::address::Address;
use crate::config::listener::{
    Combination, FilterChainMatch, ServerNamePattern, SourceType, TransportProtocol,
};

/// What is known of a connection before a chain is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Criteria<'a> {
    /// Where the client connected to.
    pub(crate) destination: SocketAddr,
    /// Server name of the ClientHello, lower case; empty: none.
    pub(crate) server_name: &'a str,
    /// What the inspector found; without an inspector it is a raw buffer.
    pub(crate) transport_protocol: TransportProtocol,
    /// Protocols that the client offers.
    pub(crate) application_protocols: &'a [Vec<u8>],
    /// The peer of the connection itself.
    pub(crate) direct_source: SocketAddr,
    /// The client, which is the peer unless something in front of us says who it is.
    pub(crate) source: SocketAddr,
}

impl Default for Criteria<'_> {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            destination: nowhere,
            server_name: "",
            transport_protocol: TransportProtocol::RawBuffer,
            application_protocols: &[],
            direct_source: nowhere,
            source: nowhere,
        }
    }
}

impl Criteria<'_> {
    /// An address as chains match it. As in Envoy a Unix domain socket counts as an IP address that no other has, at both
    /// of its ends, and so as local.
    pub(crate) fn place(address: &Address) -> SocketAddr {
        let pipe = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 0);
        address.socket().unwrap_or(pipe)
    }

    fn is_local(&self) -> bool {
        // As in Envoy 127.0.0.1 alone is meant by the loopback address, and not its network.
        let is_loopback = match self.source.ip() {
            IpAddr::V4(address) => address == Ipv4Addr::LOCALHOST,
            IpAddr::V6(address) => address.is_loopback(),
        };
        is_loopback || self.source.ip() == self.destination.ip()
    }
}

/// The criteria of all chains of a listener, compiled: a tree with one level for each criterion.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    ports: Step<u16, Destinations>,
}

type Destinations = Ranges<ServerNames>;
type Transports = Step<TransportProtocol, Protocols>;
type Protocols = Step<Box<[u8]>, DirectSources>;
type DirectSources = Ranges<SourceTypes>;
type SourceTypes = Step<SourceType, Sources>;
type Sources = Ranges<SourcePorts>;
/// The values are indices of chains.
type SourcePorts = Step<u16, Option<usize>>;

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

    fn find<Q: std::hash::Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.values.get(key).or(self.any.as_ref())
    }
}

/// A criterion of ranges of addresses: the longest that has the address is taken.
#[derive(Debug)]
struct Ranges<V> {
    step: Step<IpNet, V>,
    /// The lengths that occur, the longest first.
    lengths: Vec<u8>,
}

impl<V> Default for Ranges<V> {
    fn default() -> Self {
        Self { step: Step::default(), lengths: Vec::new() }
    }
}

impl<V: Default> Ranges<V> {
    fn entry(&mut self, range: Option<IpNet>) -> &mut V {
        if let Some(range) = range {
            let length = range.prefix_len();
            if let Err(at) = self.lengths.binary_search_by(|other| length.cmp(other)) {
                self.lengths.insert(at, length);
            }
        }
        self.step.entry(range)
    }

    fn find(&self, address: IpAddr) -> Option<&V> {
        // A length that is too long for the address is one of the other family.
        let ranges = self.lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
        ranges
            .map(|range| range.trunc())
            .find_map(|range| self.step.values.get(&range))
            .or(self.step.any.as_ref())
    }
}

#[derive(Debug, Default)]
struct ServerNames {
    exact: HashMap<Box<str>, Transports>,
    /// By suffix with its leading dot.
    suffixes: HashMap<Box<str>, Transports>,
    any: Option<Transports>,
}

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
            for combination in chain.combinations() {
                let slot = matcher.entry(&combination);
                match *slot {
                    Some(first) if first != index => {
                        return Err(Ambiguous { first, second: index });
                    }
                    _ => *slot = Some(index),
                }
            }
        }
        Ok(matcher)
    }

    fn entry(&mut self, combination: &Combination<'_>) -> &mut Option<usize> {
        let Combination {
            destination_port,
            prefix_range,
            server_name,
            transport_protocol,
            application_protocol,
            direct_source_prefix_range,
            source_type,
            source_prefix_range,
            source_port,
        } = *combination;
        let source_type = (source_type != SourceType::Any).then_some(source_type);
        self.ports
            .entry(destination_port)
            .entry(prefix_range)
            .entry(server_name)
            .entry(transport_protocol)
            .entry(application_protocol.map(Box::from))
            .entry(direct_source_prefix_range)
            .entry(source_type)
            .entry(source_prefix_range)
            .entry(source_port)
    }

    /// Index of the chain that takes the connection; `None`: the default chain, if there is one.
    pub(crate) fn find(&self, criteria: &Criteria<'_>) -> Option<usize> {
        let (destination, source) = (criteria.destination, criteria.source);
        let destinations = self.ports.find(&destination.port())?;
        let names = destinations.find(destination.ip())?;
        let transports = names.find(criteria.server_name)?;
        let protocols = transports.find(&criteria.transport_protocol)?;
        let direct_sources = criteria
            .application_protocols
            .iter()
            .find_map(|protocol| protocols.values.get(protocol.as_slice()))
            .or(protocols.any.as_ref())?;
        let types = direct_sources.find(criteria.direct_source.ip())?;
        let source_type = match criteria.is_local() {
            true => SourceType::SameIpOrLoopback,
            false => SourceType::External,
        };
        let sources = types.find(&source_type)?;
        let ports = sources.find(source.ip())?;
        ports.find(&source.port()).copied().flatten()
    }
}

impl ServerNames {
    fn entry(&mut self, name: Option<&ServerNamePattern>) -> &mut Transports {
        match name {
            Some(ServerNamePattern::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(ServerNamePattern::Suffix(name)) => self.suffixes.entry(name.clone()).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

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
        let destination = "10.0.0.1:80".parse().unwrap();
        let on_80 = Criteria { destination, server_name: "b.com", ..Criteria::default() };
        assert_eq!(matcher.find(&on_80), None);
        assert_eq!(matcher.find(&Criteria { server_name: "a.com", ..on_80 }), Some(0));
        let destination = "10.0.0.1:81".parse().unwrap();
        assert_eq!(matcher.find(&Criteria { destination, ..on_80 }), Some(1));
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

    fn ranges(ranges: &[&str]) -> Vec<IpNet> {
        ranges.iter().map(|range| range.parse().unwrap()).collect()
    }

    fn from(source: &str, destination: &str) -> Criteria<'static> {
        let source = source.parse().unwrap();
        let destination = destination.parse().unwrap();
        Criteria { source, direct_source: source, destination, ..Criteria::default() }
    }

    #[test]
    fn the_longest_range_that_has_the_destination_is_taken() {
        let chain = |list: &[&str]| FilterChainMatch {
            prefix_ranges: ranges(list),
            ..FilterChainMatch::default()
        };
        let matcher = Matcher::build(&[
            chain(&["10.0.0.0/8", "fd00::/8"]),
            chain(&["10.1.0.0/16"]),
            chain(&["10.1.2.3/32", "fd00::1/128"]),
            chain(&[]),
        ])
        .unwrap();
        for (destination, chain) in [
            ("10.9.9.9:1", 0),
            ("10.1.9.9:1", 1),
            ("10.1.2.3:1", 2),
            ("[fd00::2]:1", 0),
            ("[fd00::1]:1", 2),
            ("11.0.0.0:1", 3),
            ("[fe00::]:1", 3),
        ] {
            assert_eq!(matcher.find(&from("1.1.1.1:1", destination)), Some(chain), "{destination}");
        }
    }

    #[test]
    fn the_destination_is_decided_before_the_server_name() {
        let matcher = Matcher::build(&[
            FilterChainMatch { prefix_ranges: ranges(&["10.0.0.0/8"]), ..server_names(&["a.com"]) },
            server_names(&["b.com"]),
        ])
        .unwrap();
        let criteria = Criteria { server_name: "b.com", ..from("1.1.1.1:1", "10.0.0.1:1") };
        assert_eq!(matcher.find(&criteria), None);
    }

    #[test]
    fn local_is_a_loopback_address_or_the_address_connected_to() {
        let chain = |source_type| FilterChainMatch { source_type, ..FilterChainMatch::default() };
        let matcher = Matcher::build(&[
            chain(SourceType::SameIpOrLoopback),
            chain(SourceType::External),
            chain(SourceType::Any),
        ])
        .unwrap();
        assert_eq!(matcher.find(&from("127.0.0.1:1", "10.0.0.1:1")), Some(0));
        assert_eq!(
            matcher.find(&from("127.9.0.1:1", "10.0.0.1:1")),
            Some(1),
            "not the address itself"
        );
        assert_eq!(matcher.find(&from("[::1]:1", "10.0.0.1:1")), Some(0));
        assert_eq!(matcher.find(&from("10.0.0.1:5", "10.0.0.1:1")), Some(0));
        assert_eq!(matcher.find(&from("10.0.0.2:1", "10.0.0.1:1")), Some(1));
        let matcher = Matcher::build(&[chain(SourceType::External), chain(SourceType::Any)]);
        assert_eq!(matcher.unwrap().find(&from("127.0.0.1:1", "10.0.0.1:1")), Some(1));
    }

    #[test]
    fn the_source_is_decided_by_direct_range_then_range_then_port() {
        let matcher = Matcher::build(&[
            FilterChainMatch {
                direct_source_prefix_ranges: ranges(&["192.168.0.0/16"]),
                source_prefix_ranges: ranges(&["10.0.0.0/8"]),
                ..FilterChainMatch::default()
            },
            FilterChainMatch {
                source_prefix_ranges: ranges(&["10.0.0.0/8"]),
                source_ports: vec![7, 8],
                ..FilterChainMatch::default()
            },
            FilterChainMatch::default(),
        ])
        .unwrap();
        let proxied = Criteria {
            direct_source: "192.168.1.1:1".parse().unwrap(),
            ..from("10.0.0.1:7", "1.1.1.1:1")
        };
        assert_eq!(matcher.find(&proxied), Some(0));
        let stranger = Criteria { source: "11.0.0.1:7".parse().unwrap(), ..proxied };
        assert_eq!(matcher.find(&stranger), None, "no way back from the direct range");
        assert_eq!(matcher.find(&from("10.0.0.1:8", "1.1.1.1:1")), Some(1));
        assert_eq!(matcher.find(&from("10.0.0.1:9", "1.1.1.1:1")), None, "nor from the range");
        assert_eq!(matcher.find(&from("11.0.0.1:7", "1.1.1.1:1")), Some(2));
    }
}
