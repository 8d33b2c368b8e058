//! Rewind (S-9.12 to S-9.17) and what becomes of children.

use std::time::Duration;

use super::script::*;
use super::world::*;
use crate::action::{Action, EpisodeResult};
use crate::error::ErrorKind;
use crate::history::{EventKind, HistoryEvent, OtherEvent, OtherKind};
use crate::id::ExecutionId;
use crate::message::Message;
use crate::orchestration::Status;
use crate::time::Timestamp;

/// "a" scheduled 1 (succeeded) and 2 (failed), and failed.
fn failed() -> World {
    let mut world = World::running(vec![task(1, "good"), task(2, "bad")]);
    world.succeed("a", 1, "x");
    world.break_down("a", 2);
    world.run_with("a", saying("half", vec![fail(3, failure("Broken"))]));
    world
}

/// S-9.13: steps 1 to 5, 7.
#[test]
fn a_rewind_removes_the_failures_and_runs_one_lone_episode() {
    let mut world = failed();
    let old = world.get("a").record.execution_id.clone();
    let created = world.get("a").record.created_at;
    world.advance(Duration::from_secs(1));
    world.rewind("a").unwrap();
    assert_eq!(
        world.kinds("a"),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "OrchestratorStarted",
            "TaskCompleted",
            "ExecutionRewound"
        ]
    );
    let record = world.get("a").record.clone();
    assert_ne!(record.execution_id, old);
    assert_eq!(record.status, Status::Running);
    assert_eq!((record.output, record.failure), (None, None));
    assert_eq!((record.completed_at, record.created_at), (None, created));
    assert_eq!(record.updated_at, world.now);
    world.raise("a", "waits its turn", None);
    let events = world.run("a", vec![task(2, "bad")]);
    assert_eq!(kinds(&events), ["OrchestratorStarted"]);
    assert_eq!(world.queued("a"), [(2, "bad".to_owned())]);
    world.succeed("a", 2, "y");
    assert_eq!(
        kinds(&world.run("a", vec![complete(3, "out")]))[1..],
        ["EventRaised", "TaskCompleted"]
    );
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-9.12: the message is matched by a client's test.
#[test]
fn only_a_failed_instance_can_be_rewound() {
    for status in [Status::Completed, Status::Terminated, Status::Canceled] {
        let mut world = World::running(vec![finish(1, status, None)]);
        let before = world.get("a").clone();
        let error = world.rewind("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("not allowed"));
        assert_eq!(world.get("a"), &before);
    }
    let mut world = World::with_a();
    assert!(world.rewind("a").is_err(), "pending");
    world.run("a", vec![]);
    assert!(world.rewind("a").is_err(), "running");
    world.suspend("a");
    assert!(world.rewind("a").is_err(), "suspended");
}

/// S-9.13, step 4: markers accumulate.
#[test]
fn a_second_rewind_leaves_both_markers() {
    let mut world = failed();
    for _ in 0..2 {
        world.rewind("a").unwrap();
        world.run("a", vec![task(2, "bad")]);
        world.break_down("a", 2);
        world.run("a", vec![fail(3, failure("Broken"))]);
    }
    let markers = |world: &World| {
        let kinds = world.kinds("a");
        kinds.iter().filter(|k| **k == "ExecutionRewound").count()
    };
    assert_eq!(markers(&world), 2);
    world.rewind("a").unwrap();
    assert_eq!(markers(&world), 3);
    let EventKind::ExecutionRewound(rewound) = world.history("a").pop().unwrap().kind else {
        panic!()
    };
    assert_eq!(rewound.reason.as_deref(), Some("again"));
    assert_eq!(rewound.parent_execution_id, None);
}

/// S-9.13, S-3.8: retries re-use the id; the attempt that succeeded stays, those that failed go.
#[test]
fn of_attempts_under_one_id_only_the_failed_ones_are_removed() {
    let mut world = World::running(vec![task(1, "A")]);
    let now = world.now;
    world.break_down("a", 1);
    world.run("a", vec![timer(2, now)]);
    world.fire_timers();
    world.run("a", vec![task(1, "A")]);
    world.succeed("a", 1, "at last");
    world.run("a", vec![task(3, "B")]);
    world.break_down("a", 3);
    world.run("a", vec![timer(4, now)]);
    world.fire_timers();
    world.run("a", vec![task(3, "B")]);
    world.break_down("a", 3);
    world.run("a", vec![fail(5, failure("Broken"))]);
    world.rewind("a").unwrap();
    let kinds = world.kinds("a");
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!((count("TaskScheduled"), count("TaskCompleted")), (1, 1));
    assert_eq!((count("TimerCreated"), count("TimerFired")), (2, 2));
    assert_eq!(count("TaskFailed"), 0);
    assert!(world.queued("a").is_empty() && world.nodes["a"].timers.is_empty());
}

/// S-9.13, step 6: what has no result is asked for again, stamped with the new generation.
#[test]
fn open_activities_and_timers_are_started_again() {
    let mut world = World::with_a();
    let later = world.now.plus(Duration::from_secs(60));
    world.run(
        "a",
        vec![task(1, "failing"), task(2, "open"), timer(3, later)],
    );
    world.break_down("a", 1);
    world.run("a", vec![fail(4, failure("Broken"))]);
    assert!(world.queued("a").is_empty() && world.nodes["a"].timers.is_empty());
    world.advance(Duration::from_secs(90));
    world.rewind("a").unwrap();
    assert_eq!(world.queued("a"), [(2, "open".to_owned())]);
    let fence = &world.activities[0].task.fence;
    assert_eq!(fence.execution_id, world.get("a").record.execution_id);
    assert_eq!(fence.scheduling, 0, "numbers count anew");
    assert_eq!(world.activities[0].task.input.as_deref(), Some("input 2"));
    world.fire_timers();
    world.succeed("a", 2, "x");
    assert_eq!(world.run("a", vec![]).len(), 1);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["TimerFired", "TaskCompleted"]
    );
}

/// S-0.3: results of before the rewind do not count.
#[test]
fn an_outcome_of_before_the_rewind_is_dropped() {
    let mut world = World::running(vec![task(1, "A")]);
    world.activities[0].is_leased = true;
    world.run_again("a", vec![fail(2, failure("Broken"))]);
    world.rewind("a").unwrap();
    assert_eq!(world.queued("a").len(), 2);
    assert!(!world.succeed("a", 1, "of before"));
    assert!(world.succeed("a", 1, "of now"));
}

/// S-9.5: any history that is dispatched holds markers in pairs.
#[test]
fn an_unpaired_suspension_is_removed() {
    let mut world = World::running(vec![]);
    world.suspend("a");
    world.resume("a");
    world.suspend("a");
    world.fail("a", failure("HistoryTooLarge"));
    world.rewind("a").unwrap();
    assert_eq!(
        world.kinds("a")[2..],
        ["ExecutionSuspended", "ExecutionResumed", "ExecutionRewound"]
    );
    assert_eq!(world.status("a"), Status::Running);
}

/// S-3.23, S-9.13: a rewind begins a generation.
#[test]
fn the_custom_status_of_before_the_rewind_is_what_it_falls_back_to() {
    let mut world = failed();
    world.rewind("a").unwrap();
    assert_eq!(world.get("a").record.custom_status.as_deref(), Some("half"));
    world.run("a", vec![]);
    assert_eq!(world.get("a").record.custom_status.as_deref(), Some("half"));
}

/// S-9.13, step 6: FAILED children are rewound, and their outcome goes to the parent's new generation.
#[test]
fn a_failed_child_is_rewound_with_its_parent() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![child(1, "e")]);
    world.settle();
    for (id, task_id) in [("e", 1), ("c", 2), ("a", 2)] {
        if id == "e" {
            world.run(id, vec![fail(task_id, failure("Broken"))]);
        } else {
            world.run(id, vec![fail(task_id, failure("Child"))]);
        }
        world.settle();
    }
    world.rewind("a").unwrap();
    assert!(
        world
            .kinds("a")
            .contains(&"SubOrchestrationInstanceCreated")
    );
    assert!(!world.kinds("a").contains(&"SubOrchestrationInstanceFailed"));
    world.settle();
    for (child, parent) in [("c", "a"), ("e", "c")] {
        assert_eq!(world.status(child), Status::Running);
        let link = world.get(child).record.parent.clone().unwrap();
        assert_eq!(
            link.fence.execution_id,
            world.get(parent).record.execution_id
        );
        let history = world.history(child);
        let started = history.iter().find_map(|e| match &e.kind {
            EventKind::ExecutionStarted(started) => started.parent.clone(),
            _ => None,
        });
        assert_eq!(started.unwrap().execution_id, Some(link.fence.execution_id));
        let EventKind::ExecutionRewound(rewound) = &history.last().unwrap().kind else {
            panic!()
        };
        assert!(rewound.parent_execution_id.is_some());
        assert_eq!(rewound.reason.as_deref(), Some("again"));
    }
    for (id, events) in [("e", 1), ("c", 1), ("a", 1)] {
        assert_eq!(world.run(id, vec![]).len(), events, "{id} replays alone");
    }
    world.run_again("e", vec![complete(1, "ok")]);
    world.settle();
    world.run("c", vec![complete(2, "ok")]);
    world.settle();
    let events = world.run("a", vec![complete(2, "ok")]);
    assert_eq!(kinds(&events)[1..], ["SubOrchestrationInstanceCompleted"]);
}

/// S-9.13, step 6: an active child only gets the new link.
#[test]
fn an_active_child_answers_the_rewound_parent() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![]);
    world.run_again("a", vec![fail(2, failure("Broken"))]);
    world.rewind("a").unwrap();
    world.settle();
    assert_eq!(world.status("c"), Status::Running);
    world.run_again("c", vec![complete(1, "ok")]);
    world.settle();
    world.run("a", vec![]);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["SubOrchestrationInstanceCompleted"]
    );
}

/// S-9.13, step 6: a purged child is created again.
#[test]
fn a_purged_child_is_created_again() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![fail(1, failure("Broken"))]);
    world.settle();
    world.run("a", vec![fail(2, failure("Child"))]);
    world.purge("c");
    world.rewind("a").unwrap();
    world.settle();
    assert_eq!(world.status("c"), Status::Pending);
    assert_eq!(world.get("c").start.input.as_deref(), Some("for the child"));
    world.run("c", vec![complete(1, "ok")]);
    world.settle();
    world.run("a", vec![]);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["SubOrchestrationInstanceCompleted"]
    );
}

/// S-9.13, step 6: a child that ended otherwise tells its outcome again, also at the next rewind.
#[test]
fn a_terminated_child_tells_its_outcome_again_at_every_rewind() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.terminate("c", Some("enough"), false);
    world.settle();
    world.run("a", vec![fail(2, failure("Child"))]);
    for _ in 0..2 {
        world.rewind("a").unwrap();
        world.settle();
        assert_eq!(world.status("c"), Status::Terminated);
        world.run("a", vec![]);
        let events = world.run("a", vec![fail(2, failure("Child"))]);
        let EventKind::ChildFailed { failure, .. } = &events[1].kind else {
            panic!("{events:?}")
        };
        let (error_type, message) = failure.as_ref().unwrap().error_type_and_message();
        assert_eq!(error_type, "SubOrchestrationTerminated");
        assert!(message.contains("enough"));
    }
}

/// S-9.13, step 6: not this parent's child: a failure.
#[test]
fn a_namesake_of_the_child_is_left_alone_and_fails_the_task() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![fail(1, failure("Broken"))]);
    world.settle();
    world.run("a", vec![fail(2, failure("Child"))]);
    world.start("c");
    let before = world.get("c").clone();
    world.rewind("a").unwrap();
    world.settle();
    assert_eq!(world.get("c"), &before);
    world.run("a", vec![]);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["SubOrchestrationInstanceFailed"]
    );
}

/// S-9.13, S-0.3: nor is a child of an older generation, though task ids repeat.
#[test]
fn a_child_of_an_older_generation_of_the_parent_is_no_child_of_the_rewound_one() {
    let mut world = World::running(vec![child(1, "c"), renew(2, None)]);
    world.settle();
    world.run("a", vec![child(1, "c")]);
    world.settle();
    world.run("a", vec![fail(2, failure("Child"))]);
    world.rewind("a").unwrap();
    let before = world.get("c").clone();
    world.settle();
    assert_eq!(world.get("c"), &before);
    world.run("a", vec![]);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["SubOrchestrationInstanceFailed"]
    );
}

/// S-9.13, step 6: nothing waits for ever, not even for a child that never was.
#[test]
fn a_child_that_cannot_be_fails_again_after_a_rewind() {
    let mut world = World::running(vec![child(1, "@e@k"), child(2, "a")]);
    world.run("a", vec![fail(3, failure("Child"))]);
    world.rewind("a").unwrap();
    assert!(world.sent().is_empty());
    world.run("a", vec![]);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        [
            "SubOrchestrationInstanceFailed",
            "SubOrchestrationInstanceFailed"
        ]
    );
}

fn rewinding(history: Vec<HistoryEvent>) -> EpisodeResult {
    EpisodeResult {
        actions: vec![Action::Rewind { id: -1, history }],
        ..EpisodeResult::default()
    }
}

/// A world whose worker holds an episode of "a", and the history it would answer with.
fn rewriting() -> (World, Vec<HistoryEvent>) {
    let mut world = World::with_a();
    let later = world.now.plus(Duration::from_secs(60));
    world.run("a", vec![task(1, "A"), timer(2, later), child(3, "c")]);
    world.settle();
    world.raise("a", "go", None);
    world.lease("a");
    let mut history = world.history("a");
    for event in &mut history {
        if let EventKind::ExecutionStarted(started) = &mut event.kind {
            started.execution_id = ExecutionId::from_stored("0123456789abcdef0123456789abcdef");
        }
    }
    (world, history)
}

/// S-9.16: the lock was released at the failure; a section that was left is none.
#[test]
fn a_history_that_ends_in_a_critical_section_is_refused() {
    let (mut world, mut history) = rewriting();
    let of = |kind| HistoryEvent {
        id: -1,
        at: Timestamp::MIN,
        kind: EventKind::Other(OtherEvent {
            kind,
            body: bytes::Bytes::new(),
        }),
    };
    history.push(of(OtherKind::EntityLockGranted));
    let error = world.respond("a", rewinding(history.clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    history.push(of(OtherKind::EntityUnlockSent));
    world.respond("a", rewinding(history)).unwrap();
}

/// S-9.15.
#[test]
fn a_history_rewritten_by_a_worker_is_adopted() {
    let (mut world, history) = rewriting();
    world.respond("a", rewinding(history)).unwrap();
    let record = &world.get("a").record;
    assert_eq!(
        record.execution_id.as_str(),
        "0123456789abcdef0123456789abcdef"
    );
    assert_eq!((record.status, record.generation), (Status::Running, 2));
    assert_eq!(*world.kinds("a").last().unwrap(), "ExecutionRewound");
    assert_eq!(world.nodes["a"].timers.len(), 1, "armed again, once");
    assert_eq!(world.queued("a").len(), 1, "queued again, once");
    assert_eq!(world.sent(), [("c".to_owned(), "RewindChild")]);
    world.settle();
    assert_eq!(kinds(&world.run("a", vec![])), ["OrchestratorStarted"]);
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    assert!(world.succeed("a", 1, "x"));
    assert_eq!(world.run("a", vec![]).len(), 3);
}

/// S-9.15, S-0.3: an id that does not tell the generations apart is not used.
#[test]
fn a_rewritten_history_under_the_old_generations_id_gets_a_fresh_one() {
    let (mut world, _) = rewriting();
    let old = world.get("a").record.execution_id.clone();
    let history = world.history("a");
    world.respond("a", rewinding(history)).unwrap();
    assert_ne!(world.get("a").record.execution_id, old);
}

/// S-9.15, S-3.14: nothing is applied.
#[test]
fn a_rewritten_history_that_is_none_is_refused() {
    let (mut world, history) = rewriting();
    let before = world.get("a").clone();
    let without = history[..1].to_vec();
    let twice = [&history[..], &history[1..2]].concat();
    let mut finished = history;
    finished.push(HistoryEvent {
        id: 9,
        at: world.now,
        kind: EventKind::ExecutionCompleted {
            status: Status::Failed,
            result: None,
            failure: None,
        },
    });
    for wrong in [without, twice, finished] {
        let error = world.respond("a", rewinding(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(world.get("a"), &before);
    }
}

/// S-9.2: an action of an episode in flight does not lift a suspension.
#[test]
fn a_suspension_outlasts_a_rewritten_history() {
    let (mut world, history) = rewriting();
    world.suspend("a");
    world.respond("a", rewinding(history)).unwrap();
    assert_eq!(world.status("a"), Status::Suspended);
    world.resume("a");
    assert!(world.has_work("a"));
}

/// S-9.13: a rewind of a child on its own answers the same parent.
#[test]
fn a_child_rewound_on_its_own_keeps_its_link() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![fail(1, failure("Broken"))]);
    let link = world.get("c").record.parent.clone();
    world.rewind("c").unwrap();
    assert_eq!(world.get("c").record.parent, link);
    assert!(matches!(world.transit[0].1, Message::ChildFailed { .. }));
}
