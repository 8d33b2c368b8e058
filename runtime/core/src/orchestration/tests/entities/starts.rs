//! Orchestrations that entities start (S-10.7).

use super::*;
use crate::message::NewInstance;

/// An entity starts "b"; whether anything came of it.
fn started(world: &mut World, new: NewInstance) -> bool {
    let id = new.instance.clone();
    let before = world
        .nodes
        .get(id.as_str())
        .and_then(|n| n.instance.clone());
    let message = Message::StartFromEntity(Box::new(new));
    world.transit.push_back((id.clone(), message));
    world.settle();
    before.as_ref() != world.nodes[id.as_str()].instance.as_ref()
}

#[test]
fn an_entity_starts_what_is_not_there() {
    let mut world = World::new();
    assert!(started(&mut world, new("b")));
    assert_eq!(world.status("b"), Status::Pending);
    assert_eq!(world.get("b").record.parent, None);
    let events = world.run("b", vec![complete(1, "out")]);
    assert_eq!(kinds(&events)[1..], ["ExecutionStarted"]);
    assert_eq!(said(&mut world), [""; 0], "the entity hears nothing of it");
}

/// Runs that overlap are what schedules avoid by this.
#[test]
fn what_is_active_wins_in_silence() {
    let mut world = World::new();
    world.start("b");
    assert!(!started(&mut world, new("b")), "pending");
    world.run("b", vec![]);
    assert!(!started(&mut world, new("b")), "running");
    world.suspend("b");
    assert!(!started(&mut world, new("b")), "suspended");
    world.resume("b");
    world.run_again("b", vec![child(1, "c")]);
    world.settle();
    world.run("c", vec![]);
    world.terminate("b", None, true);
    assert!(world.get("b").record.terminating.is_some());
    let message = Message::StartFromEntity(Box::new(new("b")));
    let id = InstanceId::from_stored("b");
    world.transit.push_front((id, message));
    world.deliver();
    assert!(world.get("b").record.terminating.is_some());
    assert!(
        world.sent().iter().all(|(to, _)| to != "b"),
        "nobody is told"
    );
}

#[test]
fn what_is_finished_is_replaced() {
    for status in [
        Status::Completed,
        Status::Failed,
        Status::Terminated,
        Status::Canceled,
    ] {
        let mut world = World::new();
        world.start("b");
        let old = generation(&world, "b");
        world.run("b", vec![finish(1, status, None)]);
        assert!(started(&mut world, new("b")));
        assert_eq!(world.status("b"), Status::Pending);
        assert_ne!(generation(&world, "b"), old);
        assert_eq!(world.history("b"), []);
    }
}

/// S-6.8: like any start that lies ahead.
#[test]
fn a_start_can_lie_ahead() {
    let mut world = World::new();
    let due = world.now.plus(Duration::from_secs(30));
    let ahead = NewInstance {
        scheduled_start_at: Some(due),
        ..new("b")
    };
    assert!(started(&mut world, ahead));
    assert_eq!(world.effects, [crate::effect::Effect::StartAt(due)]);
    assert!(!world.has_work("b"));
    world.advance(Duration::from_secs(30));
    assert!(world.has_work("b"));
}
