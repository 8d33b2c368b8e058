//! Suspend, resume and terminate, alone and down a tree of children.

use std::time::Duration;

use super::script::*;
use super::world::*;
use crate::history::EventKind;
use crate::orchestration::Status;

/// S-9.2, S-9.4, S-9.5.
#[test]
fn suspending_between_episodes_leaves_a_pair_of_markers() {
    let mut world = World::running(vec![]);
    world.raise("a", "go", None);
    assert!(world.suspend("a"));
    assert_eq!(world.status("a"), Status::Suspended);
    assert!(!world.has_work("a"));
    assert!(world.resume("a"));
    assert_eq!(world.status("a"), Status::Running);
    let history = world.history("a");
    assert_eq!(
        kinds(&history)[2..],
        ["ExecutionSuspended", "ExecutionResumed"]
    );
    let reason = |at: usize| match &history[at].kind {
        EventKind::ExecutionSuspended { input } | EventKind::ExecutionResumed { input } => {
            input.clone()
        }
        _ => None,
    };
    assert_eq!(
        (reason(2), reason(3)),
        (Some("why".into()), Some("on".into()))
    );
    assert_eq!(kinds(&world.run("a", vec![]))[1..], ["EventRaised"]);
}

/// S-9.2, S-9.5: its actions take effect, and the marker follows them.
#[test]
fn an_episode_in_flight_commits_and_the_marker_follows_it() {
    let mut world = World::with_a();
    world.lease("a");
    world.suspend("a");
    assert!(world.history("a").is_empty());
    world.respond("a", saying("x", vec![task(1, "A")])).unwrap();
    assert_eq!(world.status("a"), Status::Suspended);
    assert_eq!(
        world.kinds("a")[2..],
        ["TaskScheduled", "ExecutionSuspended"]
    );
    assert!(world.succeed("a", 1, "x"), "S-9.3: it queues up");
    assert!(!world.has_work("a"));
    world.resume("a");
    assert_eq!(kinds(&world.run("a", vec![]))[1..], ["TaskCompleted"]);
}

/// S-2.3: the end wins over the suspension.
#[test]
fn an_episode_in_flight_may_end_a_suspended_instance() {
    for status in [
        Status::Completed,
        Status::Failed,
        Status::Canceled,
        Status::Terminated,
    ] {
        let mut world = World::with_a();
        world.lease("a");
        world.suspend("a");
        let result = saying("", vec![finish(1, status, None)]);
        world.respond("a", result).unwrap();
        assert_eq!(world.status("a"), status);
        assert!(!world.kinds("a").contains(&"ExecutionSuspended"));
    }
}

/// S-9.4: pending if it never ran; S-9.5: no markers in a history that has not begun.
#[test]
fn an_instance_suspended_before_its_first_episode_resumes_as_pending() {
    let mut world = World::with_a();
    world.suspend("a");
    world.advance(Duration::from_secs(1));
    world.resume("a");
    assert_eq!(world.status("a"), Status::Pending);
    assert_eq!(
        kinds(&world.run("a", vec![])),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
}

/// S-9.5: a marker that is not yet owed is not paired either.
#[test]
fn resuming_while_the_episode_is_still_out_leaves_no_marker() {
    let mut world = World::with_a();
    world.lease("a");
    world.suspend("a");
    world.resume("a");
    assert_eq!(world.status("a"), Status::Pending, "S-2.4");
    world.respond("a", Default::default()).unwrap();
    assert_eq!(
        world.kinds("a"),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
    assert_eq!(world.status("a"), Status::Running);
}

/// S-9.5: the same if the episode was lost meanwhile.
#[test]
fn a_suspension_whose_episode_was_lost_leaves_no_marker() {
    let mut world = World::running(vec![]);
    world.raise("a", "go", None);
    world.lease("a");
    world.suspend("a");
    world.lose_lease("a");
    assert!(!world.has_work("a"));
    world.resume("a");
    assert_eq!(world.run("a", vec![]).len(), 2);
    assert_eq!(world.kinds("a").len(), 4);
}

/// S-9.6, trap 19: a stray marker fails orchestrations of one SDK.
#[test]
fn suspending_twice_and_resuming_what_runs_change_nothing() {
    let mut world = World::running(vec![]);
    assert!(!world.resume("a"));
    world.suspend("a");
    let before = (world.get("a").clone(), world.history("a"));
    world.advance(Duration::from_secs(1));
    assert!(!world.suspend("a"));
    assert_eq!((world.get("a").clone(), world.history("a")), before);
}

/// S-8.7, S-9.3.
#[test]
fn events_and_timers_pile_up_while_suspended_and_come_in_order() {
    let mut world = World::with_a();
    let due = world.now.plus(Duration::from_secs(1));
    world.run("a", vec![timer(1, due)]);
    world.suspend("a");
    world.raise("a", "one", None);
    world.advance(Duration::from_secs(2));
    world.raise("a", "two", None);
    world.resume("a");
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["EventRaised", "TimerFired", "EventRaised"]
    );
}

/// S-9.7.
#[test]
fn terminating_writes_three_events_and_the_output_verbatim() {
    let mut world = World::with_a();
    let later = world.now.plus(Duration::from_secs(60));
    world.run("a", vec![task(5, "A"), timer(2, later)]);
    world.raise("a", "go", None);
    world.lease("a");
    assert!(world.terminate("a", Some(""), true));
    let history = world.history("a");
    assert_eq!(
        kinds(&history)[4..],
        [
            "OrchestratorStarted",
            "ExecutionTerminated",
            "ExecutionCompleted"
        ]
    );
    assert_eq!(history[6].id, 6, "the highest and one");
    assert_eq!(
        history[5].kind,
        EventKind::ExecutionTerminated {
            input: Some(String::new()),
            recurse: true
        }
    );
    let record = &world.get("a").record;
    assert_eq!(
        (record.status, record.output.as_deref()),
        (Status::Terminated, Some(""))
    );
    let node = &world.nodes["a"];
    assert!(node.lease.is_none() && node.mailbox.is_empty() && node.timers.is_empty());
    assert!(world.activities.is_empty());
}

/// S-9.7, S-6.6: `ExecutionStarted` is written first.
#[test]
fn an_instance_that_never_ran_can_be_terminated() {
    let mut world = World::with_a();
    assert!(world.terminate("a", None, false));
    assert_eq!(
        world.kinds("a"),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionTerminated",
            "ExecutionCompleted"
        ]
    );
    assert_eq!(world.history("a")[3].id, 1);
}

/// S-9.10.
#[test]
fn suspending_and_then_terminating_ends_terminated() {
    let mut world = World::running(vec![]);
    world.suspend("a");
    assert!(world.terminate("a", Some("x"), false));
    assert_eq!(world.status("a"), Status::Terminated);
}

/// a has children c and d, c has e; all are active.
fn family() -> World {
    let mut world = World::running(vec![child(1, "c"), child(2, "d")]);
    world.settle();
    world.run("c", vec![child(1, "e")]);
    world.settle();
    world
}

/// S-9.8: the root keeps its status until all below are terminated.
#[test]
fn a_recursive_termination_freezes_the_root_until_all_descendants_are_terminated() {
    let mut world = family();
    world.raise("a", "go", None);
    world.lease("a");
    assert!(world.terminate("a", Some("out"), true));
    assert!(world.nodes["a"].lease.is_none());
    let mut seen = Vec::new();
    while world.deliver() {
        if world.status("a") == Status::Terminated {
            seen.push(world.transit.len());
        } else {
            assert_eq!(world.status("a"), Status::Running);
            assert!(!world.has_work("a"), "nothing is dispatched");
        }
    }
    assert!(!seen.is_empty());
    for id in ["a", "c", "d", "e"] {
        assert_eq!(world.status(id), Status::Terminated, "{id}");
        assert_eq!(world.get(id).record.output.as_deref(), Some("out"), "{id}");
    }
    assert!(world.get("a").record.completed_at >= world.get("e").record.completed_at);
}

/// S-9.8, S-7.8: the flag counts literally in both directions.
#[test]
fn without_the_flag_children_go_on() {
    let mut world = family();
    world.terminate("a", None, false);
    world.settle();
    for id in ["c", "d", "e"] {
        assert!(!world.status(id).is_terminal(), "{id}");
    }
}

/// S-9.8: the walk passes through finished children, also those finished while it is under way.
#[test]
fn a_finished_child_passes_the_termination_on() {
    let mut world = family();
    world.run_again("c", vec![complete(2, "done")]);
    world.settle();
    let before = world.get("c").clone();
    world.terminate("a", Some("out"), true);
    world.settle();
    assert_eq!(world.status("e"), Status::Terminated);
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(world.get("c"), &before, "S-2.10");
}

/// S-9.8: a purged child has nothing to answer for, and holds nobody up.
#[test]
fn a_purged_child_holds_nobody_up() {
    let mut world = family();
    world.run_again("d", vec![complete(2, "done")]);
    world.settle();
    world.purge("d");
    world.terminate("a", None, true);
    world.settle();
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(world.status("e"), Status::Terminated);
}

/// S-9.8: only children whose parent link matches.
#[test]
fn an_instance_that_took_over_a_childs_id_is_left_alone() {
    let mut world = family();
    world.run("d", vec![complete(2, "done")]);
    world.settle();
    world.start("d");
    world.terminate("a", None, true);
    world.settle();
    assert_eq!(world.status("d"), Status::Pending);
    assert_eq!(world.status("a"), Status::Terminated);
}

/// S-9.8: children of the current generation.
#[test]
fn children_of_a_former_generation_are_left_alone() {
    let mut world = family();
    world.run_again("a", vec![renew(9, None)]);
    world.run("a", vec![child(1, "new")]);
    world.settle();
    world.terminate("a", None, true);
    world.settle();
    assert_eq!(world.status("new"), Status::Terminated);
    assert!(!world.status("c").is_terminal());
}

/// S-9.8, S-4.18: ids that are none, and the own one, are no children.
#[test]
fn children_that_were_never_created_hold_nobody_up() {
    let mut world = World::running(vec![child(1, "a"), child(2, "@e@k"), child(3, "c")]);
    world.settle();
    world.terminate("a", None, true);
    assert_eq!(world.sent(), [("c".to_owned(), "TerminateTree")]);
    world.settle();
    assert_eq!(world.status("a"), Status::Terminated);
}

/// S-9.8, S-2.9: frozen is frozen.
#[test]
fn a_frozen_instance_is_neither_suspended_nor_terminated_nor_failed() {
    let mut world = family();
    world.terminate("a", Some("first"), true);
    assert!(!world.suspend("a"));
    assert!(!world.terminate("a", Some("second"), false));
    world.fail("a", failure("HistoryTooLarge"));
    assert_eq!(world.status("a"), Status::Running);
    world.settle();
    assert_eq!(world.get("a").record.output.as_deref(), Some("first"));
}

/// S-9.8: two walks that meet are both answered.
#[test]
fn terminating_parent_and_child_recursively_at_once_ends_both() {
    let mut world = family();
    world.terminate("c", Some("of c"), true);
    world.terminate("a", Some("of a"), true);
    world.settle();
    for id in ["a", "c", "d", "e"] {
        assert_eq!(world.status(id), Status::Terminated, "{id}");
    }
    assert_eq!(world.get("c").record.output.as_deref(), Some("of c"));
}

/// S-9.8, S-9.12: descendants of a finished instance under termination have first to end.
#[test]
fn a_finished_instance_that_passes_a_termination_on_is_not_rewound_meanwhile() {
    let mut world = family();
    world.run_again("c", vec![fail(2, failure("Broken"))]);
    world.settle();
    world.terminate("a", None, true);
    while world.get("c").record.terminating.is_none() {
        assert!(world.deliver());
    }
    assert!(world.rewind("c").is_err());
    world.settle();
    assert!(world.rewind("c").is_ok());
}

/// S-9.8: replacing an instance on the way does not leave the root waiting.
#[test]
fn an_instance_replaced_during_the_walk_holds_nobody_up() {
    let mut world = family();
    world.run_again("c", vec![complete(2, "done")]);
    world.settle();
    world.terminate("a", None, true);
    while world.get("c").record.terminating.is_none() {
        assert!(world.deliver());
    }
    world.restart("c");
    world.settle();
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(world.status("c"), Status::Pending);
}

/// S-4.16, S-9.7, S-9.8: an answer to the episode that was fenced changes nothing, frozen or finished.
#[test]
fn the_answer_to_a_fenced_episode_is_refused() {
    for recurse in [false, true] {
        let mut world = World::running(vec![child(1, "c")]);
        world.raise("a", "go", None);
        world.lease("a");
        let fenced = world.nodes["a"].lease.clone();
        assert!(world.terminate("a", Some("stop"), recurse));
        let before = world.get("a").clone();
        world.nodes.get_mut("a").unwrap().lease = fenced;
        let late = saying("", vec![complete(2, "late")]);
        assert!(world.respond("a", late).is_err());
        assert_eq!(world.get("a"), &before);
    }
}
