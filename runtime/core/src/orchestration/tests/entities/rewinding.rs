//! Rewinds of instances that asked something of entities (S-9.13, step 6; S-9.16).

use super::*;
use crate::error::ErrorKind;

const E1: &str = "@e@1";

fn broken(world: &mut World) {
    world.run_again("a", vec![fail(99, failure("Broken"))]);
    world.settle();
    world.for_entities.clear();
}

/// S-9.13 (6): under their ids, in the name of the new generation.
#[test]
fn calls_and_lock_requests_without_an_answer_are_sent_again() {
    let mut world = World::running(vec![
        task(1, "A"),
        call(2, COUNTER, "answered"),
        call(3, COUNTER, "failed"),
        signal(4, COUNTER, "signal"),
        call(5, COUNTER, "open"),
        lock(6, "cs", &["@e@2", E1]),
    ]);
    let former = generation(&world, "a");
    assert!(answer(&mut world, fence(&former, 1), "answered", "1"));
    let message = Message::EntityFailed {
        fence: fence(&former, 2),
        request_id: "failed".into(),
        failure: failure("Boom"),
        at: world.now,
    };
    assert!(world.arrive("a", message));
    world.break_down("a", 1);
    world.run("a", vec![]);
    broken(&mut world);
    world.rewind("a").unwrap();
    let now = generation(&world, "a");
    assert_ne!(now, former);
    let sent = sent(&mut world);
    let [
        (_, Message::Operation(open)),
        (first, Message::Lock(request)),
    ] = &sent[..]
    else {
        panic!("{sent:?}");
    };
    assert_eq!((open.request_id.as_str(), first.as_str()), ("open", E1));
    // The failed activity's scheduling is gone: numbers count anew.
    let expected = Sender::Call {
        caller: now.clone(),
        scheduling: 2,
    };
    assert_eq!(open.sender, expected);
    assert_eq!((&request.holder, request.scheduling), (&now, 3));
    assert_eq!(
        (request.critical_section.as_str(), request.position),
        ("cs", 0)
    );
    // S-9.13 (3): results and failures of calls stay.
    let events = entity_events(&world.history("a"));
    assert!(events.contains(&(-1, completed("answered"))));
    let failed = EntityEvent::Failed {
        request_id: "failed".into(),
    };
    assert!(events.contains(&(-1, failed)));
    world.run("a", vec![]);
    assert!(!answer(&mut world, fence(&former, 3), "open", "of before"));
    assert!(answer(&mut world, fence(&now, 2), "open", "of now"));
    assert!(grant(&mut world, fence(&now, 3), "cs"));
    assert_eq!(entity_events(&world.run("a", vec![])).len(), 2);
}

/// S-9.13 (6): an answer that arrived and was not shown any more is asked for again.
#[test]
fn an_answer_that_no_episode_has_shown_is_asked_for_again() {
    let mut world = World::running(vec![call(1, COUNTER, "g")]);
    let former = generation(&world, "a");
    assert!(answer(&mut world, fence(&former, 0), "g", "unseen"));
    world.fail("a", failure("TooOld"));
    world.settle();
    world.for_entities.clear();
    world.rewind("a").unwrap();
    assert_eq!(said(&mut world), ["@counter@a do g"]);
}

/// S-9.16: the lock was released at the failure.
#[test]
fn an_instance_that_failed_in_a_critical_section_is_not_rewound() {
    let mut world = World::running(vec![lock(1, "cs", &[E1])]);
    let holder = generation(&world, "a");
    assert!(grant(&mut world, fence(&holder, 0), "cs"));
    world.run("a", vec![]);
    broken(&mut world);
    let before = world.get("a").clone();
    let error = world.rewind("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("not allowed"), "S-9.12");
    assert_eq!(world.get("a"), &before);
}

/// S-9.16: a grant has one unlock for each of its entities.
#[test]
fn a_section_that_was_left_in_part_is_still_one() {
    let mut world = World::running(vec![lock(1, "cs", &[E1, "@e@2"])]);
    let holder = generation(&world, "a");
    assert!(grant(&mut world, fence(&holder, 0), "cs"));
    world.run("a", vec![unlock(2, "cs", E1)]);
    broken(&mut world);
    let error = world.rewind("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
}

/// S-9.16: a section that was left is none, and one that was not entered can still be.
#[test]
fn an_instance_that_left_its_section_is_rewound() {
    let mut world = World::running(vec![lock(1, "cs", &[E1])]);
    let holder = generation(&world, "a");
    assert!(grant(&mut world, fence(&holder, 0), "cs"));
    world.run("a", vec![unlock(2, "cs", E1), lock(3, "cs2", &[E1])]);
    broken(&mut world);
    world.rewind("a").unwrap();
    assert_eq!(said(&mut world), ["@e@1 lock cs2"]);
    // The section asked for is this generation's, and ends with it.
    world.terminate("a", None, false);
    assert_eq!(said(&mut world), ["@e@1 release"]);
}

/// S-9.13 (6): nothing waits for ever.
#[test]
fn a_call_of_nobody_fails_again_after_a_rewind() {
    let mut world = World::running(vec![call(1, "nobody", "g")]);
    world.fail("a", failure("TooOld"));
    world.rewind("a").unwrap();
    assert_eq!(said(&mut world), [""; 0]);
    world.run("a", vec![]);
    let failed = EntityEvent::Failed {
        request_id: "g".into(),
    };
    assert_eq!(entity_events(&world.run("a", vec![])), [(-1, failed)]);
}

/// S-12.26, S-9.13: a section whose set is illegal is not entered by a rewind either: nothing would be locked in it.
#[test]
fn an_illegal_lock_set_is_not_granted_by_a_rewind() {
    let mut world = World::running(vec![lock(1, "cs", &[E1, "nobody"])]);
    assert_eq!(failure_type(&world), "InvalidArgument");
    world.settle();
    world.for_entities.clear();
    if world.rewind("a").is_ok() {
        world.run("a", vec![]);
        let is_granted = world.nodes["a"]
            .mailbox
            .iter()
            .any(|m| matches!(m, Message::LocksGranted { .. }));
        assert!(!is_granted, "it is granted without a single lock");
    }
}

/// S-9.15, S-9.13 (6): the same for a history that a worker has rewritten.
#[test]
fn a_rewritten_history_asks_for_what_is_open_in_it() {
    let mut world = World::running(vec![call(1, COUNTER, "g"), lock(2, "cs", &[E1])]);
    let former = generation(&world, "a");
    world.settle();
    world.for_entities.clear();
    // What came meanwhile belongs to the former generation.
    assert!(answer(&mut world, fence(&former, 0), "g", "of before"));
    let history = world.history("a");
    world.run_again("a", vec![Action::Rewind { id: -1, history }]);
    let now = generation(&world, "a");
    let sent = sent(&mut world);
    let [
        (_, Message::ReleaseLocks(over)),
        (_, Message::Operation(operation)),
        (_, Message::Lock(request)),
    ] = &sent[..]
    else {
        panic!("{sent:?}");
    };
    assert_eq!((over, &request.holder), (&former, &now));
    assert_eq!(operation.sender.generation(), Some(&now));
    assert!(world.nodes["a"].mailbox.is_empty());
}
