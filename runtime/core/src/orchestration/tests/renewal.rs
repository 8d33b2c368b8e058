//! Continue-as-new, and the custom status that outlasts it.

use std::time::Duration;

use super::script::*;
use super::world::*;
use crate::action::{CarryOver, EpisodeResult};
use crate::effect::Effect;
use crate::history::{EventKind, HistoryEvent};
use crate::message::{EpisodeTrace, TraceContext};
use crate::orchestration::{Limits, Origin, Status};
use crate::time::Timestamp;

fn raised(events: &[HistoryEvent]) -> Vec<(String, Timestamp)> {
    events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::EventRaised { name, .. } => Some((name.clone(), e.at)),
            _ => None,
        })
        .collect()
}

fn names(events: &[HistoryEvent]) -> Vec<String> {
    raised(events).into_iter().map(|(name, _)| name).collect()
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp::new(1_600_000_000 + seconds, 0))
}

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// S-3.17.
#[test]
fn a_new_generation_keeps_name_tags_parent_and_trace_and_takes_the_new_input() {
    let mut world = World::new();
    let trace = TraceContext {
        trace_parent: "00-a-b-01".into(),
        ..TraceContext::default()
    };
    let mut request = new("a");
    request.tags.insert("k".into(), "v".into());
    request.trace = Some(trace.clone());
    request.version = Some("1".into());
    world.create(request, Origin::Parent).unwrap();
    world.run("a", vec![renew(1, None)]);
    let events = world.run("a", vec![renew_with(1, Some(""), Some("2"), vec![])]);
    let EventKind::ExecutionStarted(started) = &events[1].kind else {
        panic!()
    };
    assert_eq!(started.input, None, "absent stays absent");
    assert_eq!(started.version.as_deref(), Some("1"));
    assert_eq!(started.tags["k"], "v");
    assert_eq!(started.trace, Some(trace));
    let events = world.run("a", vec![]);
    let EventKind::ExecutionStarted(started) = &events[1].kind else {
        panic!()
    };
    assert_eq!(started.input.as_deref(), Some(""), "and empty stays empty");
    assert_eq!(started.version.as_deref(), Some("2"), "S-16.4");
    assert_eq!((started.name.as_str(), events[1].id), ("Main", 0));
}

/// S-3.3.
#[test]
fn every_generation_has_an_id_of_32_hex_digits_of_its_own() {
    let mut world = World::with_a();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let id = world.get("a").record.execution_id.as_str().to_owned();
        assert!(id.len() == 32 && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
        assert!(seen.insert(id), "S-3.21: no limit, and no repetition");
        world.run("a", vec![renew(1, None)]);
    }
}

/// S-3.18: what it sent to itself, what it carried over, what arrived.
#[test]
fn self_sent_events_come_before_carried_ones_and_those_before_the_inbox() {
    let mut world = World::with_a();
    world.lease("a").unwrap();
    world.raise("a", "inbox", None);
    let carried = vec![carry("carried 1", None), carry("carried 2", None)];
    let actions = vec![
        renew_with(3, None, None, carried),
        event(1, "a", "self 1"),
        event(2, "a", "self 2"),
    ];
    let result = EpisodeResult {
        actions,
        ..EpisodeResult::default()
    };
    world.respond("a", result).unwrap();
    let events = world.run("a", vec![]);
    assert_eq!(
        kinds(&events)[..2],
        ["OrchestratorStarted", "ExecutionStarted"]
    );
    assert_eq!(
        names(&events),
        ["self 1", "self 2", "carried 1", "carried 2", "inbox"]
    );
}

/// S-3.19: some SDKs list them in no order, with their former times.
#[test]
fn carried_events_are_sorted_by_time_and_equal_times_keep_the_lists_order() {
    let mut world = World::with_a();
    let carried = vec![
        carry("d", at(9)),
        carry("b", at(5)),
        carry("a", at(1)),
        carry("c", at(5)),
    ];
    world.run("a", vec![renew_with(1, None, None, carried)]);
    let events = raised(&world.run("a", vec![]));
    let expected = [
        ("a".into(), at(1).unwrap()),
        ("b".into(), at(5).unwrap()),
        ("c".into(), at(5).unwrap().plus(micros(1))),
        ("d".into(), at(9).unwrap()),
    ];
    assert_eq!(events, expected);
}

/// S-3.19: the steps that tell times apart never change the order, so that sorting again does not either.
#[test]
fn carried_times_are_told_apart_without_reordering() {
    let mut world = World::with_a();
    let near = at(5).map(|t| t.plus(Duration::from_nanos(500)));
    let carried = vec![carry("a", at(5)), carry("b", at(5)), carry("c", near)];
    world.run("a", vec![renew_with(1, None, None, carried)]);
    let events = raised(&world.run("a", vec![]));
    assert!(events.is_sorted_by_key(|(_, at)| *at), "{events:?}");
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

/// S-3.19: one SDK sends zero on all of them.
#[test]
fn carried_events_with_zero_or_unset_times_get_the_commit_time_in_the_lists_order() {
    let mut world = World::with_a();
    let zero = Some(Timestamp::new(0, 0));
    let carried: Vec<CarryOver> = ["z", "y", "x"]
        .iter()
        .zip([zero, None, zero])
        .map(|(name, at)| carry(name, at))
        .collect();
    world.run("a", vec![renew_with(1, None, None, carried)]);
    let now = world.now;
    let expected = [
        ("z".to_owned(), now),
        ("y".to_owned(), now.plus(micros(1))),
        ("x".to_owned(), now.plus(micros(2))),
    ];
    assert_eq!(raised(&world.run("a", vec![])), expected);
}

/// S-3.11: across carried events and those that arrive later.
#[test]
fn carried_and_later_events_have_times_of_their_own() {
    let mut world = World::with_a();
    let carried = vec![carry("1", None), carry("2", None)];
    world.run(
        "a",
        vec![event(1, "a", "0"), renew_with(2, None, None, carried)],
    );
    world.raise("a", "3", None);
    let events = raised(&world.run("a", vec![]));
    let times: std::collections::BTreeSet<Timestamp> = events.iter().map(|(_, at)| *at).collect();
    assert_eq!((events.len(), times.len()), (4, 4));
}

/// S-3.2, S-3.5: carried events fill as many episodes as they need, and nothing overtakes them.
#[test]
fn carried_events_beyond_one_batch_come_in_the_next_one() {
    let mut world = World::with_a();
    world.limits = Limits {
        batch_events_max: 2,
        ..Limits::default()
    };
    let carried = (1..=5).map(|n| carry(&n.to_string(), None)).collect();
    world.run("a", vec![renew_with(1, None, None, carried)]);
    assert_eq!(names(&world.run("a", vec![])), ["1", "2"]);
    assert!(world.get("a").record.wants_episode, "the mailbox is empty");
    world.raise("a", "6", None);
    assert_eq!(names(&world.run("a", vec![])), ["3", "4"]);
    assert_eq!(names(&world.run("a", vec![])), ["5", "6"]);
    assert!(!world.has_work("a"));
}

/// S-3.18: a small message does not pass a carried event that is too large for the batch.
#[test]
fn a_message_never_overtakes_a_carried_event() {
    let mut world = World::with_a();
    let large = |name: &str| CarryOver {
        name: name.into(),
        input: Some("x".repeat(4_000)),
        at: None,
    };
    let carried = vec![large("1"), large("2")];
    world.run("a", vec![renew_with(1, None, None, carried)]);
    world.raise("a", "3", None);
    world.limits.work_item_bytes_max = 9_000;
    assert_eq!(names(&world.run("a", vec![])), ["1"]);
    let mut rest = Vec::new();
    while world.has_work("a") {
        rest.extend(names(&world.run("a", vec![])));
    }
    assert_eq!(rest, ["2", "3"]);
}

/// S-3.18: "the inbox survives" holds for what was carried and not seen.
#[test]
fn carried_events_that_were_not_seen_go_into_the_generation_after() {
    let mut world = World::with_a();
    world.limits = Limits {
        batch_events_max: 1,
        ..Limits::default()
    };
    let carried = ["1", "2", "3"].map(|name| carry(name, None)).to_vec();
    world.run("a", vec![renew_with(1, None, None, carried)]);
    world.run(
        "a",
        vec![renew_with(1, None, None, vec![carry("1 again", None)])],
    );
    world.limits = Limits::default();
    world.raise("a", "4", None);
    assert_eq!(names(&world.run("a", vec![])), ["1 again", "2", "3", "4"]);
}

/// S-3.30, S-3.18.
#[test]
fn carried_events_that_were_not_processed_come_again() {
    let mut world = World::with_a();
    let carried = ["1", "2"].map(|name| carry(name, None)).to_vec();
    world.run("a", vec![renew_with(1, None, None, carried)]);
    world.run_with("a", processing(3, vec![]));
    assert_eq!(names(&world.run("a", vec![])), ["2"]);
}

/// S-3.20: timers are discarded, activities run on, with what is needed to run them.
#[test]
fn timers_end_with_their_generation_and_activities_go_on() {
    let mut world = World::with_a();
    let later = world.now.plus(Duration::from_secs(9));
    world.run("a", vec![task(1, "old"), timer(2, later)]);
    let generation = world.get("a").record.execution_id.clone();
    world.run_again("a", vec![task(3, "own"), timer(4, later), renew(5, None)]);
    assert!(world.nodes["a"].timers.is_empty());
    let queued: Vec<(i32, bool)> = world
        .activities
        .iter()
        .map(|q| (q.task.task_id, q.outlives))
        .collect();
    assert_eq!(queued, [(1, true), (3, true)]);
    assert!(world.effects.iter().any(|e| matches!(e,
        Effect::ReleaseActivities { execution_id, schedulings }
            if *execution_id == generation && *schedulings == [0])));
    assert!(!world.succeed("a", 3, "nobody waits"));
}

/// S-3.20: queued outcomes of the old generation go with it, events stay.
#[test]
fn outcomes_in_the_inbox_do_not_reach_the_next_generation() {
    let mut world = World::running(vec![task(1, "A")]);
    world.raise("a", "go", None);
    world.lease("a").unwrap();
    world.succeed("a", 1, "x");
    world.raise("a", "stays", None);
    let result = EpisodeResult {
        actions: vec![renew(2, None)],
        ..EpisodeResult::default()
    };
    world.respond("a", result).unwrap();
    let events = world.run("a", vec![]);
    assert_eq!(kinds(&events)[2..], ["EventRaised"]);
    assert_eq!(names(&events), ["stays"]);
}

/// S-3.20: messages to others are sent.
#[test]
fn other_actions_beside_a_renewal_are_still_carried_out() {
    let mut world = World::with_a();
    world.run(
        "a",
        vec![renew(9, None), event(1, "b", "go"), child(2, "c")],
    );
    let sent = [("b".to_owned(), "EventRaised"), ("c".to_owned(), "Start")];
    assert_eq!(world.sent(), sent);
    world.settle();
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    assert!(
        world.nodes["a"].mailbox.is_empty(),
        "its outcome is dropped"
    );
}

/// S-2.3.
#[test]
fn renewing_in_the_first_episode_makes_the_instance_run() {
    let world = World::running(vec![renew(1, None)]);
    assert_eq!(world.status("a"), Status::Running);
    assert_eq!(world.get("a").record.generation, 2);
}

/// S-9.2, S-9.5: a renewal keeps the suspension, and an empty history gets no marker.
#[test]
fn renewing_while_suspended_keeps_the_suspension_without_markers() {
    let mut world = World::running(vec![]);
    world.raise("a", "go", None);
    world.lease("a").unwrap();
    world.suspend("a");
    let result = EpisodeResult {
        actions: vec![renew(1, None)],
        ..EpisodeResult::default()
    };
    world.respond("a", result).unwrap();
    assert_eq!(world.status("a"), Status::Suspended);
    assert!(!world.has_work("a"));
    world.resume("a");
    assert_eq!(world.status("a"), Status::Running);
    assert_eq!(
        kinds(&world.run("a", vec![])),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
}

/// S-3.23 to S-3.25.
#[test]
fn a_custom_status_is_set_cleared_and_falls_back_to_the_former_generation() {
    let mut world = World::with_a();
    let status = |world: &World| world.get("a").record.custom_status.clone();
    world.run_with("a", saying("one", vec![]));
    assert_eq!(status(&world).as_deref(), Some("one"));
    world.run_again("a", vec![]);
    assert_eq!(status(&world), None, "none in the first generation");
    world.raise("a", "go", None);
    world.run_with("a", saying("\"\"", vec![renew(1, None)]));
    assert_eq!(status(&world).as_deref(), Some("\"\""), "a value");
    world.run_with("a", saying("two", vec![]));
    assert_eq!(status(&world).as_deref(), Some("two"));
    world.run_again("a", vec![]);
    assert_eq!(status(&world).as_deref(), Some("\"\""), "fallen back");
    world.raise("a", "go", None);
    world.run_with("a", saying("", vec![]));
    assert_eq!(status(&world), None, "cleared");
}

/// S-3.24: the paths on which SDKs fail an orchestration drop it.
#[test]
fn a_lone_failure_leaves_the_custom_status_as_it_was() {
    let mut world = World::with_a();
    world.run_with("a", saying("one", vec![]));
    world.run_again("a", vec![fail(1, failure("Broken"))]);
    assert_eq!(world.get("a").record.custom_status.as_deref(), Some("one"));

    let mut world = World::with_a();
    world.run_with("a", saying("one", vec![]));
    world.run_again("a", vec![task(1, "A"), fail(2, failure("Broken"))]);
    assert_eq!(world.get("a").record.custom_status, None);
}

/// S-15.3.
#[test]
fn the_spans_context_is_kept_until_the_generation_ends() {
    let mut world = World::with_a();
    let trace = EpisodeTrace {
        span_id: "0123456789abcdef".into(),
        span_started_at: Some(world.now),
    };
    let result = EpisodeResult {
        trace: Some(trace.clone()),
        ..EpisodeResult::default()
    };
    world.run_with("a", result);
    world.run_again("a", vec![]);
    assert_eq!(world.get("a").record.episode_trace, Some(trace));
    world.run_again("a", vec![renew(1, None)]);
    assert_eq!(world.get("a").record.episode_trace, None);
}
