//! Critical sections as their orchestration sees them (S-12.25 to S-12.36).

use super::*;
use crate::orchestration::{Origin, ReusePolicy};

const E1: &str = "@e@1";
const E2: &str = "@e@2";

/// "a" is in the section "cs" with both entities; nothing is on its way.
fn inside() -> World {
    let mut world = World::running(vec![lock(3, "cs", &[E2, E1])]);
    let holder = generation(&world, "a");
    assert_eq!(said(&mut world), ["@e@1 lock cs"]);
    assert!(grant(&mut world, fence(&holder, 0), "cs"));
    world.run("a", vec![]);
    world
}

/// The entities that are told that this generation is over.
fn released(world: &mut World, over: &Generation) -> Vec<String> {
    let sent = sent(world);
    sent.into_iter()
        .map(|(id, message)| {
            assert_eq!(message, Message::ReleaseLocks(over.clone()), "{id}");
            id
        })
        .collect()
}

/// S-12.25, S-12.26, S-12.45 (1): recorded as sent, asked for in canonical order.
#[test]
fn a_request_for_locks_goes_to_the_first_entity() {
    let listed = ["@b@1", "@A-b@1", "@a@2", "@a@2"];
    let mut world = World::running(vec![task(1, "A"), lock(3, "cs", &listed)]);
    let recorded = entity_events(&world.history("a"));
    let expected = EntityEvent::LockRequested {
        critical_section: "cs".into(),
        lock_set: listed.map(str::to_owned).into(),
    };
    assert_eq!(recorded, [(3, expected)]);
    let holder = generation(&world, "a");
    let sent = sent(&mut world);
    let [(target, Message::Lock(request))] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(target, "@a@2");
    let set: Vec<&str> = request.lock_set.iter().map(InstanceId::as_str).collect();
    assert_eq!(set, ["@a@2", "@a-b@1", "@b@1"]);
    assert_eq!((request.position, &request.holder), (0, &holder));
    assert_eq!(
        (request.critical_section.as_str(), request.scheduling),
        ("cs", 1)
    );
}

/// S-12.35, S-12.45: one confirmation for each unlock.
#[test]
fn a_section_is_entered_and_left() {
    let mut world = World::running(vec![lock(3, "cs", &[E2, E1])]);
    let holder = generation(&world, "a");
    assert_eq!(said(&mut world), ["@e@1 lock cs"]);
    assert!(grant(&mut world, fence(&holder, 0), "cs"));
    assert!(!grant(&mut world, fence(&holder, 0), "cs"), "a second one");
    let events = world.run("a", vec![call(4, E1, "g7")]);
    let granted = EntityEvent::LockGranted {
        critical_section: "cs".into(),
    };
    assert_eq!(entity_events(&events), [(-1, granted)]);
    assert_eq!(said(&mut world), ["@e@1 do g7"]);
    assert!(answer(&mut world, fence(&holder, 1), "g7", "1"));
    let actions = vec![
        unlock(5, "cs", E1),
        unlock(6, "cs", "@E@2"),
        complete(7, "out"),
    ];
    world.run("a", actions);
    let ids: Vec<i32> = world.history("a").iter().map(|e| e.id).collect();
    assert_eq!(ids[ids.len() - 3..], [5, 6, 7]);
    assert_eq!(
        said(&mut world),
        ["@e@1 unlock cs", "@e@2 unlock cs"],
        "what was given back is not released once more"
    );
    assert_eq!(world.status("a"), Status::Completed);
}

/// S-12.30: the holder names itself.
#[test]
fn an_unlock_names_section_and_holder() {
    let mut world = inside();
    world.run_again("a", vec![unlock(5, "cs", E1)]);
    let expected = Message::Unlock {
        critical_section: "cs".into(),
        holder: InstanceId::from_stored("a"),
    };
    assert_eq!(sent(&mut world), [(E1.to_owned(), expected)]);
}

/// S-12.27: there is nothing to wait for.
#[test]
fn an_empty_lock_set_is_granted_at_once() {
    let mut world = World::running(vec![lock(1, "cs", &[])]);
    assert_eq!(said(&mut world), [""; 0]);
    let events = world.run("a", vec![complete(2, "out")]);
    let granted = EntityEvent::LockGranted {
        critical_section: "cs".into(),
    };
    assert_eq!(entity_events(&events), [(-1, granted)]);
    assert_eq!(said(&mut world), [""; 0]);
}

/// S-12.26: no entity has such an id, so the instance would wait for ever. Its other actions count.
#[test]
fn an_illegal_lock_set_fails_the_instance() {
    for illegal in ["plain", "@e", "@@k", ""] {
        let actions = vec![
            signal(1, COUNTER, "s"),
            lock(2, "cs", &[E1, illegal]),
            task(3, "A"),
        ];
        let mut world = World::running(actions);
        assert_eq!(world.status("a"), Status::Failed);
        assert_eq!(failure_type(&world), "InvalidArgument");
        assert_eq!(said(&mut world), ["@counter@a do s"]);
        assert_eq!(world.queued("a").len(), 1);
        assert_eq!(*world.kinds("a").last().unwrap(), "ExecutionCompleted");
    }
}

/// S-12.32: by whatever it ends, and in the name of the generation that ended.
#[test]
fn the_end_of_a_generation_releases_its_locks() {
    type End = fn(&mut World);
    let ends: [(&str, End); 9] = [
        ("completion", |w| {
            drop(w.run_again("a", vec![complete(9, "x")]))
        }),
        ("failure", |w| {
            w.run_again("a", vec![fail(9, failure("Broken"))]);
        }),
        ("own termination", |w| {
            w.run_again("a", vec![terminate(9, "a", true)]);
        }),
        ("failure by the server", |w| w.fail("a", failure("TooOld"))),
        ("termination", |w| {
            w.terminate("a", None, false);
        }),
        ("recursive termination", |w| {
            w.terminate("a", None, true);
        }),
        ("continue-as-new", |w| {
            drop(w.run_again("a", vec![renew(9, None)]))
        }),
        ("replacement", |w| {
            let policy = ReusePolicy {
                is_given: true,
                replaceable: vec![0, 5],
                ..ReusePolicy::default()
            };
            assert!(w.create(new("a"), Origin::Client(policy)).unwrap());
        }),
        ("a history rewritten by its worker", |w| {
            let history = w.history("a");
            let without = history
                .into_iter()
                .filter(|e| !matches!(e.kind, EventKind::Other(_)))
                .collect();
            w.run_again(
                "a",
                vec![Action::Rewind {
                    id: -1,
                    history: without,
                }],
            );
        }),
    ];
    for (what, end) in ends {
        let mut world = inside();
        let over = generation(&world, "a");
        end(&mut world);
        assert_eq!(released(&mut world, &over), [E1, E2], "{what}");
        assert_ne!(
            (world.status("a").is_terminal(), &generation(&world, "a")),
            (false, &over),
            "{what}"
        );
    }
}

/// S-12.32, S-12.47: also those that are still to be had; a grant that comes after the end is nobody's.
#[test]
fn the_end_of_a_generation_voids_its_requests() {
    let mut world = World::running(vec![lock(1, "cs", &[E1, E2])]);
    let over = generation(&world, "a");
    assert_eq!(said(&mut world), ["@e@1 lock cs"]);
    world.terminate("a", Some("enough"), false);
    assert_eq!(released(&mut world, &over), [E1, E2]);
    assert!(!grant(&mut world, fence(&over, 0), "cs"));
    // One that came before the end goes with it.
    let mut world = World::running(vec![lock(1, "cs", &[E1, E2])]);
    let over = generation(&world, "a");
    assert!(grant(&mut world, fence(&over, 0), "cs"));
    world.terminate("a", Some("enough"), false);
    assert!(world.nodes["a"].mailbox.is_empty());
}

/// S-12.32: those of several sections, each entity once, without those that were given back.
#[test]
fn only_what_is_still_locked_is_released() {
    let mut world = inside();
    world.run_again(
        "a",
        vec![
            unlock(4, "cs", E1),
            lock(5, "cs2", &[E2, "@e@3"]),
            unlock(6, "cs0", E2),
        ],
    );
    assert_eq!(
        said(&mut world),
        ["@e@1 unlock cs", "@e@2 lock cs2", "@e@2 unlock cs0"]
    );
    let over = generation(&world, "a");
    world.terminate("a", None, false);
    assert_eq!(released(&mut world, &over), [E2, "@e@3"]);
}

/// S-12.32: a finished instance holds nothing, so that nothing is released twice.
#[test]
fn locks_are_released_once() {
    let mut world = inside();
    world.run_again("a", vec![fail(9, failure("Broken"))]);
    assert_eq!(said(&mut world), ["@e@1 release", "@e@2 release"]);
    world.restart("a");
    assert_eq!(said(&mut world), [""; 0]);
}

/// S-12.52: locks asked for by the very response that ends the generation are not.
#[test]
fn the_last_response_asks_for_no_locks() {
    let mut world = World::running(vec![lock(1, "cs", &[E1]), complete(2, "out")]);
    assert_eq!(world.kinds("a").len(), 4, "it is recorded all the same");
    let said = said(&mut world);
    assert!(!said.contains(&"@e@1 lock cs".to_owned()), "{said:?}");
}

/// S-12.33.
#[test]
fn a_suspension_keeps_the_locks() {
    let mut world = inside();
    world.suspend("a");
    assert_eq!(said(&mut world), [""; 0]);
    let over = generation(&world, "a");
    world.terminate("a", None, false);
    assert_eq!(released(&mut world, &over), [E1, E2]);
}

/// S-12.32, S-9.8: a recursive termination that waits for children holds the locks until it ends.
#[test]
fn a_frozen_instance_keeps_its_locks_until_its_children_have_ended() {
    let mut world = inside();
    let over = generation(&world, "a");
    world.run_again("a", vec![child(4, "c")]);
    assert_eq!(said(&mut world), [""; 0]);
    world.terminate("a", None, true);
    assert!(world.for_entities.is_empty());
    world.settle();
    assert_eq!(world.status("a"), Status::Terminated);
    assert_eq!(released(&mut world, &over), [E1, E2]);
}

/// All locks of a generation are released by the turn that ends it, and one commit carries so many messages.
#[test]
fn more_locks_than_one_turn_can_release_fail_the_instance() {
    let set = |name: &str| -> Vec<String> { (0..20_000).map(|n| format!("@{name}@{n}")).collect() };
    let asking = |id: i32, name: &str| {
        let set = set(name);
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        lock(id, name, &set)
    };
    let mut world = World::running(vec![asking(1, "first")]);
    assert_eq!(world.status("a"), Status::Running);
    world.run_again("a", vec![asking(2, "second")]);
    assert_eq!(failure_type(&world), "TooManyMessages");
    assert_eq!(
        said(&mut world).len(),
        1 + 20_000,
        "what was locked is free"
    );
    let world = World::running(vec![asking(1, "first"), asking(2, "second")]);
    assert_eq!(failure_type(&world), "TooManyMessages");
}
