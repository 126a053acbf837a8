//! Whatever a control plane sends, a conversion ends with a value or with reasons.

use std::sync::LazyLock;

use outrigger_proto::any;
use outrigger_proto::envoy::config::bootstrap::v3::Bootstrap;
use outrigger_proto::envoy::config::cluster::v3::Cluster;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use outrigger_proto::envoy::config::route::v3::RouteConfiguration;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use proptest::prelude::*;
use prost::Message;

use super::super::format;
use super::harness::{SCHEMA, base};
use crate::config;
use crate::config::access_log::FormatPart;

static BASE: LazyLock<Bootstrap> =
    LazyLock::new(|| SCHEMA.read_value(base(), true).expect("the base is a bootstrap"));

/// One change to encoded bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = 0..20_000_usize;
    let change = prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => at.clone().prop_map(Change::Remove),
        1 => at.prop_map(Change::Cut),
    ];
    prop::collection::vec(change, 1..8)
}

fn apply(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            return bytes;
        }
        match change {
            Change::Set(at, byte) => bytes[at % length] = *byte,
            Change::Insert(at, byte) => bytes.insert(at % length, *byte),
            Change::Remove(at) => drop(bytes.remove(at % length)),
            Change::Cut(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

/// Decodes changed bytes and, if they decode, converts them. A refusal has to give a reason.
fn survives<M: Message + Default, T>(
    message: &M,
    changes: &[Change],
    convert: impl Fn(M) -> Result<T, Vec<config::Rejected>>,
) -> Result<(), TestCaseError> {
    let bytes = apply(&message.encode_to_vec(), changes);
    if let Ok(message) = M::decode(bytes.as_slice())
        && let Err(problems) = convert(message)
    {
        prop_assert!(!problems.is_empty());
        prop_assert!(problems.iter().all(|problem| !problem.reason.is_empty()));
    }
    Ok(())
}

fn manager() -> (HttpConnectionManager, RouteConfiguration) {
    let listener = &BASE.static_resources.as_ref().expect("resources").listeners[0];
    let config = &listener.filter_chains[0].filters[0].config_type;
    let Some(filter::ConfigType::TypedConfig(config)) = config else { panic!("typed") };
    let manager: HttpConnectionManager = any::unpack(config).expect("a manager");
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier.clone() else {
        panic!("inline routes")
    };
    (manager, routes)
}

/// A listener with one connection manager, to change what is inside an `Any`.
fn listener_of(manager: &HttpConnectionManager) -> Listener {
    let mut listener = BASE.static_resources.as_ref().expect("resources").listeners[0].clone();
    let config_type = Some(filter::ConfigType::TypedConfig(any::pack(manager)));
    let filters = vec![Filter { name: "http".to_owned(), config_type }];
    listener.filter_chains = vec![FilterChain { filters, ..FilterChain::default() }];
    listener
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bootstrap_makes_the_conversion_panic(changes in changes()) {
        survives(&*BASE, &changes, config::bootstrap::from_proto)?;
    }

    #[test]
    fn no_listener_makes_the_conversion_panic(changes in changes(), which in 0..2_usize) {
        let listener: Listener = BASE.static_resources.clone().unwrap_or_default().listeners[which].clone();
        survives(&listener, &changes, config::listener::from_proto)?;
    }

    #[test]
    fn no_connection_manager_makes_the_conversion_panic(changes in changes()) {
        survives(&manager().0, &changes, |manager| config::listener::from_proto(listener_of(&manager)))?;
    }

    #[test]
    fn no_route_configuration_makes_the_conversion_panic(changes in changes()) {
        survives(&manager().1, &changes, config::route::from_proto)?;
    }

    #[test]
    fn no_cluster_makes_the_conversion_panic(changes in changes(), which in 0..2_usize) {
        let cluster: Cluster = BASE.static_resources.clone().unwrap_or_default().clusters[which].clone();
        survives(&cluster, &changes, config::cluster::from_proto)?;
    }

    #[test]
    fn no_load_assignment_makes_the_conversion_panic(changes in changes()) {
        let cluster = BASE.static_resources.clone().unwrap_or_default().clusters[0].clone();
        let assignment: ClusterLoadAssignment = cluster.load_assignment.unwrap_or_default();
        survives(&assignment, &changes, config::endpoint::from_proto)?;
    }

    #[test]
    fn no_secret_makes_the_conversion_panic(changes in changes(), which in 0..2_usize) {
        let secret: Secret = BASE.static_resources.clone().unwrap_or_default().secrets[which].clone();
        survives(&secret, &changes, config::secret::from_proto)?;
    }

    #[test]
    fn no_format_string_makes_its_parser_panic(text in "[%()?:A-Z0-9é\n ]{0,40}") {
        let _ = format::parse(&text);
    }

    #[test]
    fn a_format_string_without_percent_signs_is_itself(text in "[^%]{1,40}") {
        let format = format::parse(&text).expect("parses");
        let [FormatPart::Literal(literal)] = &*format.parts else { panic!("{format:?}") };
        prop_assert_eq!(&**literal, text);
    }
}
