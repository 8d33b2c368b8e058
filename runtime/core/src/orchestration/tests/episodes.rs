//! Episodes: their clock, their order, where they are cut, and handing one out again.

use std::time::Duration;

use super::script::*;
use super::world::*;
use crate::action::Action;
use crate::history::{EventKind, HistoryEvent};
use crate::message::Message;
use crate::orchestration::{Limits, Status};
use crate::time::Timestamp;

const MILLISECOND: Duration = Duration::from_millis(1);

fn names(events: &[HistoryEvent]) -> Vec<String> {
    events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::EventRaised { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn small(events: usize) -> Limits {
    Limits {
        batch_events_max: events,
        ..Limits::default()
    }
}

/// S-3.6, S-0.4: also while the machine's clock stands still, and in every generation.
#[test]
fn the_clock_rises_by_a_millisecond_over_all_generations() {
    let mut world = World::with_a();
    let begin = world.now;
    let clocks: Vec<Timestamp> = (0..3)
        .flat_map(|_| {
            let first = world.run("a", vec![])[0].at;
            [first, world.run_again("a", vec![renew(1, None)])[0].at]
        })
        .collect();
    for (step, clock) in (0..).zip(clocks) {
        assert_eq!(clock, begin.plus(MILLISECOND * step));
    }
}

/// S-3.6: "in any generation" holds for replacement, restart and rewind too.
#[test]
fn the_clock_goes_on_after_restart_and_rewind() {
    let mut world = World::running(vec![fail(1, failure("Broken"))]);
    let first = world.get("a").record.clock.unwrap();
    world.rewind("a").unwrap();
    let second = world.run("a", vec![fail(1, failure("Broken"))])[0].at;
    assert_eq!(second, first.plus(MILLISECOND));
    world.restart("a");
    assert_eq!(world.run("a", vec![])[0].at, second.plus(MILLISECOND));
}

/// S-3.6: a machine clock that was set back does not show.
#[test]
fn the_clock_does_not_follow_a_machine_clock_that_is_set_back() {
    let mut world = World::running(vec![]);
    let first = world.get("a").record.clock.unwrap();
    world.now = Timestamp::new(5, 0);
    assert_eq!(world.run_again("a", vec![])[0].at, first.plus(MILLISECOND));
}

/// S-3.6: one SDK finishes a timer only at a clock strictly later than its time.
#[test]
fn the_clock_is_a_millisecond_past_a_timer_that_fires_with_it() {
    let mut world = World::with_a();
    let due = world.now.plus(Duration::from_secs(7));
    world.run("a", vec![timer(1, due)]);
    world.advance(Duration::from_secs(7));
    let events = world.run("a", vec![]);
    assert_eq!(events[0].at, due.plus(MILLISECOND));
    let EventKind::TimerFired { fire_at, timer_id } = events[1].kind else {
        panic!("{events:?}")
    };
    assert_eq!((fire_at, timer_id), (due, 1));
}

/// S-6.2.
#[test]
fn timer_in_the_past_fires_on_the_next_turn() {
    let mut world = World::with_a();
    let past = Timestamp::new(3, 7);
    world.run("a", vec![timer(1, past), timer(2, world_now())]);
    assert!(!world.has_work("a"), "it waits to be fired");
    world.fire_timers();
    assert_eq!(
        kinds(&world.run("a", vec![])),
        ["OrchestratorStarted", "TimerFired", "TimerFired"]
    );
}

fn world_now() -> Timestamp {
    World::new().now
}

/// S-3.5: tests of clients count them.
#[test]
fn two_zero_timers_in_a_row_take_two_episodes() {
    let mut world = World::running(vec![timer(1, world_now())]);
    world.fire_timers();
    let first = world.run("a", vec![timer(2, world_now())]);
    world.fire_timers();
    let second = world.run("a", vec![complete(3, "done")]);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(second[0].at > first[0].at);
}

/// S-6.5: those due at the same time keep the order of their creation.
#[test]
fn timers_of_the_same_time_fire_in_the_order_of_creation() {
    let mut world = World::running((1..=20).map(|id| timer(id, world_now())).collect());
    world.fire_timers();
    let fired: Vec<i32> = world.run("a", vec![])[1..]
        .iter()
        .map(|e| match e.kind {
            EventKind::TimerFired { timer_id, .. } => timer_id,
            _ => panic!("{e:?}"),
        })
        .collect();
    assert_eq!(fired, (1..=20).collect::<Vec<_>>());
}

/// S-4.12: to the nanosecond, in both events.
#[test]
fn a_timers_time_is_repeated_to_the_nanosecond() {
    let mut world = World::with_a();
    let due = Timestamp::new(1_700_000_001, 1);
    world.run("a", vec![timer(1, due)]);
    let created = world.history("a").pop().unwrap();
    assert_eq!(created.kind, EventKind::TimerCreated { fire_at: due });
    assert_eq!(
        created.at, world.now,
        "a confirming event has the commit time"
    );
    assert_eq!(world.nodes["a"].timers[0].fire_at, due);
}

/// S-4.12.
#[test]
fn a_timer_without_a_time_is_due_now() {
    let action = Action::CreateTimer {
        id: 1,
        fire_at: None,
    };
    let mut world = World::running(vec![action]);
    let now = world.now;
    let created = world.history("a").pop().unwrap();
    assert_eq!(created.kind, EventKind::TimerCreated { fire_at: now });
    world.fire_timers();
    assert!(world.has_work("a"));
}

/// S-3.11: one SDK takes events equal in name, payload and time for one.
#[test]
fn events_raised_at_the_same_time_get_times_of_their_own() {
    let mut world = World::with_a();
    for _ in 0..3 {
        world.raise("a", "go", None);
    }
    let events = world.run("a", vec![]);
    let now = world.now;
    let times: Vec<Timestamp> = events[2..].iter().map(|e| e.at).collect();
    let micros = |n| now.plus(Duration::from_micros(n));
    assert_eq!(times, [micros(0), micros(1), micros(2)]);
    // The next batch goes on from there.
    world.raise("a", "go", None);
    assert_eq!(world.run("a", vec![])[1].at, micros(3));
}

/// S-3.10, S-5.3: an outcome has the time at which it was accepted.
#[test]
fn an_inbound_event_keeps_the_time_of_its_arrival() {
    let mut world = World::running(vec![task(1, "A")]);
    world.advance(Duration::from_secs(1));
    world.succeed("a", 1, "x");
    let accepted = world.now;
    world.advance(Duration::from_secs(1));
    let events = world.run("a", vec![]);
    assert_eq!((events[0].at, events[1].at), (world.now, accepted));
}

/// S-3.2: in order of arrival.
#[test]
fn messages_are_delivered_in_the_order_of_their_arrival() {
    let mut world = World::running(vec![task(1, "A"), timer(2, world_now())]);
    world.raise("a", "one", None);
    world.succeed("a", 1, "x");
    world.fire_timers();
    world.raise("a", "two", None);
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["EventRaised", "TaskCompleted", "TimerFired", "EventRaised"]
    );
}

/// S-3.2: the rest goes into the next episode.
#[test]
fn a_batch_is_cut_at_the_count_limit() {
    let mut world = World::with_a();
    world.limits = small(3);
    for n in 1..=7 {
        world.raise("a", &format!("{n}"), None);
    }
    assert_eq!(names(&world.run("a", vec![])), ["1", "2", "3"]);
    assert_eq!(names(&world.run("a", vec![])), ["4", "5", "6"]);
    assert_eq!(names(&world.run("a", vec![])), ["7"]);
    assert!(!world.has_work("a"));
}

/// S-3.2, S-1.11: the history counts, the first event is sent whatever its size.
#[test]
fn a_batch_is_cut_at_the_byte_limit_of_a_work_item() {
    let mut world = World::running(vec![]);
    world.limits.work_item_bytes_max = 10_000;
    let large = "x".repeat(4_000);
    for name in ["1", "2", "3"] {
        world.raise("a", name, Some(&large));
    }
    assert_eq!(names(&world.run("a", vec![])), ["1"]);
    let huge = "x".repeat(20_000);
    world.raise("a", "4", Some(&huge));
    assert_eq!(names(&world.run("a", vec![])), ["2"]);
    assert_eq!(names(&world.run("a", vec![])), ["3"]);
    assert_eq!(names(&world.run("a", vec![])), ["4"]);
}

/// S-13.20: only streaming workers can run it, and there history takes no room.
#[test]
fn a_history_over_the_limit_does_not_force_episodes_of_one_event() {
    let mut world = World::with_a();
    world.raise("a", "big", Some(&"x".repeat(20_000)));
    world.run("a", vec![]);
    world.limits.work_item_bytes_max = 10_000;
    world.raise("a", "1", None);
    world.raise("a", "2", None);
    assert_eq!(names(&world.run("a", vec![])), ["1", "2"]);
}

/// S-3.30: what was not processed comes again, in order.
#[test]
fn unprocessed_events_return_to_the_head_of_the_inbox() {
    let mut world = World::with_a();
    for name in ["1", "2", "3"] {
        world.raise("a", name, None);
    }
    world.run_with("a", processing(3, vec![task(1, "A")]));
    assert_eq!(
        world.kinds("a"),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "EventRaised",
            "TaskScheduled"
        ]
    );
    world.raise("a", "4", None);
    assert_eq!(names(&world.run("a", vec![])), ["2", "3", "4"]);
}

/// S-3.30: the first event of an episode cannot be refused, or its clock would come twice.
#[test]
fn processing_nothing_still_commits_the_start_of_the_episode() {
    let mut world = World::with_a();
    world.raise("a", "1", None);
    world.run_with("a", processing(0, vec![]));
    assert_eq!(
        world.kinds("a"),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
    assert_eq!(names(&world.run("a", vec![])), ["1"]);
}

/// S-3.30: outcomes too, and they still count once.
#[test]
fn an_unprocessed_outcome_stays_open_and_comes_again() {
    let mut world = World::running(vec![task(1, "A")]);
    world.activities.push(world.activities[0].clone());
    world.succeed("a", 1, "x");
    world.run_with("a", processing(1, vec![]));
    assert!(!world.succeed("a", 1, "a second one"));
    assert_eq!(kinds(&world.run("a", vec![]))[1..], ["TaskCompleted"]);
}

/// S-3.12, S-5.5: a lost episode is built anew, with a later clock and what has arrived since.
#[test]
fn a_lost_episode_is_handed_out_again_with_what_came_since() {
    let mut world = World::with_a();
    world.raise("a", "1", None);
    let first = world.lease("a").unwrap();
    world.lose_lease("a");
    world.raise("a", "2", None);
    world.advance(Duration::from_secs(1));
    let second = world.run("a", vec![]);
    assert!(second[0].at > first[0].at);
    assert_eq!(names(&second), ["1", "2"]);
    assert_eq!(world.kinds("a").len(), 4);
}

/// S-4.17: to the byte, whatever has come since, also from storage.
#[test]
fn a_pinned_episode_is_handed_out_again_identically() {
    let mut world = World::with_a();
    world.raise("a", "1", None);
    world.lease("a").unwrap();
    let node = world.nodes.get_mut("a").unwrap();
    let first = node.lease.take().unwrap();
    node.instance.as_mut().unwrap().pin(&first);
    world.raise("a", "2", None);
    world.advance(Duration::from_secs(60));
    world.limits = small(1);
    world.lease("a").unwrap();
    assert_eq!(world.nodes["a"].lease.as_ref(), Some(&first));
    world.respond("a", Default::default()).unwrap();
    assert_eq!(world.get("a").record.pinned, None);
    let next = world.run("a", vec![]);
    assert_eq!(
        (next[0].at, names(&next)),
        (world.now, vec!["2".to_owned()])
    );
}

/// S-4.17, S-3.2: a pin covers carried events too.
#[test]
fn a_pinned_cut_through_carried_events_is_kept() {
    let mut world = World::with_a();
    world.limits = small(2);
    let carried = ["1", "2", "3"].map(|name| carry(name, None)).to_vec();
    world.run("a", vec![renew_with(1, None, None, carried)]);
    world.raise("a", "4", None);
    world.lease("a").unwrap();
    let node = world.nodes.get_mut("a").unwrap();
    let first = node.lease.take().unwrap();
    node.instance.as_mut().unwrap().pin(&first);
    world.limits = small(10);
    assert_eq!(names(&world.run("a", vec![])), ["1", "2"]);
    assert_eq!(names(&world.run("a", vec![])), ["3", "4"]);
}

/// S-4.17: suspending and resuming leaves the cut as it is.
#[test]
fn a_pinned_episode_outlasts_a_suspension() {
    let mut world = World::running(vec![]);
    world.raise("a", "1", None);
    world.lease("a").unwrap();
    let node = world.nodes.get_mut("a").unwrap();
    let first = node.lease.take().unwrap();
    node.instance.as_mut().unwrap().pin(&first);
    assert!(world.suspend("a"));
    assert!(!world.has_work("a"));
    world.advance(Duration::from_secs(5));
    assert!(world.resume("a"));
    world.lease("a").unwrap();
    assert_eq!(world.nodes["a"].lease.as_ref(), Some(&first));
}

/// S-4.17, S-9.13: not even the link to a parent that was rewound meanwhile changes it.
#[test]
fn a_pinned_first_episode_outlasts_a_rewind_of_the_parent() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.lease("c").unwrap();
    let node = world.nodes.get_mut("c").unwrap();
    let first = node.lease.take().unwrap();
    node.instance.as_mut().unwrap().pin(&first);
    world.run_again("a", vec![fail(2, failure("Broken"))]);
    world.rewind("a").unwrap();
    world.settle();
    world.lease("c").unwrap();
    assert_eq!(world.nodes["c"].lease.as_ref(), Some(&first));
    world
        .respond("c", saying("", vec![complete(1, "x")]))
        .unwrap();
    world.settle();
    assert_eq!(
        world.nodes["a"].mailbox.len(),
        1,
        "it answers the new generation"
    );
}

/// S-3.1, S-3.2: exactly one, always first.
#[test]
fn every_episode_begins_with_one_orchestrator_started() {
    let mut world = World::with_a();
    for _ in 0..3 {
        let events = world.run_again("a", vec![]);
        let started = kinds(&events)
            .iter()
            .filter(|k| **k == "OrchestratorStarted")
            .count();
        assert_eq!((kinds(&events)[0], started), ("OrchestratorStarted", 1));
    }
}

/// S-4.13: several outcomes under one task id, whichever comes first.
#[test]
fn of_two_open_activities_with_one_id_either_may_finish_first() {
    let mut world = World::running(vec![task(1, "A"), task(1, "B"), task(1, "C")]);
    assert_eq!(world.queued("a").len(), 3);
    world.activities.reverse();
    world.succeed("a", 1, "of C");
    world.run("a", vec![task(1, "D")]);
    assert_eq!(world.get("a").open_activities(), [0, 1, 3]);
    let chunks = world.nodes["a"].chunks.clone();
    let tasks = world.get("a").activity_tasks(&chunks, &[0, 1, 3]).unwrap();
    let names: Vec<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["A", "B", "D"]);
    world.succeed("a", 1, "of B");
    world.run("a", vec![]);
    assert_eq!(world.get("a").open_activities(), [0, 3]);
    world.succeed("a", 1, "of A");
    world.succeed("a", 1, "of D");
    world.run("a", vec![]);
    assert!(world.get("a").open_activities().is_empty());
    assert!(world.get("a").record.overtaken.is_empty());
}

/// S-4.13: a retry re-uses the id of the attempt that failed, and is an item of its own.
#[test]
fn a_retry_under_the_same_id_is_a_new_activity() {
    let mut world = World::running(vec![task(1, "A")]);
    world.break_down("a", 1);
    world.run("a", vec![timer(2, world_now())]);
    world.fire_timers();
    world.run("a", vec![task(1, "A")]);
    let fences: Vec<u32> = world
        .activities
        .iter()
        .map(|q| q.task.fence.scheduling)
        .collect();
    assert_eq!(fences, [2], "the timer took 1");
    world.succeed("a", 1, "x");
    world.run("a", vec![complete(3, "x")]);
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-2.9: commands are not for the mailbox.
#[test]
fn what_does_not_wait_is_not_taken_as_waiting() {
    let mut world = World::with_a();
    let message = Message::Terminate {
        output: None,
        recurse: false,
    };
    assert!(!world.arrive("a", message));
}
