//! What stays in a mailbox, and from where it is read after a restart.

use std::time::Duration;

use mainspring_core::id::Position;

use super::script::*;
use super::world::*;

const A: &str = "@counter@a";

/// How many messages lie in the mailbox, and the first place that may hold one that is still wanted.
fn mailbox(world: &mut World) -> (usize, Position) {
    let head = world.live(A).record.mailbox_head;
    (world.nodes[&entity(A)].mailbox.len(), head)
}

fn first(world: &World) -> Position {
    *world.nodes[&entity(A)].mailbox.keys().next().unwrap()
}

/// Reading begins right in front of what is wanted.
fn is_tight(world: &mut World) -> bool {
    let (first, head) = (first(world), mailbox(world).1);
    let between = Position {
        commit: first.commit - 1,
        index: u16::MAX,
    };
    head < first && head >= between
}

/// S-12.37: a client's message outlives its doing; all others leave with it.
#[test]
fn what_is_done_leaves_the_mailbox_unless_a_client_may_repeat_it() {
    let mut world = World::new();
    let caller = generation("o", "x");
    world.call(A, &caller, "c1", "call");
    world.signal_from(A, &caller, "c2", "signal");
    world.signal(A, "g1", "client");
    world.call(A, &caller, "c3", "call");
    assert_eq!(mailbox(&mut world).0, 4);
    world.run(A, done(&["", "", "", ""], Some("s")));
    assert_eq!(mailbox(&mut world).0, 1);
    assert!(is_tight(&mut world));
    world.advance(Duration::from_secs(60));
    world.forget(A);
    assert_eq!(mailbox(&mut world).0, 0);
}

/// Reading after a restart never walks over what was removed long ago.
#[test]
fn the_head_follows_what_is_removed() {
    let mut world = World::new();
    let caller = generation("o", "x");
    let mut before = Position::default();
    for round in 0..20 {
        for number in 0..5 {
            world.call(A, &caller, &format!("c{round}.{number}"), "call");
        }
        world.run(A, done(&["", "", ""], Some("s")));
        assert!(is_tight(&mut world));
        world.run(A, done(&["", ""], Some("s")));
        let (left, head) = mailbox(&mut world);
        assert!(left == 0 && head > before);
        before = head;
    }
}

/// S-12.29: what the holder has done overtakes what waits; the head stays in front of that.
#[test]
fn the_head_never_passes_what_waits() {
    let mut world = World::new();
    let holder = generation("o", "x");
    world.lock(&holder, "cs", &[A]);
    world.signal(A, "g1", "waits");
    for number in 0..5 {
        world.call(A, &holder, &format!("h{number}"), "own");
        world.run(A, done(&[""], Some("s")));
        world.signal_from(A, &generation("p", "x"), &format!("p{number}"), "waits");
    }
    assert!(is_tight(&mut world));
    assert_eq!(mailbox(&mut world).0, 6);
    world.crash(A);
    world.unlock(&holder, "cs", A);
    assert_eq!(world.leased(A), ["waits"; 6]);
}

/// Between done requests of clients and waiting ones, the record's word decides.
#[test]
fn done_and_waiting_requests_of_clients_are_told_apart() {
    let mut world = World::new();
    for number in 0..6 {
        world.signal(A, &format!("g{number}"), &number.to_string());
    }
    world.run(A, done(&["", ""], Some("2")));
    assert_eq!(mailbox(&mut world).0, 6);
    world.crash(A);
    assert_eq!(world.live(A).backlog(), 4);
    assert_eq!(world.run(A, done(&[""], Some("3"))), ["2", "3", "4", "5"]);
    world.crash(A);
    assert_eq!(world.leased(A), ["3", "4", "5"]);
    for number in 0..6 {
        assert!(!world.signal(A, &format!("g{number}"), "again"));
    }
}

/// Void messages leave at once.
#[test]
fn what_decides_nothing_leaves_the_mailbox() {
    let mut world = World::new();
    let holder = generation("o", "x");
    world.lock(&holder, "cs", &[A]);
    world.lock(&holder, "cs", &[A]);
    world.unlock(&holder, "another", A);
    world.end(&generation("p", "x"), &[A]);
    assert_eq!(mailbox(&mut world).0, 0);
}

/// A crash before the turn was stored: nothing of it happened.
#[test]
fn an_answer_that_was_not_stored_was_not_given() {
    let mut world = World::new();
    world.call(A, &generation("o", "x"), "c1", "call");
    world.leased(A);
    let (now, limits) = (world.now, world.limits.clone());
    let batch = world.nodes[&entity(A)].lease.clone().unwrap();
    let mut ids = Counter::default();
    world.live(A).complete(
        &batch,
        done(&["lost"], Some("lost")),
        &limits,
        now,
        &mut ids,
    );
    world.crash(A);
    assert_eq!(world.state(A), None);
    assert_eq!(world.run(A, done(&["kept"], Some("kept"))), ["call"]);
    assert_eq!(said(&world.take_told()), ["o: c1 = kept"]);
}

/// S-12.4: one record, one execution id, whatever happens to the state.
#[test]
fn a_record_keeps_its_execution_id() {
    let mut world = World::new();
    world.signal(A, "g1", "add");
    let id = world.live(A).record.execution_id.clone();
    assert_eq!(id.as_str().len(), 32);
    world.run(A, done(&[""], Some("1")));
    world.crash(A);
    world.signal(A, "g2", "delete");
    world.run(A, done(&[""], None));
    world.signal(A, "g3", "add");
    world.run(A, done(&[""], Some("2")));
    assert_eq!(world.live(A).record.execution_id, id);
}
