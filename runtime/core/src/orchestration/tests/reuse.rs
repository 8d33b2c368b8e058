//! Creating instances and re-using their ids (S-10.*), and restart.

use super::script::*;
use super::world::*;
use crate::effect::Effect;
use crate::error::ErrorKind;
use crate::message::NewInstance;
use crate::orchestration::{LegacyAction, Origin, ReusePolicy, Status};

const RUNNING: i32 = 0;
const COMPLETED: i32 = 1;
const CONTINUED_AS_NEW: i32 = 2;
const FAILED: i32 = 3;
const TERMINATED: i32 = 5;
const PENDING: i32 = 6;
const SUSPENDED: i32 = 7;
const ALL: [i32; 7] = [
    RUNNING, COMPLETED, FAILED, 4, TERMINATED, PENDING, SUSPENDED,
];

fn given(replaceable: &[i32]) -> ReusePolicy {
    ReusePolicy {
        is_given: true,
        replaceable: replaceable.to_vec(),
        ..ReusePolicy::default()
    }
}

fn legacy(replaceable: &[i32], legacy_action: LegacyAction) -> ReusePolicy {
    ReusePolicy {
        legacy_action,
        ..given(replaceable)
    }
}

/// A world where "a" has this status.
fn having(status: Status) -> World {
    let mut world = World::with_a();
    match status {
        Status::Pending => {}
        Status::Running => drop(world.run("a", vec![task(1, "A")])),
        Status::Suspended => assert!(world.suspend("a")),
        ended => drop(world.run("a", vec![finish(1, ended, None)])),
    }
    assert_eq!(world.status("a"), status);
    world
}

#[derive(Debug, PartialEq)]
enum Answer {
    Replaced,
    Kept,
    Exists,
    Invalid,
}

fn ask(status: Status, policy: ReusePolicy) -> Answer {
    let mut world = having(status);
    let before = world.get("a").clone();
    let answer = match world.create(new("a"), Origin::Client(policy)) {
        Ok(true) => Answer::Replaced,
        Ok(false) => Answer::Kept,
        Err(error) => {
            let text = error.to_string();
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    assert!(
                        text.contains("orchestration instance already exists"),
                        "{text}"
                    );
                    Answer::Exists
                }
                ErrorKind::Invalid => {
                    assert_eq!(
                        text,
                        "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances"
                    );
                    Answer::Invalid
                }
                other => panic!("{other:?}"),
            }
        }
    };
    if answer != Answer::Replaced {
        assert_eq!(world.get("a"), &before, "nothing has changed");
    }
    answer
}

/// S-10.3, S-10.4: every branch, in order.
#[test]
fn the_reuse_policy_decides_as_the_table_says() {
    use Answer::*;
    let without = |status: i32| ALL.into_iter().filter(|s| *s != status).collect::<Vec<_>>();
    for (status, policy, expected) in [
        // 2: no policy.
        (Status::Completed, ReusePolicy::default(), Replaced),
        (Status::Failed, ReusePolicy::default(), Replaced),
        (Status::Terminated, ReusePolicy::default(), Replaced),
        (Status::Canceled, ReusePolicy::default(), Replaced),
        (Status::Pending, ReusePolicy::default(), Exists),
        (Status::Running, ReusePolicy::default(), Exists),
        (Status::Suspended, ReusePolicy::default(), Exists),
        // 3: the older layout.
        (
            Status::Completed,
            legacy(&[FAILED], LegacyAction::Ignore),
            Exists,
        ),
        (
            Status::Completed,
            legacy(&[COMPLETED], LegacyAction::Ignore),
            Kept,
        ),
        (
            Status::Running,
            legacy(&[RUNNING], LegacyAction::Ignore),
            Kept,
        ),
        (
            Status::Running,
            legacy(&[RUNNING], LegacyAction::Terminate),
            Replaced,
        ),
        (
            Status::Completed,
            legacy(&[COMPLETED], LegacyAction::Terminate),
            Replaced,
        ),
        (
            Status::Pending,
            legacy(&[RUNNING], LegacyAction::Terminate),
            Exists,
        ),
        (Status::Completed, legacy(&ALL, LegacyAction::Error), Exists),
        (Status::Running, legacy(&[], LegacyAction::Error), Exists),
        // 4: not in the list.
        (Status::Completed, given(&[]), Exists),
        (Status::Completed, given(&without(COMPLETED)), Exists),
        (Status::Running, given(&without(RUNNING)), Exists),
        (Status::Running, given(&[CONTINUED_AS_NEW]), Exists),
        (Status::Running, given(&[COMPLETED, FAILED]), Exists),
        // 5: in the list and finished, whatever else is in it.
        (Status::Completed, given(&[COMPLETED]), Replaced),
        (Status::Completed, given(&without(TERMINATED)), Replaced),
        (Status::Terminated, given(&ALL), Replaced),
        // 6: in the list and active.
        (Status::Running, given(&without(TERMINATED)), Invalid),
        (Status::Pending, given(&[PENDING]), Invalid),
        (Status::Suspended, given(&[SUSPENDED, TERMINATED]), Replaced),
        (Status::Running, given(&ALL), Replaced),
        (Status::Pending, given(&ALL), Replaced),
    ] {
        let case = format!("{status:?} {policy:?}");
        assert_eq!(ask(status, policy), expected, "{case}");
    }
}

/// S-10.3, step 1.
#[test]
fn a_free_id_is_taken_whatever_the_policy_says() {
    for policy in [given(&[]), legacy(&[], LegacyAction::Error)] {
        let mut world = World::new();
        assert!(world.create(new("a"), Origin::Client(policy)).unwrap());
        assert_eq!(world.status("a"), Status::Pending);
    }
}

/// S-10.5, S-2.6, S-8.5.
#[test]
fn a_replaced_instance_leaves_nothing_behind() {
    let mut world = World::with_a();
    let later = world.now.plus(std::time::Duration::from_secs(60));
    let first = world.get("a").record.execution_id.clone();
    world.run_with("a", saying("half", vec![task(1, "A"), timer(2, later)]));
    world.raise("a", "old", None);
    world.lease("a");
    world.advance(std::time::Duration::from_secs(5));
    let request = NewInstance {
        name: "Other".into(),
        input: None,
        ..new("a")
    };
    assert!(world.create(request, Origin::Client(given(&ALL))).unwrap());
    assert!(world.effects.contains(&Effect::FenceEpisode));
    let node = &world.nodes["a"];
    assert!(node.lease.is_none() && node.timers.is_empty() && node.chunks.is_empty());
    assert!(world.activities.is_empty());
    let record = world.get("a").record.clone();
    assert_eq!(
        (record.status, record.custom_status),
        (Status::Pending, None)
    );
    assert_eq!((&record.name[..], record.created_at), ("Other", world.now));
    assert_ne!(record.execution_id, first);
    assert_eq!(record.generation, 2, "its history has keys of its own");
    assert_eq!(world.run("a", vec![]).len(), 2, "no old events");
}

/// S-10.5.
#[test]
fn a_replaced_active_child_tells_its_parent() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.create(new("c"), Origin::Client(given(&ALL))).unwrap();
    world.settle();
    assert_eq!(
        kinds(&world.run("a", vec![]))[1..],
        ["SubOrchestrationInstanceFailed"]
    );
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    assert!(
        world.nodes["a"].mailbox.is_empty(),
        "it is no child any more"
    );
}

/// S-10.7: scheduled tasks rely on it to avoid overlapping runs.
#[test]
fn an_entity_does_not_start_what_is_active() {
    let mut world = having(Status::Running);
    assert!(!world.create(new("a"), Origin::Entity).unwrap());
    let mut world = having(Status::Failed);
    assert!(world.create(new("a"), Origin::Entity).unwrap());
}

/// S-9.19, S-9.20.
#[test]
fn a_restart_takes_name_version_tags_and_the_current_input() {
    let mut world = World::new();
    let mut request = new("a");
    request.tags.insert("k".into(), "v".into());
    request.version = Some("3".into());
    world.create(request, Origin::Parent).unwrap();
    world.run("a", vec![renew(1, Some("later"))]);
    world.run("a", vec![complete(1, "x")]);
    let old = world.get("a").record.execution_id.clone();
    world.restart("a");
    let instance = world.get("a");
    assert_eq!(instance.record.status, Status::Pending);
    assert_ne!(instance.record.execution_id, old);
    assert_eq!(instance.record.version.as_deref(), Some("3"));
    assert_eq!(instance.start.input.as_deref(), Some("later"));
    assert_eq!(instance.start.tags["k"], "v");
    assert_eq!(
        (&instance.record.output, &instance.record.completed_at),
        (&None, &None)
    );
}

/// S-9.20.
#[test]
fn a_restarted_child_has_no_parent_any_more() {
    let mut world = World::running(vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![complete(1, "x")]);
    world.settle();
    world.restart("c");
    assert_eq!(world.get("c").record.parent, None);
    world.run("c", vec![complete(1, "x")]);
    assert!(world.sent().is_empty());
}
