//! Layers of the runtime that are discovered (RTDS).

use outrigger_proto::envoy::service::runtime::v3::Runtime;

use super::*;
use crate::config::runtime::{LayerSource, RuntimeLayer};

fn layer(yaml: &str) -> Any {
    pack(&testing::read::<Runtime>(&format!("{{name: dynamic, layer: {yaml}}}")))
}

fn world(wait: Option<Duration>) -> World {
    let mut bootstrap = World::bootstrap();
    bootstrap.runtime = vec![RuntimeLayer {
        name: "any".into(),
        source: LayerSource::Rtds { name: "dynamic".into(), source: ads(wait) },
    }];
    let mut world = World::of(&bootstrap);
    world.answer(Kind::Cluster, "1", vec![]);
    world
}

#[test]
fn layers_come_after_clusters_and_before_listeners() {
    let mut world = world(None);
    assert_eq!(world.discovery.phase(), Phase::Runtime);
    let kinds: Vec<Kind> = world.sent().into_iter().map(|(kind, ..)| kind).collect();
    assert!(kinds.contains(&Kind::Runtime) && !kinds.contains(&Kind::Listener), "{kinds:?}");
    world.answer(Kind::Runtime, "1", vec![layer("{a: 1}")]);
    assert_eq!(world.effects(), ["+runtime layer dynamic"]);
    assert_eq!(world.discovery.phase(), Phase::Listeners);
    assert!(world.sent().iter().any(|(kind, ..)| *kind == Kind::Listener));
    world.answer(Kind::Runtime, "2", vec![layer("{a: 2}")]);
    assert_eq!(world.effects(), ["+runtime layer dynamic"]);
}

#[test]
fn one_that_does_not_come_in_time_is_empty() {
    let mut world = world(Some(Duration::from_secs(15)));
    assert_eq!(world.discovery.deadline(), Some(world.now + Duration::from_secs(15)));
    world.now += Duration::from_secs(15);
    world.discovery.on_time(&mut world.recorder, world.now);
    assert_eq!(world.discovery.phase(), Phase::Listeners);
}

#[test]
fn one_with_a_value_that_can_be_none_is_refused_by_its_key() {
    let mut world = world(None);
    world.sent();
    world.answer(Kind::Runtime, "1", vec![layer("{a: {b: [1]}}")]);
    let error = world.sent().into_iter().find_map(|(.., error)| error).unwrap();
    assert!(error.contains("runtime layer \"dynamic\": layer[a.b]: "), "{error}");
    assert_eq!(world.discovery.phase(), Phase::Listeners, "the wait is over");
}
