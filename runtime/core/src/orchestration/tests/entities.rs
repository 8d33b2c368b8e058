//! What orchestrations ask of entities, and what they are told (S-12.21 to S-12.24, S-12.52).

use std::time::Duration;

use mainspring_proto as proto;
use prost::Message as _;

use super::script::*;
use super::world::*;
use crate::action::{Action, EpisodeResult};
use crate::entity::{EntityEvent, Generation, Operation, Sender};
use crate::history::{EventKind, HistoryEvent, OtherEvent, OtherKind};
use crate::id::{ExecutionId, InstanceId};
use crate::message::{FailureDetails, Fence, Message};
use crate::orchestration::Status;
use crate::time::Timestamp;
use crate::wire;

mod locks;
mod random;
mod rewinding;
mod starts;

const COUNTER: &str = "@counter@a";

// ── what a worker asks ──

fn asking(id: i32, kind: OtherKind, body: Vec<u8>) -> Action {
    let body = body.into();
    Action::SendEntityMessage {
        id,
        event: OtherEvent { kind, body },
    }
}

fn called_event(
    target: &str,
    request_id: &str,
    scheduled_at: Option<Timestamp>,
) -> proto::EntityOperationCalledEvent {
    proto::EntityOperationCalledEvent {
        request_id: request_id.into(),
        operation: format!("do {request_id}"),
        scheduled_time: scheduled_at.map(wire::proto_timestamp),
        input: Some("5".into()),
        // As the SDKs send it: one of them names another parent, one none (S-12.21).
        parent_instance_id: Some("whoever".into()),
        parent_execution_id: None,
        target_instance_id: Some(target.into()),
    }
}

fn call(id: i32, target: &str, request_id: &str) -> Action {
    let body = called_event(target, request_id, None).encode_to_vec();
    asking(id, OtherKind::EntityOperationCalled, body)
}

fn signal_at(id: i32, target: &str, request_id: &str, at: Option<Timestamp>) -> Action {
    let event = proto::EntityOperationSignaledEvent {
        request_id: request_id.into(),
        operation: format!("do {request_id}"),
        scheduled_time: at.map(wire::proto_timestamp),
        input: None,
        target_instance_id: Some(target.into()),
    };
    asking(
        id,
        OtherKind::EntityOperationSignaled,
        event.encode_to_vec(),
    )
}

fn signal(id: i32, target: &str, request_id: &str) -> Action {
    signal_at(id, target, request_id, None)
}

fn lock(id: i32, critical_section: &str, lock_set: &[&str]) -> Action {
    let event = proto::EntityLockRequestedEvent {
        critical_section_id: critical_section.into(),
        lock_set: lock_set.iter().map(|id| (*id).to_owned()).collect(),
        position: 0,
        parent_instance_id: Some("a".into()),
    };
    asking(id, OtherKind::EntityLockRequested, event.encode_to_vec())
}

fn unlock(id: i32, critical_section: &str, target: &str) -> Action {
    let event = proto::EntityUnlockSentEvent {
        critical_section_id: critical_section.into(),
        parent_instance_id: Some("a".into()),
        target_instance_id: Some(target.into()),
    };
    asking(id, OtherKind::EntityUnlockSent, event.encode_to_vec())
}

// ── what entities answer ──

fn generation(world: &World, id: &str) -> Generation {
    let instance = world.get(id);
    Generation {
        instance: instance.id.clone(),
        execution_id: instance.record.execution_id.clone(),
    }
}

fn fence(generation: &Generation, scheduling: u32) -> Fence {
    Fence {
        execution_id: generation.execution_id.clone(),
        scheduling,
    }
}

/// The entity's result for the call of this scheduling; whether it was taken.
fn answer(world: &mut World, fence: Fence, request_id: &str, result: &str) -> bool {
    let message = Message::EntityCompleted {
        fence,
        request_id: request_id.into(),
        result: Some(result.into()),
        at: world.now,
    };
    world.arrive("a", message)
}

fn grant(world: &mut World, fence: Fence, critical_section: &str) -> bool {
    let message = Message::LocksGranted {
        fence,
        critical_section: critical_section.into(),
        at: world.now,
    };
    world.arrive("a", message)
}

/// All that entities were sent since this was asked last.
fn sent(world: &mut World) -> Vec<(String, Message)> {
    world.settle();
    let sent = world.for_entities.drain(..);
    sent.map(|(id, message)| (id.as_str().to_owned(), message))
        .collect()
}

/// The same: target, kind and what it is about.
fn said(world: &mut World) -> Vec<String> {
    let words = |message: &Message| match message {
        Message::Operation(operation) => operation.name.clone(),
        Message::Lock(request) => format!("lock {}", request.critical_section),
        Message::Unlock {
            critical_section, ..
        } => format!("unlock {critical_section}"),
        Message::ReleaseLocks(_) => "release".to_owned(),
        other => panic!("{other:?}"),
    };
    let sent = sent(world);
    sent.iter()
        .map(|(id, message)| format!("{id} {}", words(message)))
        .collect()
}

fn operation(sent: &[(String, Message)]) -> &Operation {
    match sent {
        [(_, Message::Operation(operation))] => operation,
        other => panic!("{other:?}"),
    }
}

/// What entity events say.
fn entity_events(events: &[HistoryEvent]) -> Vec<(i32, EntityEvent)> {
    events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::Other(other) => Some((e.id, wire::entity_event(other).unwrap())),
            _ => None,
        })
        .collect()
}

fn completed(request_id: &str) -> EntityEvent {
    let request_id = request_id.into();
    EntityEvent::Completed { request_id }
}

fn failure_type(world: &World) -> String {
    let failure = world.get("a").record.failure.clone().unwrap();
    failure.error_type_and_message().0
}

// ── operations ──

/// S-12.22, S-12.2: history repeats the action's own words.
#[test]
fn a_signal_is_recorded_as_it_is_and_sent_to_the_entity() {
    let mut world = World::running(vec![signal(4, "@Counter@A", "g6")]);
    let event = world.history("a").pop().unwrap();
    let Action::SendEntityMessage { event: asked, .. } = signal(4, "@Counter@A", "g6") else {
        panic!();
    };
    assert_eq!((event.id, event.kind), (4, EventKind::Other(asked)));
    let sender = generation(&world, "a");
    let sent = sent(&mut world);
    assert_eq!(sent[0].0, "@counter@A");
    let operation = operation(&sent);
    assert_eq!(operation.request_id, "g6");
    assert_eq!(operation.shown_request_id().len(), 36, "S-12.51");
    assert_eq!(operation.name, "do g6");
    assert_eq!(operation.sender, Sender::Signal(sender));
    assert_eq!((operation.at, operation.scheduled_at), (world.now, None));
    assert!(!world.has_work("a"), "nobody waits for it");
}

/// S-12.42, S-12.21: the server stamps who calls.
#[test]
fn a_call_is_recorded_sent_and_answered() {
    let mut world = World::running(vec![call(1, COUNTER, "g2")]);
    let caller = generation(&world, "a");
    assert_eq!(world.kinds("a").len(), 3);
    let sent = sent(&mut world);
    let operation = operation(&sent);
    assert_eq!(operation.input.as_deref(), Some("5"));
    let expected = Sender::Call {
        caller: caller.clone(),
        scheduling: 0,
    };
    assert_eq!(operation.sender, expected);
    world.advance(Duration::from_secs(3));
    assert!(answer(&mut world, fence(&caller, 0), "g2", "5"));
    let events = world.run("a", vec![complete(2, "5")]);
    assert_eq!(kinds(&events), ["OrchestratorStarted", "other"]);
    assert_eq!(entity_events(&events), [(-1, completed("g2"))]);
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-12.15: nested failures and all.
#[test]
fn a_failed_call_is_told_verbatim() {
    let mut world = World::running(vec![call(1, COUNTER, "g2")]);
    let caller = generation(&world, "a");
    let bytes = b"\x0a\x05Outer\x12\x03top\x22\x07\x0a\x05Inner";
    let failure = FailureDetails::from_encoded(bytes::Bytes::from_static(bytes));
    let message = Message::EntityFailed {
        fence: fence(&caller, 0),
        request_id: "g2".into(),
        failure: failure.clone(),
        at: world.now,
    };
    assert!(world.arrive("a", message));
    let events = world.run("a", vec![]);
    let EventKind::Other(other) = &events[1].kind else {
        panic!("{events:?}");
    };
    assert_eq!(other, &wire::operation_failed("g2", &failure));
    assert!(other.body.windows(bytes.len()).any(|part| part == bytes));
}

/// S-12.21, S-12.22, S-6.7: the entity keeps it aside until then.
#[test]
fn a_delayed_call_and_signal_carry_their_time() {
    let mut world = World::with_a();
    let due = world.now.plus(Duration::from_secs(60));
    let delayed = called_event(COUNTER, "g1", Some(due)).encode_to_vec();
    let delayed = asking(1, OtherKind::EntityOperationCalled, delayed);
    world.run("a", vec![delayed, signal_at(2, COUNTER, "g2", Some(due))]);
    for (_, message) in sent(&mut world) {
        let Message::Operation(operation) = message else {
            panic!("{message:?}");
        };
        assert_eq!(operation.scheduled_at, Some(due));
    }
}

/// S-12.23: across episodes, too.
#[test]
fn messages_to_one_entity_are_sent_in_the_order_of_their_actions() {
    let mut world = World::running(vec![
        signal(9, COUNTER, "1"),
        call(2, COUNTER, "2"),
        signal(5, "@other@b", "3"),
        call(3, COUNTER, "4"),
    ]);
    world.run_again("a", vec![call(1, COUNTER, "5"), signal(8, COUNTER, "6")]);
    assert_eq!(
        said(&mut world),
        [
            "@counter@a do 1",
            "@counter@a do 2",
            "@other@b do 3",
            "@counter@a do 4",
            "@counter@a do 5",
            "@counter@a do 6"
        ]
    );
}

/// S-4.18: history keeps them all; a call that reaches nobody fails, so that nobody waits.
#[test]
fn what_is_asked_of_nobody_is_dropped_or_fails() {
    let long = format!("@e@{}", "x".repeat(98));
    for target in ["counter", "@counter", "@@k", "", &long] {
        let mut world = World::running(vec![
            signal(1, target, "s"),
            call(2, target, "c"),
            unlock(3, "cs", target),
        ]);
        assert_eq!(said(&mut world), [""; 0], "{target}");
        assert_eq!(world.kinds("a").len(), 5);
        let events = world.run("a", vec![]);
        let failed = EntityEvent::Failed {
            request_id: "c".into(),
        };
        assert_eq!(entity_events(&events), [(-1, failed)]);
        let Some(EventKind::Other(other)) = events.last().map(|e| &e.kind) else {
            panic!("{events:?}");
        };
        let text = String::from_utf8_lossy(&other.body).into_owned();
        assert!(text.contains("InvalidArgument"), "{text}");
    }
}

/// S-12.52: the response that ends a generation asks, too.
#[test]
fn what_the_last_response_asks_is_asked() {
    for end in [
        complete(5, "out"),
        fail(5, failure("Broken")),
        renew(5, None),
    ] {
        let mut world = World::with_a();
        let caller = generation(&world, "a");
        world.run(
            "a",
            vec![end, signal(1, COUNTER, "1"), call(2, COUNTER, "2")],
        );
        let sent = sent(&mut world);
        assert_eq!(sent.len(), 2);
        for (_, message) in sent {
            let Message::Operation(operation) = message else {
                panic!("{message:?}");
            };
            assert_eq!(operation.sender.generation(), Some(&caller));
        }
        assert!(
            !answer(&mut world, fence(&caller, 0), "2", "late"),
            "S-12.15"
        );
    }
}

/// S-12.15, S-0.3: of another generation, of another scheduling, a second one.
#[test]
fn an_answer_is_taken_once_and_by_the_generation_that_called() {
    let mut world = World::running(vec![task(1, "A"), call(2, COUNTER, "g")]);
    let caller = generation(&world, "a");
    let former = Generation {
        execution_id: ExecutionId::from_stored("former"),
        ..caller.clone()
    };
    assert!(!answer(&mut world, fence(&former, 1), "g", "x"));
    assert!(!answer(&mut world, fence(&caller, 2), "g", "x"));
    assert!(answer(&mut world, fence(&caller, 1), "g", "5"));
    assert!(!answer(&mut world, fence(&caller, 1), "g", "6"));
    world.run("a", vec![renew(3, None)]);
    assert!(!answer(&mut world, fence(&caller, 1), "g", "7"));
    let next = world.run("a", vec![call(1, COUNTER, "g")]);
    assert!(entity_events(&next).is_empty());
    let caller = generation(&world, "a");
    assert!(answer(&mut world, fence(&caller, 0), "g", "8"));
    world.run("a", vec![complete(2, "out")]);
    assert!(!answer(&mut world, fence(&caller, 0), "g", "9"));
}

/// S-4.13: request ids may repeat; each call has its own answer, in any order, also after a restart (checked by the world).
#[test]
fn calls_under_one_request_id_are_told_apart_by_their_scheduling() {
    let mut world = World::running(vec![call(1, COUNTER, "g"), call(2, "@other@b", "g")]);
    let caller = generation(&world, "a");
    assert!(answer(&mut world, fence(&caller, 1), "g", "second"));
    world.run("a", vec![]);
    assert!(!answer(&mut world, fence(&caller, 1), "g", "again"));
    assert!(answer(&mut world, fence(&caller, 0), "g", "first"));
    assert_eq!(
        entity_events(&world.run("a", vec![])),
        [(-1, completed("g"))]
    );
}

/// S-3.2, S-3.10: with what arrived before and after it.
#[test]
fn an_answer_stands_among_the_other_events_in_order_of_arrival() {
    let mut world = World::running(vec![task(1, "A"), call(2, COUNTER, "g")]);
    let caller = generation(&world, "a");
    world.raise("a", "first", None);
    assert!(answer(&mut world, fence(&caller, 1), "g", "5"));
    world.succeed("a", 1, "x");
    let events = world.run("a", vec![]);
    assert_eq!(
        kinds(&events)[1..],
        ["EventRaised", "other", "TaskCompleted"]
    );
}

/// S-9.2, S-12.33: it waits like all the others.
#[test]
fn a_suspended_instance_keeps_its_answers() {
    let mut world = World::running(vec![call(1, COUNTER, "g")]);
    world.settle();
    world.for_entities.clear();
    world.suspend("a");
    let caller = generation(&world, "a");
    assert!(answer(&mut world, fence(&caller, 0), "g", "5"));
    assert!(!world.has_work("a"));
    world.resume("a");
    let events = world.run("a", vec![]);
    assert_eq!(entity_events(&events), [(-1, completed("g"))]);
}

/// S-14.4.
#[test]
fn an_input_over_the_limit_fails_the_instance() {
    let large = "x".repeat(11);
    let called = proto::EntityOperationCalledEvent {
        input: Some(large),
        ..called_event(COUNTER, "g", None)
    };
    let mut world = World::with_a();
    world.limits.payload_bytes_max = 10;
    let action = asking(1, OtherKind::EntityOperationCalled, called.encode_to_vec());
    world.run("a", vec![action]);
    assert_eq!(failure_type(&world), "PayloadTooLarge");
    assert_eq!(said(&mut world), [""; 0]);
}

/// An orchestration has no mailbox for what is an entity's.
#[test]
fn messages_for_entities_mean_nothing_to_an_orchestration() {
    let mut world = World::running(vec![]);
    let generation = generation(&world, "a");
    let before = world.get("a").clone();
    let operation = Operation::new(
        "g".into(),
        "add".into(),
        None,
        Sender::Client,
        world.now,
        &mut world.ids,
    );
    for message in [
        Message::Operation(Box::new(operation)),
        Message::Unlock {
            critical_section: "cs".into(),
            holder: InstanceId::from_stored("a"),
        },
        Message::ReleaseLocks(generation),
    ] {
        assert!(message.is_for_entity() && !message.waits());
        assert!(!world.arrive("a", message.clone()));
        let mut instance = Some(before.clone());
        let id = before.id.clone();
        let mut history = || Ok(Vec::new());
        let transition = crate::orchestration::receive(
            &mut instance,
            &id,
            message,
            &mut history,
            world.now,
            &mut world.ids,
        );
        assert_eq!(transition.unwrap(), Default::default());
        assert_eq!(instance.as_ref(), Some(&before));
    }
}

/// S-14.5: they count like all events.
#[test]
fn entity_events_count_against_the_limit_of_a_history() {
    let mut world = World::with_a();
    world.limits.history_events_max = Some(4);
    world.run("a", vec![signal(1, COUNTER, "1"), signal(2, COUNTER, "2")]);
    assert_eq!(world.status("a"), Status::Running);
    let result = EpisodeResult {
        actions: vec![signal(3, COUNTER, "3")],
        ..EpisodeResult::default()
    };
    world.raise("a", "again", None);
    world.run_with("a", result);
    assert_eq!(failure_type(&world), "HistoryTooLong");
}
