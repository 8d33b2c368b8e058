//! What goes out together, and what answers mean (S-12.10, S-12.13 to S-12.19, S-14.4).

use mainspring_core::entity::{BatchResult, OperationAction, OperationOutcome, Sender};
use mainspring_core::message::{FailureDetails, Message};
use mainspring_core::wire;

use super::script::*;
use super::world::*;
use crate::{Batch, Transition};

const A: &str = "@counter@a";

/// A world in which "a" has these signals waiting.
fn waiting(names: &[&str]) -> World {
    let mut world = World::new();
    for name in names {
        world.signal(A, &format!("request {name}"), name);
    }
    world
}

/// A signal with an input of so many bytes.
fn heavy(world: &mut World, name: &str, bytes: usize) {
    let mut operation = world.operation(name, name, Sender::Entity);
    operation.input = Some("x".repeat(bytes));
    world.bring(A, Message::Operation(Box::new(operation)));
}

/// S-12.10.
#[test]
fn a_batch_holds_operations_in_order_of_arrival_up_to_the_limit() {
    let mut world = waiting(&["1", "2", "3", "4", "5"]);
    world.limits.batch_operations_max = 2;
    assert_eq!(world.run(A, done(&["", ""], None)), ["1", "2"]);
    assert_eq!(world.run(A, done(&["", ""], None)), ["3", "4"]);
    assert_eq!(world.run(A, done(&[""], None)), ["5"]);
    assert_eq!(world.lease(A), None);
}

/// A limit of nothing would stop an entity for ever.
#[test]
fn a_batch_holds_at_least_one_operation() {
    let mut world = waiting(&["1", "2"]);
    world.limits.batch_operations_max = 0;
    assert_eq!(world.leased(A), ["1"]);
}

/// S-12.10, S-1.11: state and operations fit a work item.
#[test]
fn a_batch_ends_before_its_work_item_is_too_large() {
    let mut world = World::new();
    world.limits.work_item_bytes_max = 50_000;
    world.signal(A, "g", "begin");
    world.run(A, done(&[""], Some(&"s".repeat(15_000))));
    for name in ["1", "2", "3", "4"] {
        heavy(&mut world, name, 12_000);
    }
    let batch = world.live(A).next_batch(&world_limits()).unwrap();
    assert!(!batch.is_oversize);
    assert_eq!(batch.positions.len(), 2);
    let live = world.live(A);
    let parts = wire::entity_work_item(
        &live.id,
        live.record.execution_id.as_str(),
        live.state.as_deref(),
        live.operations(&batch),
        "token",
    );
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    assert!((39_000..50_000).contains(&bytes), "{bytes}");
    assert_eq!(world.leased(A), ["1", "2"]);
}

fn world_limits() -> crate::Limits {
    crate::Limits {
        work_item_bytes_max: 50_000,
        ..World::new().limits
    }
}

/// S-14.4, S-13.20: it goes out alone, and says that it is too large for ordinary channels.
#[test]
fn an_operation_that_fits_no_work_item_goes_alone() {
    let mut world = World::new();
    world.limits.work_item_bytes_max = 50_000;
    for (name, bytes) in [("small", 10), ("large", 60_000), ("last", 10)] {
        heavy(&mut world, name, bytes);
    }
    let oversize = |world: &mut World| world.live(A).next_batch(&world_limits()).unwrap();
    assert!(!oversize(&mut world).is_oversize);
    assert_eq!(world.run(A, done(&[""], None)), ["small"]);
    let Batch {
        positions,
        is_oversize,
    } = oversize(&mut world);
    assert_eq!((positions.len(), is_oversize), (1, true));
    assert_eq!(world.run(A, done(&[""], None)), ["large"]);
    assert_eq!(world.run(A, done(&[""], None)), ["last"]);
}

/// S-14.4: nothing carries it, so it fails; the state stays, and the next goes on.
#[test]
fn an_operation_can_be_failed_without_a_worker() {
    let mut world = World::new();
    let caller = generation("o", "x");
    world.signal(A, "g", "begin");
    world.run(A, done(&[""], Some("s")));
    world.call(A, &caller, "g1", "one");
    world.call(A, &caller, "g2", "two");
    let (now, limits) = (world.now, world.limits.clone());
    let live = world.live(A);
    let batch = live.next_batch(&limits).unwrap();
    let mut transition = Transition::default();
    live.fail(&batch, failure("PayloadTooLarge"), now, &mut transition);
    assert!(!transition.is_state_changed);
    world.turn(&entity(A), transition);
    assert_eq!(said(&world.take_told()), ["o: g1 ! PayloadTooLarge"]);
    assert_eq!(world.state(A).as_deref(), Some("s"));
    assert_eq!(world.leased(A), ["two"]);
}

/// S-12.9, S-12.10.
#[test]
fn a_batch_stops_before_a_lock_request() {
    let mut world = waiting(&["1", "2"]);
    let holder = generation("o", "x");
    assert_eq!(world.leased(A), ["1", "2"]);
    world.lock(&holder, "cs", &[A]);
    world.signal(A, "g3", "3");
    world.lose_lease(A);
    assert_eq!(world.run(A, done(&["", ""], None)), ["1", "2"]);
    assert_eq!(world.locked_by(A).as_deref(), Some("o"));
    assert_eq!(world.lease(A), None);
}

/// S-12.14: more results than operations.
#[test]
fn results_beyond_the_batch_are_ignored() {
    let mut world = World::new();
    world.call(A, &generation("o", "x"), "g1", "one");
    world.leased(A);
    world.call(A, &generation("o", "x"), "g2", "two");
    world.answer(A, done(&["1", "2", "3"], Some("s")));
    assert_eq!(said(&world.take_told()), ["o: g1 = 1"]);
    assert_eq!(world.leased(A), ["two"]);
}

/// S-12.14, S-12.16, S-12.19: nothing is consumed, whatever else the answer says.
#[test]
fn an_answer_without_results_changes_nothing() {
    let mut world = waiting(&["1"]);
    world.run(A, done(&[""], Some("before")));
    world.call(A, &generation("o", "x"), "g", "two");
    let useless = || BatchResult {
        actions: vec![sends("@log@x", "write")],
        state: Some("after".to_owned()),
        ..BatchResult::default()
    };
    let failed = BatchResult {
        failure: Some(failure("EntityNotRegistered")),
        ..useless()
    };
    let requiring = BatchResult {
        requires_state: true,
        outcomes: vec![success("x")],
        ..useless()
    };
    for answer in [useless(), failed, requiring] {
        let before = world.live(A).clone();
        assert_eq!(world.leased(A), ["two"]);
        assert!(!world.answer(A, answer));
        assert_eq!(world.live(A), &before);
    }
    assert!(world.take_told().is_empty() && !world.is_known("@log@x"));
}

/// S-12.15: failures are told verbatim, nested ones and all; a failed signal is nobody's business.
#[test]
fn failures_are_told_as_they_are() {
    let mut world = waiting(&["signal"]);
    world.call(A, &generation("o", "x"), "g", "call");
    // Field 4, an inner failure, as an SDK would nest it.
    let bytes = b"\x0a\x05Outer\x12\x03top\x22\x07\x0a\x05Inner";
    let details = FailureDetails::from_encoded(bytes.to_vec().into());
    let result = BatchResult {
        outcomes: vec![
            OperationOutcome::Failure(failure("Lost")),
            OperationOutcome::Failure(details.clone()),
        ],
        ..BatchResult::default()
    };
    world.run(A, result);
    let told = world.take_told();
    assert!(
        matches!(&told[..], [(_, Message::EntityFailed { failure, .. })] if *failure == details),
        "{told:?}"
    );
}

/// S-12.15: each once, whatever is lost and sent again.
#[test]
fn a_call_has_exactly_one_answer() {
    let mut world = World::new();
    let caller = generation("o", "x");
    for number in 1..=4 {
        world.call(A, &caller, &format!("g{number}"), "call");
    }
    world.leased(A);
    world.lose_lease(A);
    world.run(A, done(&["a"], Some("1")));
    world.leased(A);
    world.crash(A);
    world.run(A, done(&["b", "c"], Some("2")));
    world.crash(A);
    world.run(A, done(&["d"], Some("3")));
    world.crash(A);
    assert_eq!(world.lease(A), None);
    assert_eq!(
        said(&world.take_told()),
        ["o: g1 = a", "o: g2 = b", "o: g3 = c", "o: g4 = d"]
    );
}

/// S-14.4: the batch is sent again one operation at a time, until those it held are done; the guilty one fails alone.
#[test]
fn what_is_too_large_is_found_one_operation_at_a_time() {
    let mut world = World::new();
    world.limits.payload_bytes_max = 10;
    world.limits.state_bytes_max = 10;
    let caller = generation("o", "x");
    for number in 1..=3 {
        world.call(A, &caller, &format!("g{number}"), "call");
    }
    assert_eq!(world.leased(A).len(), 3);
    world.call(A, &caller, "g4", "call");
    world.call(A, &caller, "g5", "call");
    let large = "x".repeat(11);
    assert!(!world.answer(A, done(&["1", &large, "3"], Some("s"))));
    assert!(world.take_told().is_empty());
    assert_eq!(world.leased(A).len(), 1);
    world.lose_lease(A);
    assert_eq!(world.run(A, done(&["1"], Some("one"))).len(), 1);
    let result = BatchResult {
        actions: vec![sends("@log@x", "write")],
        ..done(&[&large], Some("two"))
    };
    assert_eq!(world.run(A, result).len(), 1);
    assert_eq!(
        world.state(A).as_deref(),
        Some("one"),
        "without state change"
    );
    assert!(!world.is_known("@log@x"), "and without actions");
    assert_eq!(world.run(A, done(&["3"], Some("three"))).len(), 1);
    assert_eq!(world.run(A, done(&["4", "5"], Some("s"))).len(), 2);
    let told = world.take_told();
    assert_eq!(
        said(&told),
        [
            "o: g1 = 1",
            "o: g2 ! PayloadTooLarge",
            "o: g3 = 3",
            "o: g4 = 4",
            "o: g5 = 5"
        ]
    );
    let Message::EntityFailed { failure, .. } = &told[1].1 else {
        panic!("{told:?}");
    };
    let (_, message) = failure.error_type_and_message();
    assert!(
        message.contains("11 bytes") && message.contains("10 are"),
        "{message}"
    );
}

/// S-14.4: state, results, and what operations send, each.
#[test]
fn nothing_that_is_too_large_gets_through() {
    let large = "x".repeat(11);
    let with_input = |mut action: OperationAction| {
        let (OperationAction::SendSignal { input, .. }
        | OperationAction::StartOrchestration { input, .. }) = &mut action;
        *input = Some("x".repeat(11));
        BatchResult {
            actions: vec![action],
            ..done(&["ok"], Some("new"))
        }
    };
    for result in [
        done(&["ok"], Some(&large)),
        done(&[&large], Some("new")),
        with_input(sends("@log@x", "write")),
        with_input(starts("b", "Main")),
    ] {
        let mut world = waiting(&["begin"]);
        world.limits.payload_bytes_max = 10;
        world.limits.state_bytes_max = 10;
        world.run(A, done(&[""], Some("old")));
        world.call(A, &generation("o", "x"), "g", "call");
        world.run(A, result);
        assert_eq!(said(&world.take_told()), ["o: g ! PayloadTooLarge"]);
        assert_eq!(world.state(A).as_deref(), Some("old"));
        assert_eq!(world.lease(A), None);
    }
}

/// S-14.4: results and state at the limit are within it, counted in bytes (S-14.2).
#[test]
fn what_is_exactly_at_the_limit_is_taken() {
    let mut world = waiting(&["one"]);
    world.limits.payload_bytes_max = 10;
    world.limits.state_bytes_max = 10;
    let state = "ä".repeat(5);
    world.run(A, done(&[&state], Some(&state)));
    assert_eq!(world.state(A), Some(state));
}

/// One commit carries so many messages, as for orchestrations: more fail the operation rather than the server (S-14.4).
#[test]
fn an_operation_that_sends_more_than_one_turn_can_fails() {
    let mut world = World::new();
    world.signal(A, "g", "begin");
    world.run(A, done(&[""], Some("old")));
    world.call(A, &generation("o", "x"), "g1", "many");
    world.call(A, &generation("o", "x"), "g2", "few");
    let many = || BatchResult {
        actions: (0..30_001).map(|_| sends("@log@x", "write")).collect(),
        ..done(&["1", "2"], Some("new"))
    };
    world.leased(A);
    assert!(!world.answer(A, many()), "the batch is divided first");
    assert_eq!(world.run(A, many()), ["many"]);
    assert_eq!(world.run(A, done(&["2"], Some("new"))), ["few"]);
    assert_eq!(
        said(&world.take_told()),
        ["o: g1 ! TooManyMessages", "o: g2 = 2"]
    );
    assert_eq!(world.state(A).as_deref(), Some("new"));
    assert!(!world.is_known("@log@x"));
}
