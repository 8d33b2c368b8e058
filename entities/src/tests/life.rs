//! Beginning and end of entities, what operations send, and what clients see.

use std::time::Duration;

use mainspring_core::entity::{BatchResult, OperationAction, Sender};
use mainspring_core::message::Message;

use super::script::*;
use super::world::*;

const A: &str = "@counter@a";

/// One signal, answered like this.
fn ran(result: BatchResult) -> World {
    let mut world = World::new();
    world.signal(A, "g", "act");
    world.run(A, result);
    world
}

fn acting(actions: Vec<OperationAction>) -> BatchResult {
    BatchResult {
        actions,
        ..done(&[""], Some("s"))
    }
}

/// S-12.6: falsy texts are state.
#[test]
fn an_entity_exists_as_long_as_it_has_state_whatever_that_is() {
    for state in ["0", "false", "", "null"] {
        let mut world = ran(done(&[""], Some(state)));
        assert_eq!(world.state(A).as_deref(), Some(state));
        world.crash(A);
        assert_eq!(world.state(A).as_deref(), Some(state), "after a restart");
    }
    assert_eq!(ran(done(&[""], None)).view(A), None);
}

/// S-12.7, S-12.17.
#[test]
fn an_entity_without_anything_to_keep_is_forgotten() {
    let mut world = World::new();
    let caller = generation("o", "x");
    world.call(A, &caller, "g1", "set");
    world.run(A, done(&[""], Some("s")));
    assert!(world.is_known(A));
    world.call(A, &caller, "g2", "delete");
    world.run(A, done(&[""], None));
    assert!(!world.is_known(A));
    assert!(world.nodes[&entity(A)].mailbox.is_empty());
    world.crash(A);
    assert!(!world.is_known(A));
}

/// S-12.38: set when something was done, and it never runs backwards.
#[test]
fn the_time_of_the_last_change_is_that_of_the_last_batch() {
    let mut world = ran(done(&[""], Some("s")));
    let first = world.now;
    world.advance(Duration::from_secs(5));
    world.signal(A, "g2", "act");
    assert_eq!(world.view(A).unwrap().last_modified, first);
    world.run(A, done(&[""], Some("s")));
    assert_eq!(world.view(A).unwrap().last_modified, world.now);
    let latest = world.now;
    world.now = first;
    world.signal(A, "g3", "act");
    world.run(A, done(&[""], Some("t")));
    assert_eq!(world.view(A).unwrap().last_modified, latest);
}

/// A state that stays as it is need not be written again.
#[test]
fn an_unchanged_state_is_not_written() {
    let mut world = ran(done(&[""], Some("s")));
    for (state, is_changed) in [(Some("s"), false), (Some("t"), true), (None, true)] {
        world.signal(A, &format!("to {state:?}"), "act");
        let (now, limits) = (world.now, world.limits.clone());
        let mut ids = Counter::default();
        let mut live = world.live(A).clone();
        let batch = live.next_batch(&limits).unwrap();
        let decided = live.complete(&batch, done(&[""], state), &limits, now, &mut ids);
        let crate::Decision::Done(transition) = decided else {
            panic!("{decided:?}");
        };
        assert_eq!(transition.is_state_changed, is_changed, "{state:?}");
        assert!(transition.is_changed);
        world.run(A, done(&[""], state));
    }
}

/// S-12.18: in order, and behind the answers.
#[test]
fn actions_are_carried_out_in_order() {
    let mut world = World::new();
    world.call(A, &generation("o", "x"), "g", "act");
    let actions = vec![
        sends("@log@x", "1"),
        starts("b", "First"),
        sends("@log@x", "2"),
        sends(A, "own"),
        starts("c", "Second"),
        sends("@log@x", "3"),
    ];
    world.run(A, acting(actions));
    assert_eq!(world.leased("@log@x"), ["1", "2", "3"]);
    assert_eq!(world.leased(A), ["own"]);
    assert_eq!(
        said(&world.take_told()),
        ["o: g = ", "b: starts First", "c: starts Second"]
    );
}

/// S-12.18: also what an entity sends to itself stands in line, behind what waits.
#[test]
fn a_signal_to_the_entity_itself_waits_its_turn() {
    let mut world = World::new();
    world.signal(A, "g1", "first");
    assert_eq!(world.leased(A), ["first"]);
    world.signal(A, "g2", "waiting");
    world.answer(A, acting(vec![sends("@COUNTER@a", "own")]));
    world.deliver_all();
    assert_eq!(world.live(A).backlog(), 2);
    assert_eq!(world.leased(A), ["waiting", "own"]);
    assert_eq!(world.locked_by(A), None);
}

/// S-6.7, S-17.2: the newest state keeps running when the time comes, and in order of their times.
#[test]
fn delayed_signals_come_in_order_of_their_times() {
    let mut world = World::new();
    world.signal(A, "g", "act");
    let later = |name: &str, seconds| OperationAction::SendSignal {
        target: A.to_owned(),
        name: name.to_owned(),
        input: None,
        scheduled_at: Some(world.now.plus(Duration::from_secs(seconds))),
    };
    let past = OperationAction::SendSignal {
        target: A.to_owned(),
        name: "past".to_owned(),
        input: None,
        scheduled_at: Some(world.now),
    };
    let actions = vec![
        later("third", 9),
        later("first", 5),
        past,
        later("second", 5),
    ];
    world.run(A, acting(actions));
    assert_eq!(world.run(A, done(&[""], None)), ["past"]);
    assert_eq!(world.view(A), None, "S-6.7: they do not keep it existing");
    world.crash(A);
    world.advance(Duration::from_secs(20));
    world.deliver_all();
    assert_eq!(world.leased(A), ["first", "second", "third"]);
}

/// S-12.1, S-4.18: illegal targets are nobody; the others count.
#[test]
fn what_is_sent_to_nobody_is_dropped() {
    let long = "x".repeat(101);
    let actions = vec![
        sends("counter", "x"),
        sends("@counter", "x"),
        sends("@@key", "x"),
        sends("", "x"),
        starts("@counter@b", "Main"),
        starts(&long, "Main"),
        starts("a", ""),
        starts("fine", "Main"),
    ];
    let mut world = ran(acting(actions));
    assert_eq!(said(&world.take_told()), ["fine: starts Main"]);
    assert_eq!(world.nodes.len(), 1);
}

/// S-12.2.
#[test]
fn names_of_targets_lose_their_case_and_keys_keep_it() {
    let mut world = ran(acting(vec![sends("@LoG@Key", "write")]));
    assert_eq!(world.leased("@log@Key"), ["write"]);
    assert!(!world.is_known("@log@key"));
}

/// S-10.7, S-6.8: what a started instance begins with.
#[test]
fn an_orchestration_is_started_with_all_that_the_action_says() {
    let trace = mainspring_core::message::TraceContext {
        trace_parent: "00-a-b-01".to_owned(),
        ..Default::default()
    };
    let mut world = World::new();
    let due = world.now.plus(Duration::from_secs(60));
    world.signal(A, "g", "act");
    let action = OperationAction::StartOrchestration {
        instance: "report".to_owned(),
        name: "Report".to_owned(),
        version: Some("2".to_owned()),
        input: Some("7".to_owned()),
        scheduled_at: Some(due),
        trace: Some(trace.clone()),
    };
    world.run(A, acting(vec![action]));
    let told = world.take_told();
    let [(_, Message::StartFromEntity(new))] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(new.version.as_deref(), Some("2"));
    assert_eq!(new.input.as_deref(), Some("7"));
    assert_eq!(new.scheduled_start_at, Some(due));
    assert_eq!(new.trace, Some(trace));
    assert!(new.tags.is_empty() && new.parent.is_none() && new.execution_id.is_none());
}

/// S-12.11, S-12.51: to workers every request is a GUID; its sender hears its own word.
#[test]
fn a_request_is_answered_under_the_name_its_sender_gave_it() {
    let mut world = World::new();
    let caller = generation("o", "x");
    world.call(A, &caller, "no guid", "get");
    world.call(A, &caller, "", "get");
    let operations = world.lease(A).unwrap();
    let shown: Vec<_> = operations.iter().map(|o| o.shown_request_id()).collect();
    assert!(shown.iter().all(|id| id.len() == 36), "{shown:?}");
    world.answer(A, done(&["1", "2"], None));
    assert_eq!(said(&world.take_told()), ["o: no guid = 1", "o:  = 2"]);
}

/// S-11.23.
#[test]
fn a_purge_drops_state_and_waiting_signals() {
    let mut world = ran(done(&[""], Some("s")));
    world.signal(A, "g2", "waiting");
    let sender = generation("o", "x");
    world.signal_from(A, &sender, "g3", "waiting");
    let now = world.now;
    let transition = world.live(A).purge(now).unwrap();
    assert!(transition.is_state_changed);
    world.turn(&entity(A), transition);
    assert_eq!(world.view(A), None);
    assert_eq!((world.lease(A), world.live(A).queue_len()), (None, 0));
    assert!(!world.signal(A, "g2", "again"), "S-12.37");
    world.crash(A);
    assert_eq!((world.state(A), world.lease(A)), (None, None));
    world.advance(Duration::from_secs(61));
    world.forget(A);
    assert!(!world.is_known(A));
}

/// S-11.23: nobody who waits is forgotten.
#[test]
fn an_entity_that_is_locked_or_called_is_not_purged() {
    let holder = generation("o", "x");
    let refused = |world: &mut World| {
        let before = world.live(A).clone();
        let now = world.now;
        assert_eq!(world.live(A).purge(now), None);
        assert_eq!(world.live(A), &before);
    };
    let mut world = ran(done(&[""], Some("s")));
    world.lock(&holder, "cs", &[A]);
    refused(&mut world);
    world.lock(&generation("p", "x"), "cs2", &[A]);
    world.unlock(&holder, "cs", A);
    refused(&mut world);
    world.unlock(&generation("p", "x"), "cs2", A);
    world.call(A, &holder, "g2", "get");
    refused(&mut world);
    world.run(A, done(&[""], Some("s")));
    // A request for a lock that waits for the batch that is out.
    world.signal(A, "g3", "act");
    world.leased(A);
    world.lock(&holder, "cs3", &[A]);
    refused(&mut world);
}

/// Another entity's signal is its own.
#[test]
fn a_signal_among_entities_has_the_sender_entity() {
    let mut world = ran(acting(vec![sends("@log@x", "write")]));
    let operations = world.lease("@log@x").unwrap();
    assert_eq!(operations[0].sender, Sender::Entity);
    assert_eq!(operations[0].at, world.now);
}
