//! The worked examples, S-12.41 to S-12.49, as far as they are an entity's.

use std::time::Duration;

use mainspring_core::entity::{BatchResult, OperationOutcome, Sender};
use mainspring_core::message::{Fence, Message};

use super::script::*;
use super::world::*;

const A: &str = "@counter@a";
const G1: &str = "00000000-0000-0000-0000-0000000000a1";

/// S-12.41.
#[test]
fn a_clients_signal_creates_the_entity() {
    let mut world = World::new();
    assert_eq!(world.view(A), None);
    assert!(world.signal(A, G1, "add"));
    assert_eq!(world.view(A), None, "it has no state yet");
    assert_eq!(world.live(A).backlog(), 1);
    let operations = world.lease(A).unwrap();
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].shown_request_id(), G1);
    assert_eq!(operations[0].name, "add");
    assert!(!operations[0].is_call());
    assert_eq!(world.live(A).state, None);
    assert!(world.answer(A, done(&["nothing"], Some("5"))));
    let view = world.view(A).unwrap();
    assert_eq!(view.state.as_deref(), Some("5"));
    assert_eq!((view.backlog, view.locked_by), (0, None));
    assert_eq!(view.last_modified, world.now);
    assert_eq!(world.lease(A), None);
    assert!(world.take_told().is_empty(), "a signal has no answer");
}

/// S-12.42: the answer names the request, and is fenced by generation and scheduling.
#[test]
fn a_call_is_answered_to_its_caller() {
    let mut world = World::new();
    let caller = generation("o", "x1");
    world.signal(A, G1, "add");
    world.run(A, done(&["nothing"], Some("5")));
    world.call(A, &caller, "g2", "get");
    let operations = world.lease(A).unwrap();
    let sender = &operations[0].sender;
    assert!(
        matches!(sender, Sender::Call { caller: c, .. } if *c == caller),
        "{sender:?}"
    );
    world.answer(A, done(&["5"], Some("5")));
    let told = world.take_told();
    let expected = Message::EntityCompleted {
        fence: Fence {
            execution_id: caller.execution_id,
            scheduling: 7,
        },
        request_id: "g2".to_owned(),
        result: Some("5".to_owned()),
        at: world.now,
    };
    assert_eq!(told, [(caller.instance, expected)]);
    assert_eq!(world.state(A).as_deref(), Some("5"));
}

/// S-12.43: one batch, answers by position.
#[test]
fn a_failing_call_is_told_and_its_neighbours_count() {
    let mut world = World::new();
    let caller = generation("o", "x1");
    world.signal(A, G1, "add");
    world.run(A, done(&["nothing"], Some("5")));
    for (request_id, name) in [("g3", "set"), ("g4", "boom"), ("g5", "get")] {
        world.call(A, &caller, request_id, name);
    }
    let result = BatchResult {
        outcomes: vec![
            success("done"),
            OperationOutcome::Failure(failure("Boom")),
            success("9"),
        ],
        actions: vec![sends("@log@x", "write"), sends("@log@x", "read")],
        state: Some("9".to_owned()),
        ..BatchResult::default()
    };
    assert_eq!(world.run(A, result), ["set", "boom", "get"]);
    assert_eq!(
        said(&world.take_told()),
        ["o: g3 = done", "o: g4 ! Boom", "o: g5 = 9"]
    );
    assert_eq!(world.state(A).as_deref(), Some("9"));
    assert_eq!(world.leased("@log@x"), ["write", "read"]);
}

/// S-12.44, S-6.7: until it is due nothing is there, not even in the backlog.
#[test]
fn a_delayed_signal_is_kept_aside_until_it_is_due() {
    let mut world = World::new();
    let sender = generation("o", "x1");
    let due = world.now.plus(Duration::from_secs(10));
    let tick = world
        .operation("g6", "tick", Sender::Signal(sender))
        .scheduled(Some(due));
    world.bring(A, Message::Operation(Box::new(tick)));
    assert!(!world.is_known(A));
    world.advance(Duration::from_millis(9_999));
    world.deliver_all();
    assert_eq!(world.leased(A), [""; 0]);
    world.advance(Duration::from_millis(1));
    world.deliver_all();
    assert_eq!(world.live(A).backlog(), 1);
    assert_eq!(world.leased(A), ["tick"]);
}

/// S-12.45: in canonical order, one after the other; then the holder overtakes.
#[test]
fn two_entities_are_locked_in_order_and_given_back() {
    let mut world = World::new();
    let (holder, other) = (generation("o", "x1"), generation("p", "x1"));
    world.lock(&holder, "cs", &["@e@2", "@e@1"]);
    assert_eq!(world.locked_by("@e@1").as_deref(), Some("o"));
    assert_eq!(world.locked_by("@e@2").as_deref(), Some("o"));
    let told = world.take_told();
    let expected = Message::LocksGranted {
        fence: Fence {
            execution_id: holder.execution_id.clone(),
            scheduling: 8,
        },
        critical_section: "cs".to_owned(),
        at: world.now,
    };
    assert_eq!(told, [(holder.instance.clone(), expected)]);
    world.call("@e@1", &other, "waits", "other");
    world.call("@e@1", &holder, "g7", "own");
    assert_eq!(world.run("@e@1", done(&["1"], Some("s"))), ["own"]);
    assert_eq!(said(&world.take_told()), ["o: g7 = 1"]);
    assert_eq!(world.lease("@e@1"), None);
    for id in ["@e@1", "@e@2"] {
        world.unlock(&holder, "cs", id);
        assert_eq!(world.locked_by(id), None);
    }
    assert_eq!(world.run("@e@1", done(&["2"], Some("s"))), ["other"]);
    assert_eq!(said(&world.take_told()), ["p: waits = 2"]);
    assert!(!world.is_known("@e@2"), "nothing of it needs to be kept");
}

/// S-12.46.
#[test]
fn who_waits_for_a_lock_proceeds_in_order() {
    let mut world = World::new();
    let [o1, o2, o3] = ["o1", "o2", "o3"].map(|id| generation(id, "x"));
    world.lock(&o1, "cs1", &["@e@k"]);
    world.signal("@e@k", G1, "s1");
    world.lock(&o2, "cs2", &["@e@k"]);
    world.call("@e@k", &o3, "g8", "third");
    assert_eq!(world.lease("@e@k"), None);
    world.call("@e@k", &o1, "g9", "first");
    assert_eq!(world.run("@e@k", done(&["1"], None)), ["first"]);
    world.unlock(&o1, "cs1", "@e@k");
    assert_eq!(world.run("@e@k", done(&["2"], None)), ["s1"]);
    assert_eq!(world.locked_by("@e@k").as_deref(), Some("o2"));
    assert_eq!(world.lease("@e@k"), None, "g8 waits until o2 unlocks");
    world.unlock(&o2, "cs2", "@e@k");
    assert_eq!(world.run("@e@k", done(&["3"], None)), ["third"]);
    assert_eq!(
        said(&world.take_told()),
        [
            "o1: granted cs1",
            "o1: g9 = 1",
            "o2: granted cs2",
            "o3: g8 = 3"
        ]
    );
}

/// S-12.47, S-12.52: its lock is free, its request void, and what it asked for before is done.
#[test]
fn a_holder_that_dies_leaves_nothing_locked() {
    let mut world = World::new();
    let (dying, other) = (generation("o1", "x"), generation("o2", "x"));
    world.lock(&other, "cs2", &["@e@2"]);
    world.lock(&dying, "cs1", &["@e@1", "@e@2"]);
    assert_eq!(world.locked_by("@e@1").as_deref(), Some("o1"));
    world.call("@e@1", &dying, "g", "running");
    assert_eq!(world.leased("@e@1"), ["running"]);
    world.signal("@e@1", G1, "waiting");
    world.end(&dying, &["@e@1", "@e@2"]);
    assert_eq!(world.locked_by("@e@1"), None);
    assert_eq!(world.live("@e@2").queue_len(), 0);
    // The call that is out finishes; what becomes of its answer is its caller's business.
    world.answer("@e@1", done(&["1"], None));
    assert_eq!(world.run("@e@1", done(&["2"], None)), ["waiting"]);
    world.unlock(&other, "cs2", "@e@2");
    assert_eq!(world.locked_by("@e@2"), None);
    assert_eq!(said(&world.take_told()), ["o2: granted cs2", "o1: g = 1"]);
}

/// S-12.48: ids are made where there are none.
#[test]
fn an_entity_signals_and_starts() {
    let mut world = World::new();
    world.signal(A, G1, "act");
    let result = BatchResult {
        actions: vec![sends("@Log@x", "write"), starts("", "Main")],
        ..done(&["nothing"], Some("1"))
    };
    world.run(A, result);
    let operations = world.lease("@log@x").unwrap();
    assert_eq!(operations[0].name, "write");
    assert_eq!(operations[0].sender, Sender::Entity);
    assert_eq!(operations[0].request_id, operations[0].shown_request_id());
    assert_eq!(operations[0].request_id.len(), 36);
    let told = world.take_told();
    let [(target, Message::StartFromEntity(new))] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((target.as_str().len(), &new.instance), (32, target));
    assert_eq!((new.name.as_str(), &new.parent), ("Main", &None));
}

/// S-12.49, S-12.14, S-12.20.
#[test]
fn what_a_worker_did_not_do_goes_out_again_and_a_deleted_entity_begins_anew() {
    let mut world = World::new();
    for number in 1..=5 {
        world.signal(A, &format!("g{number}"), &format!("s{number}"));
    }
    let first = world.live(A).record.execution_id.clone();
    assert_eq!(world.run(A, done(&["", ""], Some("2"))).len(), 5);
    assert_eq!(world.live(A).backlog(), 3);
    assert_eq!(world.leased(A), ["s3", "s4", "s5"]);
    world.lose_lease(A);
    assert_eq!(world.leased(A), ["s3", "s4", "s5"]);
    world.answer(A, done(&["", "", ""], None));
    assert_eq!(world.view(A), None);
    world.advance(Duration::from_secs(61));
    world.forget(A);
    assert!(!world.is_known(A), "S-12.7");
    world.signal(A, "g6", "s6");
    assert_ne!(world.live(A).record.execution_id, first);
    world.lease(A);
    assert_eq!(world.live(A).state, None);
    world.answer(A, done(&[""], Some("new")));
    assert_eq!(world.state(A).as_deref(), Some("new"));
}
