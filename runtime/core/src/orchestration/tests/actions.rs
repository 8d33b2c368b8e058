//! What a response's actions become, limits, and children.

use std::collections::BTreeMap;

use super::script::*;
use super::world::*;
use crate::action::{Action, EpisodeResult};
use crate::effect::Effect;
use crate::history::EventKind;
use crate::id::ExecutionId;
use crate::message::{FailureDetails, Message, Parent, TraceContext};
use crate::orchestration::{Origin, ReusePolicy, Status};

fn failure_of(world: &World, id: &str) -> (String, String) {
    let failure = world.get(id).record.failure.as_ref().unwrap();
    failure.error_type_and_message()
}

/// The failure of the child with this task id, in the mailbox of `id`.
fn child_failure(world: &World, id: &str) -> (i32, FailureDetails) {
    match world.nodes[id].mailbox.back() {
        Some(Message::ChildFailed {
            task_id, failure, ..
        }) => (*task_id, failure.clone()),
        other => panic!("{other:?}"),
    }
}

/// S-4.1: one SDK returns its actions in no order.
#[test]
fn actions_beside_a_completion_count_wherever_it_stands() {
    let mut world = World::with_a();
    let actions = vec![complete(1, "out"), task(2, "A"), event(3, "b", "go")];
    world.run("a", actions);
    assert_eq!(
        world.kinds("a")[2..],
        ["TaskScheduled", "EventSent", "ExecutionCompleted"]
    );
    assert_eq!(world.sent(), [("b".to_owned(), "EventRaised")]);
    assert!(world.activities[0].outlives, "S-5.7: it still runs");
}

/// S-4.2.
#[test]
fn of_several_completions_the_one_with_the_smallest_id_counts() {
    let mut world = World::with_a();
    world.run(
        "a",
        vec![
            finish(5, Status::Terminated, Some("later")),
            complete(3, "first"),
            finish(4, Status::Failed, None),
        ],
    );
    assert_eq!(world.status("a"), Status::Completed);
    assert_eq!(world.get("a").record.output.as_deref(), Some("first"));
}

/// S-3.8: frameworks use -1 and 0, and repeat ids.
#[test]
fn action_ids_may_repeat_and_be_negative() {
    let mut world = World::running(vec![task(-1, "A"), task(0, "B"), task(0, "C")]);
    world.run_again("a", vec![fail(-1, failure("VersionMismatch"))]);
    let ids: Vec<i32> = world.history("a").iter().map(|e| e.id).collect();
    assert_eq!(ids, [-1, 0, -1, 0, 0, -1, -1, -1]);
    assert_eq!(world.status("a"), Status::Failed);
}

/// S-9.7, S-3.8: the largest id there is leaves none above it.
#[test]
fn an_action_with_the_largest_id_does_not_stop_a_termination() {
    let mut world = World::running(vec![task(i32::MAX, "A")]);
    assert!(world.terminate("a", None, false));
    assert_eq!(world.status("a"), Status::Terminated);
}

/// S-4.10, S-5.1, S-15.2: in the event and in what the worker gets.
#[test]
fn an_activity_keeps_all_that_its_action_had() {
    let trace = TraceContext {
        trace_parent: "00-a-b-01".into(),
        span_id: "s".into(),
        trace_state: Some("t".into()),
    };
    let action = Action::ScheduleTask {
        id: 1,
        name: "A".into(),
        version: Some(String::new()),
        input: None,
        tags: BTreeMap::from([("k".into(), "v".into())]),
        trace: Some(trace.clone()),
    };
    let world = World::running(vec![action]);
    let task = &world.activities[0].task;
    assert_eq!((task.version.as_deref(), &task.input), (Some(""), &None));
    assert_eq!((&task.trace, &task.tags["k"][..]), (&Some(trace), "v"));
    let chunks = &world.nodes["a"].chunks;
    let read = world.get("a").activity_tasks(chunks, &[0]).unwrap();
    assert_eq!(
        &read[..],
        std::slice::from_ref(task),
        "as it is rebuilt after a restart"
    );
}

/// S-4.9, S-8.1.
#[test]
fn a_sent_event_repeats_target_name_and_payload_exactly() {
    let mut world = World::new();
    world.start("b");
    world.start("a");
    world.run("a", vec![event(1, "b", "Go ")]);
    let EventKind::EventSent {
        instance,
        name,
        input,
    } = world.history("a").pop().unwrap().kind
    else {
        panic!()
    };
    let sent = (instance.as_str(), name.as_str(), input.as_deref());
    assert_eq!(sent, ("b", "Go ", Some("data 1")));
    world.settle();
    let events = world.run("b", vec![]);
    assert!(matches!(&events[2].kind, EventKind::EventRaised { name, .. } if name == "Go "));
}

/// S-8.4: to nobody, and to oneself after completing.
#[test]
fn events_to_missing_and_finished_instances_are_dropped() {
    let mut world = World::with_a();
    world.run(
        "a",
        vec![
            event(1, "nobody", "go"),
            event(2, "a", "go"),
            complete(3, "x"),
        ],
    );
    world.settle();
    assert!(world.nodes["a"].mailbox.is_empty());
    world.start("nobody");
    assert_eq!(world.run("nobody", vec![]).len(), 2, "S-8.5: not kept");
}

/// S-3.18, S-8.2: an event to oneself arrives like any other.
#[test]
fn an_event_to_oneself_comes_in_the_next_episode() {
    let mut world = World::running(vec![event(1, "a", "me")]);
    assert!(world.sent().is_empty());
    assert_eq!(kinds(&world.run("a", vec![]))[1..], ["EventRaised"]);
}

/// S-4.18: never an error, which would bring the same response again.
#[test]
fn actions_with_illegal_targets_are_recorded_and_reach_nobody() {
    let long = "x".repeat(101);
    let world = World::running(vec![
        event(1, &long, "go"),
        event(2, "", "go"),
        event(3, "b", ""),
        terminate(4, "@counter@x", true),
        terminate(5, "", false),
    ]);
    assert_eq!(world.kinds("a")[2..], ["EventSent"; 3]);
    assert!(world.sent().is_empty());
}

/// S-4.18, trap 45: the parent's task fails, and cannot be retried.
#[test]
fn a_child_with_an_illegal_id_fails_its_task() {
    for (id, name) in [
        ("x".repeat(101), "Child"),
        ("@e@k".into(), "Child"),
        ("c".into(), ""),
    ] {
        let mut action = child(7, &id);
        if let Action::CreateChild { name: of, .. } = &mut action {
            *of = name.into();
        }
        let mut world = World::running(vec![action]);
        assert!(world.sent().is_empty());
        let (task_id, details) = child_failure(&world, "a");
        assert_eq!(task_id, 7);
        assert_eq!(details.error_type_and_message().0, "InvalidArgument");
        let events = world.run("a", vec![]);
        assert_eq!(kinds(&events)[1..], ["SubOrchestrationInstanceFailed"]);
    }
}

/// S-7.1, S-7.2.
#[test]
fn a_child_knows_its_parent_in_every_generation() {
    let mut world = World::running(vec![child(3, "c")]);
    world.settle();
    let parent = world.get("a").record.execution_id.clone();
    let link = |world: &mut World| {
        let EventKind::ExecutionStarted(started) = world.lease("c").unwrap().remove(1).kind else {
            panic!()
        };
        world.lose_lease("c");
        let link = started.parent.unwrap();
        (link.task_id, link.name, link.instance, link.execution_id)
    };
    let expected = (
        3,
        Some("Main".to_owned()),
        world.get("a").id.clone(),
        Some(parent),
    );
    assert_eq!(link(&mut world), expected);
    world.run("c", vec![renew(1, None)]);
    assert_eq!(link(&mut world), expected);
    assert_eq!(
        world.get("c").view(false).parent,
        Some(world.get("a").id.clone())
    );
}

/// S-7.3.
#[test]
fn a_child_without_an_id_gets_one_from_the_parents_generation() {
    let world = World::running(vec![child(0x1f, "")]);
    let expected = format!("{}:001f", world.get("a").record.execution_id);
    assert_eq!(world.sent(), [(expected.clone(), "Start")]);
    let EventKind::ChildCreated(created) = world.history("a").pop().unwrap().kind else {
        panic!()
    };
    assert_eq!(created.instance, expected);
}

/// S-7.3: a client may have chosen a long generation id.
#[test]
fn a_generated_child_id_over_the_limit_becomes_a_guid() {
    let mut world = World::new();
    let mut request = new("a");
    request.execution_id = Some(ExecutionId::from_stored(&"e".repeat(98)));
    world.create(request, Origin::Parent).unwrap();
    world.run("a", vec![child(1, "")]);
    let (target, _) = &world.sent()[0];
    assert_eq!(target.len(), 32);
}

/// S-7.4, S-7.10: details verbatim, and never none.
#[test]
fn a_parent_is_told_how_its_child_ended() {
    let mut world = World::running((1..=4).map(|n| child(n, &format!("c{n}"))).collect());
    world.settle();
    let details = failure("Custom");
    world.run("c1", vec![finish(1, Status::Completed, Some(""))]);
    world.run("c2", vec![fail(1, details.clone())]);
    world.run("c3", vec![finish(1, Status::Failed, None)]);
    world.terminate("c4", Some("enough"), false);
    world.settle();
    let events = world.run("a", vec![]);
    assert!(matches!(&events[1].kind,
        EventKind::ChildCompleted { task_id: 1, result } if result.as_deref() == Some("")));
    let failures: Vec<(i32, FailureDetails)> = events[2..]
        .iter()
        .map(|e| match &e.kind {
            EventKind::ChildFailed { task_id, failure } => (*task_id, failure.clone().unwrap()),
            _ => panic!("{e:?}"),
        })
        .collect();
    assert_eq!(failures[0], (2, details));
    let texts: Vec<_> = failures
        .iter()
        .map(|(_, f)| f.error_type_and_message())
        .collect();
    assert_eq!(texts[1].0, "SubOrchestrationFailed");
    assert!(!texts[1].1.is_empty());
    assert_eq!(texts[2].0, "SubOrchestrationTerminated");
    assert!(texts[2].1.contains("c4") && texts[2].1.contains("enough"));
}

/// S-7.5, S-7.8: also when the parent is finished, and children go on.
#[test]
fn the_outcome_of_a_child_is_dropped_once_its_parent_is_over() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.terminate("a", None, false);
    world.settle();
    assert_eq!(world.status("c"), Status::Pending);
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    assert!(world.nodes["a"].mailbox.is_empty());
}

/// S-7.7.
#[test]
fn a_child_created_beside_the_completion_starts_anyway() {
    let mut world = World::running(vec![complete(2, "out"), child(1, "c")]);
    world.settle();
    assert_eq!(world.status("c"), Status::Pending);
}

/// S-7.6: retries re-use the id of a child that failed.
#[test]
fn a_finished_instance_makes_room_for_a_child_of_its_id() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![fail(1, failure("Broken"))]);
    world.settle();
    world.run("a", vec![child(1, "c")]);
    world.settle();
    assert_eq!(world.status("c"), Status::Pending);
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    let events = world.run("a", vec![]);
    assert_eq!(kinds(&events)[1..], ["SubOrchestrationInstanceCompleted"]);
}

/// S-7.6: not disturbed, not silent, and to be retried.
#[test]
fn an_active_instance_of_the_childs_id_fails_the_parents_task() {
    let mut world = World::new();
    world.start("c");
    world.run("c", vec![]);
    let before = world.get("c").clone();
    world.start("a");
    world.run("a", vec![child(1, "c")]);
    world.settle();
    assert_eq!(world.get("c"), &before);
    let (_, details) = child_failure(&world, "a");
    assert_eq!(
        details.error_type_and_message().0,
        "OrchestrationAlreadyExists"
    );
}

/// S-7.6: an instance is its own active namesake.
#[test]
fn an_instance_cannot_be_its_own_child() {
    let world = World::running(vec![child(1, "a")]);
    let (_, details) = child_failure(&world, "a");
    assert_eq!(
        details.error_type_and_message().0,
        "OrchestrationAlreadyExists"
    );
    assert!(world.get("a").children().is_empty());
}

/// S-4.13: both are processed; the second finds the first active.
#[test]
fn two_children_of_one_id_in_one_response_are_both_processed() {
    let mut world = World::running(vec![child(1, "c"), child(2, "c")]);
    world.settle();
    let (task_id, _) = child_failure(&world, "a");
    assert_eq!((task_id, world.get("a").children().len()), (2, 1));
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    assert_eq!(world.run("a", vec![]).len(), 3);
}

/// S-0.3, S-7.5: a child's outcome carries its parent's generation.
#[test]
fn a_child_of_a_former_generation_does_not_answer_for_a_new_one() {
    let mut world = World::running(vec![child(1, "c"), renew(2, None)]);
    world.settle();
    world.run("a", vec![child(1, "d")]);
    world.run("c", vec![complete(1, "old")]);
    world.settle();
    assert!(world.nodes["a"].mailbox.is_empty());
    world.run("d", vec![complete(1, "new")]);
    world.settle();
    assert_eq!(world.nodes["a"].mailbox.len(), 1);
}

/// S-4.8: not through the mailbox, and without waiting.
#[test]
fn a_terminate_action_terminates_its_target() {
    let mut world = World::new();
    world.start("b");
    world.start("a");
    world.run(
        "a",
        vec![terminate(1, "b", false), terminate(2, "nobody", true)],
    );
    world.settle();
    assert_eq!(world.status("b"), Status::Terminated);
    assert_eq!(world.get("b").record.output.as_deref(), Some("stop"));
    assert_eq!(world.kinds("a").len(), 2, "there is no confirming event");
}

/// S-4.8: the own instance is a target like any other.
#[test]
fn an_instance_may_terminate_itself() {
    let world = World::running(vec![terminate(3, "a", false), task(1, "A")]);
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(world.get("a").record.output.as_deref(), Some("stop"));
    assert_eq!(world.history("a").last().unwrap().id, 3);
}

/// S-9.8: with its children, if it says so.
#[test]
fn an_instance_may_terminate_itself_with_its_children() {
    let mut world = World::running(vec![child(1, "c"), terminate(3, "a", true)]);
    assert_eq!(world.status("a"), Status::Running, "frozen");
    world.settle();
    assert_eq!(world.status("c"), Status::Terminated);
    assert_eq!(world.status("a"), Status::Terminated);
}

/// S-9.8, S-4.18: children that cannot be hold nobody up.
#[test]
fn an_instance_that_terminates_itself_with_impossible_children_ends_at_once() {
    let world = World::running(vec![child(1, "a"), terminate(3, "a", true)]);
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(world.get("a").record.output.as_deref(), Some("stop"));
}

/// S-5.7.
#[test]
fn activities_are_dropped_with_a_failed_instance_but_not_its_last_ones() {
    let mut world = World::running(vec![task(1, "held"), task(2, "waiting")]);
    world.activities[0].is_leased = true;
    world.run_again("a", vec![task(3, "last"), fail(4, failure("Broken"))]);
    let names: Vec<String> = world.queued("a").into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, ["held", "last"]);
}

/// S-5.7: fire and forget is legal with a normal completion.
#[test]
fn activities_go_on_after_a_normal_completion() {
    let mut world = World::running(vec![task(1, "A")]);
    world.run_again("a", vec![complete(2, "out")]);
    assert!(world.activities[0].outlives);
}

/// S-4.14.
#[test]
fn failure_details_are_kept_verbatim_and_never_invented() {
    let odd = FailureDetails::from_encoded(bytes::Bytes::from_static(b"\xff\x00"));
    let world = World::running(vec![fail(1, odd.clone())]);
    assert_eq!(world.get("a").record.failure, Some(odd));
    assert_eq!(world.get("a").record.output, None);
    let world = World::running(vec![finish(1, Status::Failed, Some("half"))]);
    assert_eq!(world.get("a").record.failure, None);
    assert_eq!(world.get("a").record.output.as_deref(), Some("half"));
}

/// S-14.4: not an error, which would bring the response again for ever.
#[test]
fn a_payload_over_the_limit_fails_the_instance() {
    let large = "x".repeat(11);
    let mut too_large = vec![
        (saying(&large, vec![]), "custom status"),
        (
            saying("", vec![complete(1, &large)]),
            "orchestration output",
        ),
        (
            saying("", vec![renew(1, Some(&large))]),
            "orchestration input",
        ),
    ];
    let mut action = task(1, "A");
    if let Action::ScheduleTask { input, .. } = &mut action {
        *input = Some(large.clone());
    }
    too_large.push((saying("", vec![action]), "activity input"));
    for (result, what) in too_large {
        let mut world = World::with_a();
        world.limits.payload_bytes_max = 10;
        world.raise("a", "go", None);
        world.run_with("a", result);
        assert_eq!(world.status("a"), Status::Failed);
        let (error_type, message) = failure_of(&world, "a");
        assert_eq!(error_type, "PayloadTooLarge");
        for part in [what, "11 bytes", "10 are allowed"] {
            assert!(message.contains(part), "{message}");
        }
        let end = [
            "OrchestratorStarted",
            "ExecutionStarted",
            "EventRaised",
            "ExecutionCompleted",
        ];
        assert_eq!(world.kinds("a"), end, "its actions do not count");
        assert!(world.activities.is_empty());
    }
}

/// S-14.2: UTF-8 bytes, and the limit itself is allowed.
#[test]
fn a_payload_of_exactly_the_limit_is_taken() {
    let mut world = World::with_a();
    world.limits.payload_bytes_max = 10;
    world.run("a", vec![complete(1, "äääää")]);
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-14.5.
#[test]
fn a_history_over_its_limit_fails_the_instance_cleanly() {
    let mut world = World::with_a();
    world.limits.history_events_max = Some(5);
    world.run("a", vec![task(1, "A")]);
    let due = world.now;
    world.run_again("a", vec![task(2, "B"), timer(3, due), child(4, "c")]);
    assert_eq!(failure_of(&world, "a").0, "HistoryTooLong");
    assert!(world.queued("a").is_empty() && world.nodes["a"].timers.is_empty());
    assert!(world.sent().is_empty());
    let mut world = World::with_a();
    world.limits.history_events_max = Some(1);
    world.run("a", vec![complete(1, "out")]);
    assert_eq!(world.status("a"), Status::Completed, "an end is an end");
}

/// S-12.50: an instance that calls an entity in the older way does not wait for ever.
#[test]
fn a_call_of_an_entity_by_an_external_event_fails_the_instance() {
    for name in ["op", "op@2026-01-01T00:00:00Z"] {
        let action = event(1, "@counter@x", name);
        let world = World::running(vec![task(2, "A"), action, complete(9, "x")]);
        assert_eq!(failure_of(&world, "a").0, "EntityEventsNotSupported");
        // What else it did counts, as beside any other end.
        assert_eq!(world.kinds("a")[2], "TaskScheduled");
        assert!(world.activities[0].outlives);
    }
}

/// A commit carries all messages of a response.
#[test]
fn a_response_with_more_messages_than_a_commit_carries_fails_the_instance() {
    let many = (0..30_001).map(|id| event(id, "b", "go")).collect();
    let world = World::running(many);
    assert_eq!(failure_of(&world, "a").0, "TooManyMessages");
}

/// S-2.10, S-4.8: a failure by the server is an end like any other.
#[test]
fn an_instance_that_the_server_fails_tells_its_parent() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.lease("c");
    world.fail("c", failure("HistoryTooLarge"));
    assert!(world.effects.contains(&Effect::FenceEpisode));
    assert_eq!(
        world.kinds("c"),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionCompleted"
        ]
    );
    world.settle();
    let (_, details) = child_failure(&world, "a");
    assert_eq!(details, failure("HistoryTooLarge"));
}

/// S-4.1: what one response holds is applied as one.
#[test]
fn an_empty_response_is_a_response() {
    let mut world = World::with_a();
    world.run_with("a", EpisodeResult::default());
    assert_eq!(
        world.kinds("a"),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
}

/// S-3.16, S-10.1.
#[test]
fn a_fresh_generation_id_of_the_client_is_used_and_a_used_one_is_not() {
    let mut world = World::new();
    let mut request = new("a");
    request.execution_id = Some(ExecutionId::from_stored("mine"));
    let client = Origin::Client(ReusePolicy::default());
    world.create(request.clone(), client.clone()).unwrap();
    assert_eq!(world.get("a").record.execution_id.as_str(), "mine");
    world.run("a", vec![complete(1, "x")]);
    world.create(request, client).unwrap();
    assert_eq!(world.get("a").record.execution_id.as_str().len(), 32);
}

/// S-7.9: children inherit nothing else.
#[test]
fn a_child_is_started_with_what_its_action_says() {
    let mut world = World::new();
    let mut request = new("a");
    request.version = Some("9".into());
    request.tags.insert("k".into(), "v".into());
    world.create(request, Origin::Parent).unwrap();
    world.run_with("a", saying("busy", vec![child(1, "c")]));
    world.settle();
    let record = &world.get("c").record;
    assert_eq!((&record.version, &record.custom_status), (&None, &None));
    assert!(world.get("c").start.tags.is_empty());
    let Some(Parent { version, .. }) = &record.parent else {
        panic!()
    };
    assert_eq!(version.as_deref(), Some("9"));
}
