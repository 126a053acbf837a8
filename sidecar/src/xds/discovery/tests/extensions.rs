//! Discovered configuration of filters (ECDS).

use super::*;

/// A listener of one filter that is discovered.
fn listener(more: &str) -> Any {
    pack(&testing::read::<outrigger_proto::envoy::config::listener::v3::Listener>(&format!(
        r#"
name: web
address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: web
      route_config: {{name: r, virtual_hosts: []}}
      http_filters:
      - name: limit
        config_discovery:
          config_source: {{ads: {{}}, resource_api_version: V3}}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer]
          {more}
      - name: router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )))
}

const DEFAULT: &str = r#"default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 5}"#;

fn extension(config: &str) -> Any {
    pack(&testing::read::<outrigger_proto::envoy::config::core::v3::TypedExtensionConfig>(
        &format!("{{name: limit, typed_config: {config}}}"),
    ))
}

fn buffer(bytes: u32) -> Any {
    extension(&format!(
        r#"{{"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: {bytes}}}"#
    ))
}

/// With the listener accepted, and what was sent so far left out.
fn world(more: &str) -> World {
    let mut world = World::new();
    world.answer(Kind::Cluster, "1", vec![]);
    world.answer(Kind::Listener, "1", vec![listener(more)]);
    world
}

#[test]
fn a_listener_waits_for_the_configuration_of_its_filters() {
    let mut world = world("");
    assert_eq!(world.effects(), [""; 0]);
    let asked = (Kind::Extension, vec!["limit".to_owned()], String::new(), None);
    assert!(world.sent().contains(&asked));
    world.answer(Kind::Extension, "1", vec![buffer(1)]);
    assert_eq!(world.effects(), ["+extension configuration limit", "+listener web"]);
    world.answer(Kind::Extension, "2", vec![buffer(2)]);
    assert_eq!(world.effects(), ["+extension configuration limit"], "the listener stays");
}

#[test]
fn a_listener_with_a_default_waits_all_the_same_unless_it_says_that_it_need_not() {
    assert_eq!(world(DEFAULT).effects(), [""; 0]);
    let mut world =
        world(&format!("{DEFAULT}\n          apply_default_config_without_warming: true"));
    assert_eq!(world.effects(), ["+listener web"]);
    world.answer(Kind::Extension, "1", vec![buffer(1)]);
    assert_eq!(world.effects(), ["+extension configuration limit"]);
}

#[test]
fn one_of_another_type_is_refused_and_ends_the_wait() {
    let mut world = world("");
    world.sent();
    let cors = r#"{"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}"#;
    world.answer(Kind::Extension, "1", vec![extension(cors)]);
    assert_eq!(world.effects(), ["+listener web"]);
    let error = world.sent().into_iter().find_map(|(.., error)| error).unwrap();
    for part in ["extension configuration \"limit\"", "typed_config", "cors.v3.Cors", "\"web\""] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn one_that_does_not_come_in_time_ends_the_wait() {
    let mut world = world("");
    world.now += Duration::from_secs(15);
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.effects(), ["+listener web"]);
}

#[test]
fn it_is_forgotten_when_no_listener_uses_it() {
    let mut world = world("");
    world.answer(Kind::Extension, "1", vec![buffer(1)]);
    world.effects();
    world.answer(Kind::Listener, "2", vec![]);
    assert_eq!(world.effects(), ["-listener web", "-extension configuration limit"]);
    assert!(!world.discovery.resources().is_accepted(Kind::Extension, "limit"));
}
