//! The suite that every [`Store`] passes: the promises of the trait that can be seen without a crash.
//!
//! It checks order and numbering, atomicity, fencing, snapshots and ranges. It does not check what survives a crash: that
//! belongs to each store, since each has its own way to lose things. Panics on the first promise that is broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId, Position};
use mainspring_core::message::Message;

use crate::{Batch, Epoch, Error, Op, Read, Space, Store, query};

/// Makes an empty store of so many partitions.
pub type Open<'a> = &'a dyn Fn(u16) -> Arc<dyn Store>;

const FIRST: PartitionId = PartitionId(0);
const SECOND: PartitionId = PartitionId(1);

/// Runs the whole suite.
pub fn check(open: Open<'_>) {
    a_batch_is_visible_as_a_whole_under_a_rising_number(&*open(2));
    a_snapshot_does_not_see_later_batches(&*open(2));
    a_former_epoch_is_refused_and_leaves_nothing(&*open(2));
    an_empty_batch_writes_nothing(&*open(2));
    the_last_change_of_an_entry_counts(&*open(2));
    a_range_is_half_open_limited_and_goes_both_ways(&*open(2));
    messages_stand_in_the_order_of_commits(&*open(2));
    synced_follows_sync(&*open(2));
    nothing_is_written_after_close(&*open(2));
    random_batches_leave_what_a_sorted_map_holds(&*open(2));
}

fn put(space: Space, key: &[u8], value: &[u8]) -> Op {
    Op::Put {
        space,
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
    }
}

fn delete(space: Space, key: &[u8]) -> Op {
    Op::Delete {
        space,
        key: Bytes::copy_from_slice(key),
    }
}

fn batch(partition: PartitionId, epoch: Epoch, ops: Vec<Op>) -> Batch {
    let mut batch = Batch::new(partition, epoch);
    batch.extend(ops);
    batch
}

fn value(read: &dyn Read, space: Space, key: &[u8]) -> Option<Bytes> {
    read.get(space, key).expect("reads")
}

fn a_batch_is_visible_as_a_whole_under_a_rising_number(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let mut last = 0;
    for turn in 0_u8..10 {
        let ops = Space::ALL.map(|space| put(space, b"key", &[turn]));
        let commit = store
            .write(&batch(FIRST, epoch, ops.to_vec()))
            .expect("writes");
        assert!(commit > last, "commit {commit} after {last}");
        last = commit;
        let read = store.read();
        for space in Space::ALL {
            let found = value(&*read, space, b"key");
            assert_eq!(found.as_deref(), Some(&[turn][..]), "{space:?}");
        }
    }
}

fn a_snapshot_does_not_see_later_batches(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let write = |ops| store.write(&batch(FIRST, epoch, ops)).expect("writes");
    write(vec![put(Space::State, b"kept", b"1")]);
    let before = store.read();
    write(vec![
        put(Space::State, b"kept", b"2"),
        put(Space::State, b"new", b"2"),
    ]);
    write(vec![delete(Space::State, b"kept")]);
    assert_eq!(
        value(&*before, Space::State, b"kept").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(value(&*before, Space::State, b"new"), None);
    let seen = before
        .range(Space::State, b"a", b"z", 10, false)
        .expect("reads");
    assert_eq!(seen.len(), 1);
    assert_eq!(value(&*store.read(), Space::State, b"kept"), None);
}

fn a_former_epoch_is_refused_and_leaves_nothing(store: &dyn Store) {
    let former = store.acquire(FIRST).expect("acquires");
    let other = store.acquire(SECOND).expect("acquires");
    let current = store.acquire(FIRST).expect("acquires");
    assert!(current > former);
    let refused = store.write(&batch(
        FIRST,
        former,
        vec![put(Space::State, b"key", b"former")],
    ));
    match refused {
        Err(Error::Fenced {
            partition,
            epoch,
            current: named,
        }) => assert_eq!((partition, epoch, named), (FIRST, former.0, current.0)),
        other => panic!("a former epoch was not fenced: {other:?}"),
    }
    assert_eq!(value(&*store.read(), Space::State, b"key"), None);
    let barrier = store.write(&Batch::new(FIRST, former));
    assert!(matches!(barrier, Err(Error::Fenced { .. })));
    for (partition, epoch) in [(FIRST, current), (SECOND, other)] {
        let ops = vec![put(Space::State, b"key", b"owner")];
        store
            .write(&batch(partition, epoch, ops))
            .expect("the owner writes");
    }
}

fn an_empty_batch_writes_nothing(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let ops = vec![put(Space::State, b"key", b"1")];
    let commit = store.write(&batch(FIRST, epoch, ops)).expect("writes");
    let empty = store.write(&Batch::new(FIRST, epoch)).expect("writes");
    assert_eq!(empty, commit);
}

fn the_last_change_of_an_entry_counts(store: &dyn Store) {
    // A batch drops earlier changes of an entry where it can; a decoded one may hold them.
    let epoch = store.acquire(FIRST).expect("acquires");
    let ops = vec![
        put(Space::State, b"a", b"1"),
        put(Space::State, b"a", b"2"),
        put(Space::State, b"b", b"1"),
        delete(Space::State, b"b"),
        delete(Space::State, b"c"),
        put(Space::State, b"c", b"1"),
    ];
    let mut plain = Batch::new(FIRST, epoch);
    plain.push_as_they_are(ops);
    store.write(&plain).expect("writes");
    let read = store.read();
    let found = [b"a", b"b", b"c"].map(|key| value(&*read, Space::State, key));
    assert_eq!(found[0].as_deref(), Some(&b"2"[..]));
    assert_eq!(found[1], None);
    assert_eq!(found[2].as_deref(), Some(&b"1"[..]));
}

fn a_range_is_half_open_limited_and_goes_both_ways(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let ops = (b'a'..=b'f').map(|key| put(Space::Timer, &[key], &[key]));
    store
        .write(&batch(FIRST, epoch, ops.collect()))
        .expect("writes");
    let read = store.read();
    let keys = |from: &[u8], to: &[u8], limit, reverse| {
        let entries = read
            .range(Space::Timer, from, to, limit, reverse)
            .expect("reads");
        let keys: Vec<u8> = entries.iter().map(|(key, _)| key[0]).collect();
        String::from_utf8(keys).expect("keys are letters")
    };
    assert_eq!(keys(b"b", b"e", 10, false), "bcd");
    assert_eq!(keys(b"b", b"e", 10, true), "dcb");
    assert_eq!(keys(b"b", b"e", 2, false), "bc");
    assert_eq!(keys(b"b", b"e", 2, true), "dc");
    assert_eq!(keys(b"b", b"e", 0, false), "");
    assert_eq!(keys(b"bb", b"ee", 10, false), "cde");
    assert_eq!(keys(b"e", b"b", 10, false), "");
    assert_eq!(keys(b"c", b"c", 10, true), "");
}

fn messages_stand_in_the_order_of_commits(store: &dyn Store) {
    let target = InstanceKey {
        hub: HubId(1),
        instance: InstanceId::from_stored("target"),
    };
    let neighbour = InstanceKey {
        hub: HubId(1),
        instance: InstanceId::from_stored("target2"),
    };
    let message = |number: u32| Message::Terminate {
        output: Some(number.to_string()),
        recurse: false,
    };
    let epochs = [FIRST, SECOND].map(|partition| store.acquire(partition).expect("acquires"));
    let mut sent = Vec::new();
    for number in 0..20_u32 {
        let sender = PartitionId((number % 2) as u16);
        let mut batch = Batch::new(sender, epochs[usize::from(sender.0)]);
        batch.put_message(FIRST, &neighbour, &message(0), true);
        let index = batch.put_message(FIRST, &target, &message(number), true);
        let commit = store.write(&batch).expect("writes");
        sent.push((Position { commit, index }, message(number)));
    }
    let all = query::mailbox(&*store.read(), FIRST, &target, Position::default(), 100);
    assert_eq!(all.expect("reads"), sent);
    let some = query::mailbox(&*store.read(), FIRST, &target, sent[4].0, 3);
    assert_eq!(some.expect("reads"), sent[5..8]);
    let mut batch = Batch::new(FIRST, epochs[0]);
    for (position, _) in &sent[..5] {
        batch.remove_message(&target, *position);
    }
    store.write(&batch).expect("writes");
    let rest = query::mailbox(&*store.read(), FIRST, &target, Position::default(), 100);
    assert_eq!(rest.expect("reads"), sent[5..]);
    let waiting = query::waiting(&*store.read(), FIRST, None, 10).expect("reads");
    assert_eq!(waiting, [target.clone(), neighbour.clone()]);
    let waiting = query::waiting(&*store.read(), FIRST, Some(&target), 10).expect("reads");
    assert_eq!(waiting, std::slice::from_ref(&neighbour));
    let busy = query::busy(&*store.read(), FIRST, None, 10).expect("reads");
    assert_eq!(busy, [target.clone(), neighbour.clone()]);
    let busy = query::busy(&*store.read(), FIRST, Some(&target), 10).expect("reads");
    assert_eq!(busy, [neighbour]);
}

fn synced_follows_sync(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let ops = vec![put(Space::State, b"key", b"1")];
    let commit = store.write(&batch(FIRST, epoch, ops)).expect("writes");
    assert!(store.synced() < commit);
    store.sync().expect("syncs");
    assert_eq!(store.synced(), commit);
    store.sync().expect("syncs without anything new");
    assert_eq!(store.synced(), commit);
    assert!(store.free_bytes() > 0);
    assert_eq!(store.partitions(), 2);
}

fn nothing_is_written_after_close(store: &dyn Store) {
    let epoch = store.acquire(FIRST).expect("acquires");
    let ops = || vec![put(Space::State, b"key", b"1")];
    let commit = store.write(&batch(FIRST, epoch, ops())).expect("writes");
    store.close().expect("closes");
    assert_eq!(store.synced(), commit);
    store.close().expect("closes twice");
    let refused = store.write(&batch(FIRST, epoch, ops()));
    assert!(matches!(refused, Err(Error::Closed)));
    assert!(matches!(store.acquire(FIRST), Err(Error::Closed)));
}

fn random_batches_leave_what_a_sorted_map_holds(store: &dyn Store) {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut numbers = Numbers(SEED);
    let epoch = store.acquire(FIRST).expect("acquires");
    let mut model: [BTreeMap<Vec<u8>, Vec<u8>>; 5] = Default::default();
    for round in 0..400 {
        let mut ops = Vec::new();
        for _ in 0..numbers.below(12) {
            let space = Space::ALL[numbers.below(5)];
            // Longer keys that others begin, none of which the store itself uses.
            let key = vec![b'k'; 1 + numbers.below(24)];
            let model = &mut model[space as usize];
            if numbers.below(3) == 0 {
                model.remove(&key);
                ops.push(delete(space, &key));
            } else {
                let value = vec![round as u8; numbers.below(6_000)];
                ops.push(put(space, &key, &value));
                model.insert(key, value);
            }
        }
        store.write(&batch(FIRST, epoch, ops)).expect("writes");
        let read = store.read();
        for (space, model) in Space::ALL.into_iter().zip(&model) {
            let from = vec![b'k'; 1 + numbers.below(24)];
            let to = vec![b'k'; 1 + numbers.below(24)];
            let (limit, reverse) = (numbers.below(10), numbers.below(2) == 0);
            let found = read
                .range(space, &from, &to, limit, reverse)
                .expect("reads");
            let expected = model
                .iter()
                .filter(|(key, _)| **key >= from && **key < to)
                .map(|(key, value)| (Bytes::from(key.clone()), Bytes::from(value.clone())));
            let expected: Vec<_> = if reverse {
                expected.rev().take(limit).collect()
            } else {
                expected.take(limit).collect()
            };
            assert_eq!(found, expected, "seed {SEED:#x}, round {round}, {space:?}");
        }
    }
}

/// Numbers that look random and are the same at every run (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
