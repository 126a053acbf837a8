//! Whatever happens on the way, a client ends with what it asked for.

use super::*;
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    /// The resource has this content, or is gone.
    World(usize, Option<u8>),
    Subscribe(usize),
    Unsubscribe(usize),
    Wildcard(bool),
    /// The client takes what comes, and answers it or not.
    Receive(bool),
    /// The client refuses what comes.
    Reject,
    /// What there is under this name is not known.
    Hold(usize),
    /// Time passes, in tenths of a second.
    Wait(u8),
    /// The stream breaks and comes again.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES.len();
    let step = prop_oneof![
        4 => (name.clone(), proptest::option::weighted(0.7, 0_u8..3))
            .prop_map(|(name, content)| Step::World(name, content)),
        2 => name.clone().prop_map(Step::Subscribe),
        1 => name.prop_map(Step::Unsubscribe),
        1 => any::<bool>().prop_map(Step::Wildcard),
        3 => any::<bool>().prop_map(Step::Receive),
        1 => (0_u8..15).prop_map(Step::Wait),
        1 => Just(Step::Reject),
        1 => (0..NAMES.len()).prop_map(Step::Hold),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What a client asked for.
#[derive(Default)]
struct Interest {
    names: std::collections::BTreeSet<&'static str>,
    wildcard: bool,
}

impl Interest {
    fn wanted(&self, world: &World, kind: ResourceType) -> BTreeMap<String, String> {
        let all = world.contents.iter().filter(|((of, _), _)| *of == kind);
        let all = all.map(|((_, name), content)| (name.clone(), content.clone()));
        all.filter(|(name, _)| self.wildcard || self.names.contains(name.as_str())).collect()
    }
}

fn hold(world: &mut World, kind: ResourceType, name: usize) {
    world.remove(kind, NAMES[name]);
    world.held.insert(NAMES[name].into());
}

/// Everything is known, and new: what was rejected is sent again.
fn settle(world: &mut World) {
    world.held.clear();
    world.contents.values_mut().for_each(|content| content.push_str(" at last"));
}

fn change(world: &mut World, kind: ResourceType, name: usize, content: Option<u8>) {
    world.held.remove(NAMES[name]);
    match content {
        Some(content) => world.set(kind, NAMES[name], &content.to_string()),
        None => world.remove(kind, NAMES[name]),
    }
}

/// A delta client ends with exactly what it asked for and exists, however it came there.
fn delta_converges(kind: ResourceType, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::of(kind, &["a", "b"]);
    let mut client = DeltaClient::new(&mut world);
    // An empty name: explicit, and nothing.
    client.request(kind, &[""], &[]);
    let mut interest = Interest::default();
    let mut has: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut unanswered = Vec::new();
    let take = |has: &mut BTreeMap<String, (String, String)>, got: &DeltaGot| {
        for (name, content) in &got.resources {
            has.insert(name.clone(), (content.clone(), got.versions[name].clone()));
        }
        got.removed.iter().for_each(|name| drop(has.remove(name)));
    };
    for step in steps {
        match step {
            Step::World(name, content) => {
                change(&mut world, kind, name, content);
                client.push(&mut world);
            }
            Step::Subscribe(name) => {
                interest.names.insert(NAMES[name]);
                client.request(kind, &[NAMES[name]], &[]);
            }
            Step::Unsubscribe(name) => {
                if interest.names.remove(NAMES[name]) && !interest.wildcard {
                    has.remove(NAMES[name]);
                }
                client.request(kind, &[], &[NAMES[name]]);
            }
            Step::Wildcard(_) if !kind.is_full_state() => {}
            Step::Wildcard(true) => {
                interest.wildcard = true;
                client.request(kind, &["*"], &[]);
            }
            Step::Wildcard(false) => {
                interest.wildcard = false;
                has.retain(|name, _| interest.names.contains(name.as_str()));
                client.request(kind, &[], &["*"]);
            }
            Step::Receive(answer) => {
                if let Some(got) = client.receive() {
                    take(&mut has, &got);
                    if answer {
                        client.ack(&got);
                    } else {
                        unanswered.push(got);
                    }
                }
            }
            Step::Reject => {
                if let Some(got) = client.receive() {
                    // A client that refuses to let go of something would be right to be reported for ever.
                    if got.resources.is_empty() {
                        take(&mut has, &got);
                        client.ack(&got);
                    } else {
                        client.send(kind, &[], &[], &got.nonce, rejection("no"));
                    }
                }
            }
            Step::Hold(name) => {
                hold(&mut world, kind, name);
                client.push(&mut world);
            }
            Step::Wait(tenths) => {
                client.now += Duration::from_millis(100 * u64::from(tenths));
            }
            Step::Reconnect => {
                client = DeltaClient::new(&mut world);
                unanswered.clear();
                let mut names: Vec<&str> = interest.names.iter().copied().collect();
                names.push(if interest.wildcard { "*" } else { "" });
                let versions =
                    has.iter().map(|(name, (_, version))| (name.clone(), version.clone()));
                client.reconnect(kind, &names, &versions.collect());
            }
        }
    }
    unanswered.iter().for_each(|got| client.ack(got));
    settle(&mut world);
    client.push(&mut world);
    let mut responses = 0;
    loop {
        while let Some(got) = client.receive() {
            take(&mut has, &got);
            client.ack(&got);
            responses += 1;
            // One after what was on its way, one for names and one for removals.
            prop_assert!(responses <= 4, "more responses than necessary");
        }
        match client.stream.wake_at(client.now) {
            Some(at) => client.now = at,
            None => break,
        }
    }
    // What was in flight for a name that was unsubscribed meanwhile is the client's to ignore.
    has.retain(|name, _| interest.wildcard || interest.names.contains(name.as_str()));
    let has: BTreeMap<String, String> =
        has.into_iter().map(|(name, (content, _))| (name, content)).collect();
    prop_assert_eq!(has, interest.wanted(&world, kind));
    prop_assert_eq!(client.stream.standing(kind), Standing::Ok);
    prop_assert_eq!(client.stream.revision(), world.revision);
    Ok(())
}

/// The same of a state-of-the-world client; of the types that are sent in parts it may keep what is gone.
fn sotw_converges(kind: ResourceType, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::of(kind, &["a", "b"]);
    let mut client = SotwClient::new(&mut world);
    let mut interest = Interest::default();
    let mut has: BTreeMap<String, String> = BTreeMap::new();
    let mut unanswered = Vec::new();
    let list = |interest: &Interest| {
        let mut names: Vec<&'static str> = interest.names.iter().copied().collect();
        // An empty list would be a wildcard to begin with.
        names.push(if interest.wildcard { "*" } else { "" });
        names
    };
    let take = |has: &mut BTreeMap<String, String>, got: &Got| {
        if kind.is_full_state() {
            has.clear();
        }
        has.extend(got.names.iter().cloned().zip(got.contents.iter().cloned()));
    };
    client.subscribe(kind, &list(&interest));
    for step in steps {
        match step {
            Step::World(name, content) => {
                change(&mut world, kind, name, content);
                client.push(&mut world);
                continue;
            }
            Step::Subscribe(name) => drop(interest.names.insert(NAMES[name])),
            Step::Unsubscribe(name) => drop(interest.names.remove(NAMES[name])),
            Step::Wildcard(wildcard) => interest.wildcard = wildcard && kind.is_full_state(),
            Step::Receive(answer) => {
                if let Some(got) = client.receive() {
                    take(&mut has, &got);
                    if answer {
                        client.ack(&got, &list(&interest));
                    } else {
                        unanswered.push(got);
                    }
                }
                continue;
            }
            Step::Reject => {
                if let Some(got) = client.receive() {
                    if got.names.is_empty() {
                        take(&mut has, &got);
                        client.ack(&got, &list(&interest));
                    } else {
                        client.nack(&got, &list(&interest), "no");
                    }
                }
                continue;
            }
            Step::Hold(name) => {
                // Only endpoints are ever held, and they are sent in parts.
                if !kind.is_full_state() {
                    hold(&mut world, kind, name);
                    client.push(&mut world);
                }
                continue;
            }
            Step::Wait(tenths) => {
                client.now += Duration::from_millis(100 * u64::from(tenths));
                continue;
            }
            Step::Reconnect => {
                let versions = client.versions.clone();
                client = SotwClient::new(&mut world);
                client.versions = versions;
                unanswered.clear();
            }
        }
        client.subscribe(kind, &list(&interest));
    }
    unanswered.iter().for_each(|got| client.ack(got, &list(&interest)));
    settle(&mut world);
    client.push(&mut world);
    let mut responses = 0;
    loop {
        while let Some(got) = client.receive() {
            take(&mut has, &got);
            client.ack(&got, &list(&interest));
            responses += 1;
            prop_assert!(responses <= 4, "more responses than necessary");
        }
        match client.stream.wake_at(client.now) {
            Some(at) => client.now = at,
            None => break,
        }
    }
    let wanted = interest.wanted(&world, kind);
    has.retain(|name, _| wanted.contains_key(name));
    prop_assert_eq!(has, wanted);
    prop_assert_eq!(client.stream.standing(kind), Standing::Ok);
    prop_assert_eq!(client.stream.revision(), world.revision);
    Ok(())
}

proptest! {
    #[test]
    fn a_delta_client_ends_with_what_it_asked_for(steps in steps(), full in any::<bool>()) {
        delta_converges(if full { Cluster } else { Endpoint }, steps)?;
    }

    #[test]
    fn a_state_of_the_world_client_ends_with_what_it_asked_for(
        steps in steps(),
        full in any::<bool>(),
    ) {
        sotw_converges(if full { Listener } else { Route }, steps)?;
    }
}
