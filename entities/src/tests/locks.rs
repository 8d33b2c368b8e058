//! Critical sections (S-12.24 to S-12.36).

use mainspring_core::entity::Generation;
use mainspring_core::message::Message;

use super::script::*;
use super::world::*;

const E: &str = "@e@1";

fn holder() -> Generation {
    generation("o", "x1")
}

fn other() -> Generation {
    generation("p", "x1")
}

/// The names of the entities that "o" holds.
fn held(world: &World) -> Vec<String> {
    let held = world.nodes.keys().map(|id| id.as_str().to_owned());
    held.filter(|id| world.locked_by(id).as_deref() == Some("o"))
        .collect()
}

/// S-12.26, S-12.27: one after the other, in one order for everybody, each once.
#[test]
fn a_request_walks_along_its_set_in_canonical_order() {
    let mut world = World::new();
    // '-' sorts below '@', so that whole ids have another order than names.
    let (first, request) =
        lock_request(&holder(), "cs", &["@b@1", "@A-b@1", "@a@2", "@a@2", "@B@1"]);
    assert_eq!(first.as_str(), "@a@2");
    world.send("@a@2", request);
    let mut order = Vec::new();
    while let Some(id) = world.nodes.iter().find(|(_, n)| !n.coming.is_empty()) {
        let id = id.0.clone();
        world.deliver(&id);
        assert_eq!(world.locked_by(id.as_str()).as_deref(), Some("o"));
        assert!(world.told.is_empty() || order.len() == 2);
        order.push(id.as_str().to_owned());
    }
    assert_eq!(order, ["@a@2", "@a-b@1", "@b@1"]);
    assert_eq!(said(&world.take_told()), ["o: granted cs"]);
}

/// S-12.27: also an entity that nobody ever spoke to can be locked, and survives a restart so.
#[test]
fn a_lock_is_kept_without_state() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.crash(E);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.view(E), None, "S-12.6");
    world.unlock(&holder(), "cs", E);
    assert!(!world.is_known(E), "S-12.7");
}

/// S-12.27: it waits for its turn, and for the batch that is out.
#[test]
fn a_lock_is_taken_when_the_request_is_first_and_nothing_is_out() {
    let mut world = World::new();
    world.signal(E, "g1", "1");
    assert_eq!(world.leased(E), ["1"]);
    world.signal(E, "g2", "2");
    world.lock(&holder(), "cs", &[E]);
    world.signal(E, "g3", "3");
    assert!(held(&world).is_empty());
    world.answer(E, done(&[""], Some("s")));
    assert_eq!(world.leased(E), ["2"]);
    assert!(held(&world).is_empty());
    world.answer(E, done(&[""], Some("s")));
    assert_eq!(held(&world), [E]);
    assert_eq!(world.lease(E), None);
    assert_eq!(said(&world.take_told()), ["o: granted cs"]);
}

/// S-12.29: calls and signals of the holder, in their order, past all the others.
#[test]
fn the_holder_overtakes_the_queue() {
    let mut world = World::new();
    // Sent before the lock was had.
    world.signal(E, "g0", "out");
    world.leased(E);
    world.lock(&holder(), "cs", &[E]);
    world.signal_from(E, &holder(), "h0", "early");
    world.answer(E, done(&[""], Some("s")));
    world.signal(E, "g1", "client");
    world.call(E, &holder(), "h1", "call");
    world.call(E, &other(), "p1", "other");
    world.signal_from(E, &holder(), "h2", "signal");
    // Another generation of the holder is somebody else.
    world.call(E, &generation("o", "x0"), "h3", "former");
    assert_eq!(world.live(E).ready_len(), 3);
    assert_eq!(
        world.run(E, done(&["", "", ""], Some("s"))),
        ["early", "call", "signal"]
    );
    assert_eq!(world.lease(E), None);
    world.crash(E);
    assert_eq!(world.lease(E), None);
    world.unlock(&holder(), "cs", E);
    assert_eq!(world.leased(E), ["client", "other", "former"]);
}

/// S-12.29, S-12.14: what is left of a batch of the holder's is sent again before anything else.
#[test]
fn a_partial_answer_leaves_the_holders_operations_first() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.signal(E, "g", "waits");
    for name in ["1", "2", "3"] {
        world.call(E, &holder(), name, name);
    }
    assert_eq!(world.run(E, done(&["", ""], None)), ["1", "2", "3"]);
    world.unlock(&holder(), "cs", E);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.run(E, done(&[""], None)), ["3"]);
    assert!(held(&world).is_empty());
    assert_eq!(world.leased(E), ["waits"]);
}

/// S-12.30: the unlock travels behind what the holder asked for before, and ahead of what it asks after.
#[test]
fn an_unlock_takes_effect_behind_the_holders_earlier_operations() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.signal(E, "g", "waits");
    world.signal_from(E, &holder(), "h1", "before");
    world.unlock(&holder(), "cs", E);
    world.signal_from(E, &holder(), "h2", "after");
    assert_eq!(held(&world), [E]);
    assert_eq!(world.leased(E), ["before"]);
    world.crash(E);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.run(E, done(&[""], None)), ["before"]);
    assert!(held(&world).is_empty());
    assert_eq!(world.leased(E), ["waits", "after"]);
}

/// S-12.30: another section's, another instance's, one too many, one too early.
#[test]
fn an_unlock_that_is_not_the_holders_does_nothing() {
    let mut world = World::new();
    world.unlock(&holder(), "cs", E);
    assert!(!world.is_known(E));
    world.lock(&holder(), "cs", &[E]);
    world.unlock(&holder(), "cs0", E);
    world.unlock(&other(), "cs", E);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.live(E).queue_len(), 0);
    world.unlock(&holder(), "cs", E);
    world.lock(&other(), "cs2", &[E]);
    world.unlock(&holder(), "cs", E);
    assert_eq!(world.locked_by(E).as_deref(), Some("p"));
}

/// S-12.30: the second of two unlocks that waited together stops nobody.
#[test]
fn an_unlock_that_is_void_by_its_turn_is_passed_over() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.signal_from(E, &holder(), "h1", "before");
    world.lock(&other(), "cs2", &[E]);
    world.unlock(&holder(), "cs", E);
    world.unlock(&holder(), "cs", E);
    world.signal(E, "g", "last");
    world.run(E, done(&[""], None));
    assert_eq!(world.locked_by(E).as_deref(), Some("p"));
    world.call(E, &other(), "g2", "own");
    assert_eq!(world.run(E, done(&[""], None)), ["own"]);
    world.unlock(&other(), "cs2", E);
    assert_eq!(world.locked_by(E), None);
    assert_eq!(world.leased(E), ["last"]);
    assert_eq!(world.live(E).queue_len(), 1);
}

/// S-12.34.
#[test]
fn a_repeated_request_is_queued_once() {
    let mut world = World::new();
    world.lock(&other(), "cs2", &[E]);
    world.lock(&holder(), "cs", &[E]);
    world.lock(&holder(), "cs", &[E]);
    assert_eq!(world.live(E).queue_len(), 1);
    world.unlock(&other(), "cs2", E);
    assert_eq!(held(&world), [E]);
    world.lock(&holder(), "cs", &[E]);
    world.unlock(&holder(), "cs", E);
    assert_eq!(world.locked_by(E), None);
    assert_eq!(
        said(&world.take_told()),
        ["p: granted cs2", "o: granted cs"]
    );
}

/// S-12.28: by what is committed of the holder when the request is met.
#[test]
fn a_request_of_a_generation_that_is_over_locks_nothing() {
    let mut world = World::new();
    world.signal(E, "g", "out");
    world.leased(E);
    world.lock(&holder(), "cs", &[E, "@e@2"]);
    world.lock(&other(), "cs2", &[E]);
    // The release has not come yet.
    world.over.insert(holder());
    world.answer(E, done(&[""], None));
    assert_eq!(world.locked_by(E).as_deref(), Some("p"));
    assert_eq!(said(&world.take_told()), ["p: granted cs2"]);
    assert!(!world.is_known("@e@2"));
    // It comes; and a request behind it, from an entity that had not heard of it.
    world.end(&holder(), &[E, "@e@2"]);
    assert_eq!(world.locked_by(E).as_deref(), Some("p"));
    let (_, request) = lock_request(&holder(), "cs", &["@e@2"]);
    world.bring("@e@2", request);
    assert!(!world.is_known("@e@2"));
}

/// S-12.28, S-9.13 (6): a section is asked for again under its id by the next generation: that is another request, even while the
/// former one waits to be found void.
#[test]
fn the_next_generations_request_for_the_same_section_is_taken() {
    let mut world = World::new();
    let next = generation("o", "x2");
    world.lock(&other(), "cs2", &[E]);
    // The release came before this request, which the former generation's first entity still had to send.
    world.end(&holder(), &[E]);
    world.lock(&holder(), "cs", &[E]);
    world.lock(&next, "cs", &[E]);
    world.unlock(&other(), "cs2", E);
    assert_eq!(held(&world), [E], "it is granted to the living generation");
    let told = world.take_told();
    assert_eq!(said(&told), ["p: granted cs2", "o: granted cs"]);
    let Message::LocksGranted { fence, .. } = &told[1].1 else {
        panic!("{told:?}");
    };
    assert_eq!(fence.execution_id, next.execution_id);
}

/// S-12.32: the end of a generation frees its lock, voids its requests, and leaves its operations and other generations alone.
#[test]
fn a_release_concerns_one_generation() {
    let mut world = World::new();
    let next = generation("o", "x2");
    world.lock(&holder(), "cs", &[E]);
    world.call(E, &holder(), "h1", "asked before");
    world.lock(&holder(), "cs2", &[E]);
    world.lock(&next, "cs3", &[E]);
    world.signal(E, "g", "last");
    world.end(&generation("o", "x0"), &[E]);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.live(E).queue_len(), 4);
    world.end(&holder(), &[E]);
    assert_eq!(world.locked_by(E), None);
    assert_eq!(world.live(E).queue_len(), 3);
    world.crash(E);
    assert_eq!(world.run(E, done(&[""], None)), ["asked before"], "S-12.52");
    assert_eq!(held(&world), [E]);
    assert_eq!(world.live(E).record.lock.as_ref().unwrap().holder, next);
    world.unlock(&next, "cs3", E);
    assert_eq!(world.leased(E), ["last"]);
}

/// S-12.32, S-12.29: what the holder had out when it ended is answered for; nothing of others' is out beside it.
#[test]
fn a_release_while_the_holders_batch_is_out_starts_nothing_else() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.lock(&other(), "cs2", &[E]);
    world.signal(E, "g", "waits");
    world.call(E, &holder(), "h1", "out");
    assert_eq!(world.leased(E), ["out"]);
    world.end(&holder(), &[E]);
    assert_eq!(world.locked_by(E), None, "a batch is out");
    world.answer(E, done(&["1"], Some("s")));
    assert_eq!(world.locked_by(E).as_deref(), Some("p"));
    assert_eq!(world.lease(E), None);
    assert_eq!(
        said(&world.take_told()),
        ["o: granted cs", "o: h1 = 1", "p: granted cs2"]
    );
}

/// S-12.33: a lost batch, a given-back one and a restart leave the lock where it is.
#[test]
fn a_lock_outlasts_lost_batches() {
    let mut world = World::new();
    world.lock(&holder(), "cs", &[E]);
    world.call(E, &holder(), "h1", "own");
    world.leased(E);
    world.lose_lease(E);
    world.leased(E);
    assert!(!world.answer(E, done(&[], None)));
    world.crash(E);
    assert_eq!(held(&world), [E]);
    assert_eq!(world.leased(E), ["own"]);
}

/// S-12.36: the instance, not the section.
#[test]
fn clients_see_who_holds_an_entity() {
    let mut world = World::new();
    world.signal(E, "g", "begin");
    world.run(E, done(&[""], Some("s")));
    world.lock(&holder(), "cs", &[E]);
    let view = world.view(E).unwrap();
    assert_eq!(view.locked_by, Some(holder().instance));
    world.signal(E, "g2", "waits");
    assert_eq!(world.view(E).unwrap().backlog, 1);
    world.unlock(&holder(), "cs", E);
    assert_eq!(world.view(E).unwrap().locked_by, None);
}

/// S-12.26: two sets that cross, listed in opposite orders with duplicates, never wait for each other in a circle.
#[test]
fn crossing_sets_are_granted_one_after_the_other() {
    let mut world = World::new();
    let sets: [(Generation, &str, &[&str]); 3] = [
        (generation("o1", "x"), "cs1", &["@e@2", "@e@1", "@e@2"]),
        (generation("o2", "x"), "cs2", &["@e@1", "@e@2", "@E@1"]),
        (generation("o3", "x"), "cs3", &["@e@3", "@e@2"]),
    ];
    for (holder, section, set) in &sets {
        let (target, request) = lock_request(holder, section, set);
        world.send(target.as_str(), request);
    }
    world.deliver_all();
    let mut granted = Vec::new();
    while granted.len() < sets.len() {
        let told = said(&world.take_told());
        assert!(!told.is_empty(), "all wait: {granted:?}");
        granted.extend(told);
        let number = granted.last().unwrap().chars().last().unwrap();
        let (holder, section, set) = &sets[number.to_digit(10).unwrap() as usize - 1];
        for id in *set {
            world.unlock(holder, section, id);
        }
    }
    assert!(
        ["@e@1", "@e@2", "@e@3"]
            .iter()
            .all(|id| !world.is_known(id))
    );
}
