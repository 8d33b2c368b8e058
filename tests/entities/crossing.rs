//! Lock sets that cross never wait for each other in a circle, in whatever order and spelling they are sent (S-12.26).

use std::sync::Arc;
use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::{
    EntityBatchResult, EntityRequest, OrchestrationStatus, OrchestratorAction, OrchestratorRequest,
};
use mainspring_tests::action::{complete, lock, unlock};
use mainspring_tests::entity::{batch_result, operations, success};
use mainspring_tests::{Chance, Conduct, Crew, Episode, Peer, Run, Scheduler, WorkStream};

use crate::hands::{ends_as, orchestrations, stage, start};

const SEED: u64 = 26;

/// By (name, key), "a" comes before all that begins with "a"; by the whole string, "@a!b@x" comes before "@a@x".
const ENTITIES: [&str; 7] = [
    "@a@x", "@a!b@x", "@a#@x", "@a-1@x", "@a@", "@a@X", "@b.c@@x",
];

const ORCHESTRATIONS: usize = 40;

const SECTIONS: usize = 3;

/// Orchestrators that enter section after section, and entities that count visits.
struct Crossing;

/// The lock set of a section: any entities in any order, some twice, some in capitals.
fn lock_set(chance: &mut Chance) -> Vec<String> {
    let mut set: Vec<&str> = ENTITIES.to_vec();
    chance.shuffle(&mut set);
    set.truncate(2 + chance.below(3));
    for _ in 0..chance.below(3) {
        let copy = *chance.pick(&set);
        set.push(copy);
    }
    let spell = |entity: &str| match chance.below(3) {
        // Case counts in keys and not in names (S-12.2).
        0 => entity.replacen("@a", "@A", 1),
        _ => entity.to_owned(),
    };
    set.into_iter().map(spell).collect()
}

/// What is locked by a set, each once.
fn distinct(set: &[String]) -> Vec<&'static str> {
    let is_in = |entity: &&&str| set.iter().any(|id| id.replacen("@A", "@a", 1) == **entity);
    ENTITIES.iter().filter(is_in).copied().collect()
}

impl Crossing {
    fn cross(run: &mut Run) -> Option<()> {
        let mut chance = Chance::seeded(run.input().parse().ok()?);
        for _ in 0..SECTIONS {
            let set = lock_set(&mut chance);
            let names: Vec<&str> = set.iter().map(String::as_str).collect();
            let section = run.lock(&names)?;
            let held = distinct(&set);
            let calls: Vec<_> = held
                .iter()
                .map(|entity| run.begin_call(entity, "visit", ""))
                .collect();
            for call in calls {
                run.outcome(&call)?.ok()?;
            }
            // Java gives back what it named, duplicates too.
            for name in names {
                run.unlock(&section, name);
            }
        }
        Some(())
    }
}

impl Conduct for Crossing {
    fn decide(&self, request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
        let mut run = Run::new(request);
        assert_eq!(run.doubled(), [""; 0], "one grant for each section");
        if Self::cross(&mut run).is_some() {
            run.complete("\"crossed\"");
        }
        run.into_actions()
    }

    fn execute(&self, request: &EntityRequest) -> EntityBatchResult {
        let state = request.entity_state.as_deref();
        let before: usize = state.map_or(0, |text| text.parse().unwrap());
        let count = operations(request).len();
        let results = (1..=count)
            .map(|visit| success(&(before + visit).to_string()))
            .collect();
        batch_result(request, results, Some(&(before + count).to_string()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_lock_sets_with_duplicates_and_in_any_order_all_come_through() {
    let mut chance = Chance::new(SEED);
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut visits = [0; ENTITIES.len()];
    let mut ids = Vec::new();
    for number in 0..ORCHESTRATIONS {
        let seed = chance.number() >> 1;
        let mut sets = Chance::seeded(seed);
        for _ in 0..SECTIONS {
            for entity in distinct(&lock_set(&mut sets)) {
                let at = ENTITIES.iter().position(|known| *known == entity).unwrap();
                visits[at] += 1;
            }
        }
        let request = mainspring_proto::CreateInstanceRequest {
            name: "cross".to_owned(),
            instance_id: format!("o{number}"),
            input: Some(seed.to_string()),
            ..Default::default()
        };
        ids.push(peer.create(request).await.unwrap());
    }
    let crew = Crew::start(scheduler.address(), Arc::new(Crossing), chance.clone());
    for id in &ids {
        crew.check();
        ends_as(&peer, id, OrchestrationStatus::Completed).await;
    }
    for (entity, visits) in ENTITIES.iter().zip(visits) {
        let found = peer.find_entity(entity).await.unwrap();
        assert_eq!(
            found.serialized_state,
            Some(visits.to_string()),
            "{entity}: nothing is lost or done twice"
        );
        assert_eq!(found.locked_by, None, "{entity}");
    }
}

/// Starts an orchestration that asks for a set at once.
async fn ask(peer: &Peer, stream: &mut WorkStream, id: &str, section: &str, set: &[&str]) {
    start(peer, id).await;
    let episode = stream.episode().await;
    assert_eq!(episode.request.instance_id, id);
    peer.answer(&episode, vec![lock(1, id, section, set)]).await;
}

/// The next episode, which has to be the one in which this orchestration enters this section.
async fn granted(stream: &mut WorkStream, id: &str, section: &str) -> Episode {
    let episode = stream.episode().await;
    assert_eq!(episode.request.instance_id, id);
    assert_eq!(
        episode.new_kinds(),
        ["OrchestratorStarted", "EntityLockGranted"]
    );
    let Some(EventType::EntityLockGranted(granted)) = &episode.request.new_events[1].event_type
    else {
        unreachable!("its kind was compared");
    };
    assert_eq!(granted.critical_section_id, section);
    episode
}

#[tokio::test]
async fn locks_are_taken_by_name_and_key_whatever_the_order_they_are_sent_in() {
    // S-12.26, S-12.27: with "@a@x" taken, nothing else of its set is, for "@a@x" comes first: by the whole string, in
    // which JavaScript sorts, "@a!b@x" would.
    let (_scheduler, peer, mut stream, _entities) = stage().await;
    ask(&peer, &mut stream, "first", "s1", &["@a@x"]).await;
    let first = granted(&mut stream, "first", "s1").await;
    ask(
        &peer,
        &mut stream,
        "second",
        "s2",
        &["@a!b@x", "@A@x", "@a!b@x"],
    )
    .await;
    ask(&peer, &mut stream, "third", "s3", &["@a!b@x"]).await;
    let third = granted(&mut stream, "third", "s3").await;

    stream.nothing_for(Duration::from_millis(100)).await;
    let give_back = vec![unlock(2, "first", "s1", "@a@x"), complete(3, "1")];
    peer.answer(&first, give_back).await;
    stream.nothing_for(Duration::from_millis(100)).await;
    let give_back = vec![unlock(2, "third", "s3", "@a!b@x"), complete(3, "1")];
    peer.answer(&third, give_back).await;
    let second = granted(&mut stream, "second", "s2").await;
    peer.answer(&second, vec![complete(2, "1")]).await;
    ends_as(&peer, "second", OrchestrationStatus::Completed).await;
}

#[tokio::test]
async fn two_sections_that_name_each_others_first_entity_first_take_turns() {
    // The classic circle: one asks for (a, b), the other for (b, a).
    let (_scheduler, peer, mut stream, _entities) = stage().await;
    let mut other = orchestrations(&peer).await;
    for round in 0..10 {
        let ids = [format!("one{round}"), format!("two{round}")];
        for id in &ids {
            start(&peer, id).await;
        }
        // Whichever stream an episode comes on, both have asked before either goes on.
        let (mut asked, mut ended) = (0, 0);
        while ended < 2 {
            let episode = tokio::select! {
                episode = stream.episode() => episode,
                episode = other.episode() => episode,
            };
            let id = episode.request.instance_id.clone();
            let set = if id == ids[0] {
                ["@a@x", "@b@x"]
            } else {
                ["@b@x", "@a@x"]
            };
            let is_first = episode.new_kinds().contains(&"ExecutionStarted".to_owned());
            let actions = if is_first {
                asked += 1;
                vec![lock(1, &id, &id, &set)]
            } else {
                ended += 1;
                vec![
                    unlock(2, &id, &id, set[0]),
                    unlock(3, &id, &id, set[1]),
                    complete(4, "1"),
                ]
            };
            peer.answer(&episode, actions).await;
        }
        assert_eq!(asked, 2);
        for id in &ids {
            ends_as(&peer, id, OrchestrationStatus::Completed).await;
        }
    }
}
