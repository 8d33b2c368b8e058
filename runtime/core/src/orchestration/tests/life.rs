//! The life of an instance, and the two histories that clients' tests know event by event.

use std::time::Duration;

use super::script::*;
use super::world::*;
use crate::history::EventKind;
use crate::id::ExecutionId;
use crate::orchestration::Status;

/// S-3.33.
#[test]
fn an_activity_and_a_completion_leave_six_events() {
    let mut world = World::with_a();
    assert_eq!(world.status("a"), Status::Pending);
    assert!(world.history("a").is_empty());

    let first = world.run("a", vec![task(1, "A")]);
    assert_eq!(kinds(&first), ["OrchestratorStarted", "ExecutionStarted"]);
    assert_eq!((first[0].id, first[1].id), (-1, 0));
    assert_eq!(world.status("a"), Status::Running);
    let generation = world.get("a").record.execution_id.clone();
    assert_eq!(world.activities[0].task.task_id, 1);
    assert_eq!(world.activities[0].task.fence.execution_id, generation);

    assert!(world.succeed("a", 1, "7"));
    let second = world.run("a", vec![complete(2, "7")]);
    assert_eq!(kinds(&second), ["OrchestratorStarted", "TaskCompleted"]);
    assert!(second[0].at > first[0].at);
    let history = world.history("a");
    assert_eq!(
        kinds(&history),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "OrchestratorStarted",
            "TaskCompleted",
            "ExecutionCompleted"
        ]
    );
    let ids: Vec<i32> = history.iter().map(|e| e.id).collect();
    assert_eq!(ids, [-1, 0, 1, -1, -1, 2]);
    assert_eq!(world.status("a"), Status::Completed);
    assert_eq!(world.get("a").record.output.as_deref(), Some("7"));
}

/// S-3.33, the other ending of step 4.
#[test]
fn continuing_as_new_instead_empties_the_history() {
    let mut world = World::running(vec![task(1, "A")]);
    let old = world.get("a").record.execution_id.clone();
    world.succeed("a", 1, "7");
    let second = world.run("a", vec![renew(2, Some("7"))]);
    assert!(world.history("a").is_empty());
    assert_eq!(world.status("a"), Status::Running);
    assert_ne!(world.get("a").record.execution_id, old);

    let third = world.run("a", vec![complete(1, "done")]);
    assert_eq!(kinds(&third), ["OrchestratorStarted", "ExecutionStarted"]);
    assert!(third[0].at >= second[0].at.plus(Duration::from_millis(1)));
    let EventKind::ExecutionStarted(started) = &third[1].kind else {
        panic!("{third:?}")
    };
    assert_eq!(started.input.as_deref(), Some("7"));
    assert_eq!(started.execution_id, world.get("a").record.execution_id);
}

/// S-3.13: a client's test counts exactly these.
#[test]
fn an_activity_a_timer_and_a_child_leave_twelve_events() {
    let mut world = World::running(vec![task(1, "A")]);
    world.succeed("a", 1, "1");
    let due = world.now.plus(Duration::from_secs(5));
    world.run("a", vec![timer(2, due)]);
    world.advance(Duration::from_secs(5));
    world.run("a", vec![child(3, "c")]);
    world.settle();
    world.run("c", vec![complete(1, "of the child")]);
    world.settle();
    world.run("a", vec![complete(4, "done")]);
    let history = world.history("a");
    assert_eq!(
        kinds(&history),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "OrchestratorStarted",
            "TaskCompleted",
            "TimerCreated",
            "OrchestratorStarted",
            "TimerFired",
            "SubOrchestrationInstanceCreated",
            "OrchestratorStarted",
            "SubOrchestrationInstanceCompleted",
            "ExecutionCompleted",
        ]
    );
    let ids: Vec<i32> = history.iter().map(|e| e.id).collect();
    assert_eq!(ids, [-1, 0, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4]);
}

/// S-2.4: clients wait for the start while the first episode runs.
#[test]
fn an_instance_is_pending_until_its_first_episode_is_committed() {
    let mut world = World::with_a();
    world.lease("a").unwrap();
    assert_eq!(world.status("a"), Status::Pending);
    world.respond("a", Default::default()).unwrap();
    assert_eq!(world.status("a"), Status::Running);
}

/// S-2.3.
#[test]
fn a_first_episode_may_end_the_instance() {
    for status in [
        Status::Completed,
        Status::Failed,
        Status::Terminated,
        Status::Canceled,
    ] {
        let mut world = World::running(vec![finish(1, status, Some("out"))]);
        assert_eq!(world.status("a"), status);
        assert_eq!(world.get("a").record.output.as_deref(), Some("out"));
        assert!(!world.raise("a", "go", None));
    }
}

/// S-4.2: none.
#[test]
fn without_a_completion_the_instance_waits() {
    let mut world = World::running(vec![]);
    assert_eq!(world.status("a"), Status::Running);
    assert!(!world.has_work("a"));
    world.raise("a", "go", None);
    assert!(world.has_work("a"));
}

/// S-2.9: queued, and delivered after `ExecutionStarted`.
#[test]
fn events_raised_before_the_first_episode_follow_execution_started() {
    let mut world = World::with_a();
    assert!(world.raise("a", "one", Some("1")));
    assert!(world.raise("a", "two", Some("")));
    let events = world.run("a", vec![]);
    assert_eq!(
        kinds(&events),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "EventRaised",
            "EventRaised"
        ]
    );
    let EventKind::EventRaised { name, input } = &events[3].kind else {
        panic!()
    };
    assert_eq!((name.as_str(), input.as_deref()), ("two", Some("")));
}

/// S-2.10, S-8.6: nothing that arrives later changes a finished instance.
#[test]
fn a_finished_instance_takes_nothing_and_never_runs_again() {
    let mut world = World::running(vec![task(1, "A")]);
    world.raise("a", "first", None);
    world.lease("a").unwrap();
    world.raise("a", "left over", None);
    let result = processing(2, vec![complete(2, "out")]);
    world.respond("a", result).unwrap();
    assert!(world.nodes["a"].mailbox.is_empty());
    let before = world.get("a").clone();
    let history = world.history("a");
    world.advance(Duration::from_secs(9));
    assert!(!world.raise("a", "late", None));
    assert!(!world.succeed("a", 1, "late"));
    assert!(!world.suspend("a"));
    assert!(!world.resume("a"));
    assert!(!world.terminate("a", None, true));
    assert!(!world.has_work("a"));
    assert_eq!((world.get("a"), world.history("a")), (&before, history));
}

/// S-2.10: also if the scheduler itself wants it to fail.
#[test]
fn a_finished_instance_cannot_fail_any_more() {
    let mut world = World::running(vec![complete(1, "out")]);
    world.fail("a", failure("HistoryTooLarge"));
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-2.6, S-2.7.
#[test]
fn the_created_time_stays_and_the_updated_time_never_runs_backwards() {
    let mut world = World::with_a();
    let created = world.now;
    world.advance(Duration::from_secs(3));
    world.run("a", vec![renew(1, None)]);
    assert_eq!(world.get("a").record.created_at, created);
    assert_eq!(world.get("a").record.updated_at, world.now);
    let updated = world.now;
    // The clock of the machine is set back.
    world.now = created;
    world.run("a", vec![complete(1, "out")]);
    let record = &world.get("a").record;
    assert_eq!(record.updated_at, updated);
    assert_eq!(record.completed_at, Some(updated));
}

/// S-0.3: task ids repeat in every generation.
#[test]
fn an_outcome_of_a_former_generation_is_dropped() {
    let mut world = World::running(vec![task(1, "A")]);
    let old = world.activities[0].task.clone();
    world.run_again("a", vec![renew(2, None)]);
    world.run("a", vec![task(1, "A")]);
    assert_eq!(world.queued("a").len(), 2, "both run (S-3.20)");
    assert_eq!(world.activities[0].task, old);
    assert!(!world.succeed("a", 1, "of the old"));
    assert!(world.succeed("a", 1, "of the new"));
}

/// S-5.5: exactly one outcome for each scheduled attempt.
#[test]
fn a_second_outcome_of_the_same_scheduling_is_dropped() {
    let mut world = World::running(vec![task(1, "A")]);
    let again = world.activities[0].clone();
    world.activities.push(again.clone());
    world.activities.push(again);
    assert!(world.succeed("a", 1, "one"));
    assert!(!world.succeed("a", 1, "two"), "the first still waits");
    world.run("a", vec![]);
    assert!(!world.succeed("a", 1, "three"), "the first is in history");
}

/// S-0.3, S-2.9.
#[test]
fn an_outcome_of_an_unknown_generation_is_dropped() {
    let mut world = World::running(vec![task(1, "A")]);
    world.activities[0].task.fence.execution_id = ExecutionId::from_stored("another");
    assert!(!world.succeed("a", 1, "x"));
}

/// S-3.5: nothing before the time, the instance is pending meanwhile (S-6.6).
#[test]
fn a_scheduled_start_is_not_dispatched_early() {
    let mut world = World::new();
    let at = world.now.plus(Duration::from_secs(60));
    let mut request = new("a");
    request.scheduled_start_at = Some(at);
    world
        .create(request, crate::orchestration::Origin::Parent)
        .unwrap();
    assert!(matches!(world.effects[..], [crate::effect::Effect::StartAt(due)] if due == at));
    world.raise("a", "early", None);
    assert!(!world.has_work("a"));
    assert_eq!(world.status("a"), Status::Pending);
    world.advance(Duration::from_secs(60));
    let events = world.run("a", vec![]);
    assert_eq!(events.len(), 3);
    let EventKind::ExecutionStarted(started) = &events[1].kind else {
        panic!()
    };
    assert_eq!(started.scheduled_start_at, Some(at));
    assert_eq!(world.get("a").view(false).scheduled_start_at, Some(at));
}

/// S-6.6: the epoch, which one SDK always sends, and any other time that is not ahead.
#[test]
fn a_start_time_in_the_past_counts_as_not_given() {
    let mut world = World::new();
    let mut request = new("a");
    request.scheduled_start_at = Some(world.now);
    world
        .create(request, crate::orchestration::Origin::Parent)
        .unwrap();
    assert!(world.effects.is_empty());
    assert!(world.has_work("a"));
    assert_eq!(world.get("a").view(true).scheduled_start_at, None);
}

/// S-11.2, S-2.8: payloads only when asked for, tags always.
#[test]
fn a_view_shows_payloads_only_when_they_are_asked_for() {
    let mut world = World::new();
    let mut request = new("a");
    request.tags.insert("k".into(), "v".into());
    world
        .create(request, crate::orchestration::Origin::Parent)
        .unwrap();
    world.run_with("a", saying("half", vec![fail(1, failure("Broken"))]));
    let bare = world.get("a").view(false);
    assert_eq!(
        (bare.input, bare.output, bare.custom_status),
        (None, None, None)
    );
    assert_eq!(bare.failure, None);
    assert_eq!(bare.tags["k"], "v");
    let full = world.get("a").view(true);
    assert_eq!(full.input.as_deref(), Some("in"));
    assert_eq!(full.custom_status.as_deref(), Some("half"));
    assert_eq!(full.failure, Some(failure("Broken")));
}
