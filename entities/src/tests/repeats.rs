//! A client that missed an answer sends its request again: it is done once (S-12.37).

use std::time::Duration;

use mainspring_core::entity::Sender;
use mainspring_core::message::Message;

use super::script::*;
use super::world::*;
use crate::Transition;

const A: &str = "@counter@a";

/// A world in which "g1" was done, and the entity has state.
fn ran() -> World {
    let mut world = World::new();
    assert!(world.signal(A, "g1", "add"));
    world.run(A, done(&[""], Some("1")));
    world
}

/// S-12.37: on its way, waiting, out, and done.
#[test]
fn a_repeated_request_is_done_once() {
    let mut world = World::new();
    assert!(world.send_signal(A, "g1", "add", None));
    assert!(!world.send_signal(A, "g1", "add", None));
    world.deliver_all();
    assert!(!world.signal(A, "g1", "add"));
    assert_eq!(world.leased(A), ["add"]);
    assert!(!world.signal(A, "g1", "add"));
    world.answer(A, done(&[""], Some("1")));
    assert!(!world.signal(A, "g1", "add"));
    assert_eq!(world.lease(A), None);
}

/// S-12.37: within a minute of its acceptance.
#[test]
fn a_request_is_recognised_for_a_minute() {
    let mut world = ran();
    world.advance(Duration::from_millis(59_999));
    world.forget(A);
    assert!(!world.signal(A, "g1", "add"));
    world.advance(Duration::from_millis(1));
    world.forget(A);
    assert!(world.signal(A, "g1", "add"));
    assert_eq!(world.leased(A), ["add"]);
}

/// S-12.37: what waits longer than a minute is still the same request.
#[test]
fn a_request_that_waits_is_recognised_until_it_is_done() {
    let mut world = World::new();
    world.signal(A, "g1", "add");
    world.advance(Duration::from_secs(3_600));
    world.deliver_all();
    world.forget(A);
    assert!(!world.signal(A, "g1", "add"));
    world.crash(A);
    assert!(!world.signal(A, "g1", "add"));
    assert_eq!(world.run(A, done(&[""], Some("1"))), ["add"]);
}

/// S-12.37: the mailbox remembers; no record is written for it.
#[test]
fn a_request_is_recognised_after_a_restart() {
    let mut world = ran();
    for _ in 0..2 {
        world.crash(A);
        assert!(!world.signal(A, "g1", "add"));
        assert_eq!(world.live(A).backlog(), 0);
        assert_eq!(world.lease(A), None);
    }
    world.advance(Duration::from_secs(60));
    world.forget(A);
    assert!(world.nodes[&entity(A)].mailbox.is_empty());
    world.crash(A);
    assert!(world.signal(A, "g1", "add"));
}

/// S-12.37: also of an entity that was deleted meanwhile, or never had state.
#[test]
fn a_request_is_recognised_although_its_entity_is_gone() {
    let mut world = World::new();
    world.signal(A, "g1", "delete");
    world.run(A, done(&[""], None));
    assert_eq!(world.view(A), None);
    world.crash(A);
    assert!(!world.signal(A, "g1", "delete"));
    world.advance(Duration::from_secs(60));
    world.forget(A);
    assert!(!world.is_known(A), "S-12.7");
}

/// Ids of different entities, of orchestrations and of entities are others.
#[test]
fn only_clients_requests_are_compared_and_only_at_one_entity() {
    let mut world = ran();
    assert!(world.signal("@counter@b", "g1", "add"));
    world.call(A, &generation("o", "x"), "g1", "call");
    world.call(A, &generation("o", "x"), "g1", "call");
    world.signal_from(A, &generation("o", "x"), "g1", "signal");
    let operation = world.operation("g1", "entity", Sender::Entity);
    world.bring(A, Message::Operation(Box::new(operation)));
    assert_eq!(world.leased(A), ["call", "call", "signal", "entity"]);
}

/// Requests without an id are never repetitions of each other.
#[test]
fn a_request_without_an_id_is_always_new() {
    let mut world = World::new();
    assert!(world.signal(A, "", "1") && world.signal(A, "", "2"));
    world.run(A, done(&["", ""], Some("s")));
    world.crash(A);
    assert!(world.signal(A, "", "3"));
    assert_eq!(world.leased(A), ["3"]);
}

/// S-12.51: recognised by the sender's own word for it.
#[test]
fn a_request_whose_id_is_no_guid_is_recognised_by_it() {
    let mut world = World::new();
    world.signal(A, "request 1", "add");
    assert!(!world.signal(A, "request 1", "add"));
    assert!(world.signal(A, "REQUEST 1", "add"));
}

/// S-12.37: at most 100,000; the oldest goes first, from memory and from the mailbox.
#[test]
fn a_hundred_thousand_requests_are_recognised() {
    const MOST: usize = 100_000;
    let mut world = World::new();
    world.limits.batch_operations_max = usize::MAX;
    world.limits.work_item_bytes_max = usize::MAX;
    let now = world.now;
    let limits = world.limits.clone();
    world.signal(A, "g", "first");
    let mut live = world.live(A).clone();
    let mut transition = Transition::default();
    for number in 0..MOST as u64 + 4 {
        let operation = world.operation(&format!("g{number}"), "add", Sender::Client);
        let position = mainspring_core::id::Position {
            commit: 10 + number,
            index: 0,
        };
        let message = Message::Operation(Box::new(operation));
        live.arrive(position, message, now, &mut transition);
    }
    let batch = live.next_batch(&limits).unwrap();
    assert_eq!(batch.positions.len(), MOST + 5);
    let results = vec![""; MOST + 5];
    let mut ids = Counter::default();
    let decided = live.complete(&batch, done(&results, Some("s")), &limits, now, &mut ids);
    let crate::Decision::Done(transition) = decided else {
        panic!("{decided:?}");
    };
    assert_eq!(transition.removed, batch.positions[..5]);
    for (request_id, is_new) in [("g", true), ("g3", true), ("g4", false), ("g100003", false)] {
        assert_eq!(live.accept(request_id), is_new, "{request_id}");
    }
    live.mark_head(&transition.removed);
    assert!(live.record.mailbox_head >= batch.positions[4]);
    assert!(live.record.mailbox_head < batch.positions[5]);
}

/// S-12.37, S-6.7: one that was kept aside is recognised once its time has come.
#[test]
fn a_delayed_request_is_recognised_when_it_has_come() {
    let mut world = World::new();
    let due = world.now.plus(Duration::from_secs(5));
    world.send_signal(A, "g1", "add", Some(due));
    world.advance(Duration::from_secs(5));
    world.deliver_all();
    assert!(!world.signal(A, "g1", "add"));
    assert_eq!(world.run(A, done(&[""], Some("1"))), ["add"]);
    assert!(!world.signal(A, "g1", "add"));
}
