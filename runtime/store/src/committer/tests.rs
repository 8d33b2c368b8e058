#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};

use super::*;
use crate::{Epoch, MemoryStore, Read};

const PARTITION: PartitionId = PartitionId(0);

/// A memory store that counts, can be held up in `write`, and can fail.
struct Double {
    inner: MemoryStore,
    epoch: Epoch,
    seen: Mutex<Seen>,
    gate: Condvar,
}

#[derive(Default)]
struct Seen {
    writes: usize,
    syncs: usize,
    is_held: bool,
    is_waiting: bool,
    fails_to_sync: bool,
}

impl Double {
    fn new() -> Arc<Self> {
        let inner = MemoryStore::new(1);
        let epoch = inner.acquire(PARTITION).unwrap();
        Arc::new(Self {
            inner,
            epoch,
            seen: Mutex::default(),
            gate: Condvar::new(),
        })
    }

    fn hold(&self) {
        self.seen.lock().unwrap().is_held = true;
    }

    /// Waits until the committer stands in `write`.
    fn wait_until_held(&self) {
        let seen = self.seen.lock().unwrap();
        drop(self.gate.wait_while(seen, |seen| !seen.is_waiting).unwrap());
    }

    fn release(&self) {
        self.seen.lock().unwrap().is_held = false;
        self.gate.notify_all();
    }

    fn batch(&self, epoch: Epoch, name: &str) -> Batch {
        let mut batch = Batch::new(PARTITION, epoch);
        let key = InstanceKey {
            hub: HubId(1),
            instance: InstanceId::from_stored(name),
        };
        batch.append_history(&key, 0, 0, Bytes::from_static(b"events"));
        batch
    }
}

impl Store for Double {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, Error> {
        self.inner.acquire(partition)
    }

    fn write(&self, batch: &Batch) -> Result<u64, Error> {
        let mut seen = self.seen.lock().unwrap();
        seen.writes += 1;
        seen.is_waiting = true;
        self.gate.notify_all();
        drop(self.gate.wait_while(seen, |seen| seen.is_held).unwrap());
        self.inner.write(batch)
    }

    fn sync(&self) -> Result<(), Error> {
        let mut seen = self.seen.lock().unwrap();
        seen.syncs += 1;
        if seen.fails_to_sync {
            return Err(Error::Poisoned {
                folder: "folder".into(),
                cause: "no more disk".to_owned(),
            });
        }
        self.inner.sync()
    }

    fn read(&self) -> Box<dyn Read + '_> {
        self.inner.read()
    }

    fn partitions(&self) -> u16 {
        1
    }

    fn synced(&self) -> u64 {
        self.inner.synced()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn free_bytes(&self) -> u64 {
        self.inner.free_bytes()
    }

    fn close(&self) -> Result<(), Error> {
        self.inner.close()
    }
}

fn start(store: &Arc<Double>) -> Committer {
    let never = Box::new(|error: Error| panic!("fatal: {error}"));
    Committer::start(store.clone(), never)
}

#[test]
fn one_sync_serves_all_that_waited() {
    // Method: hold the committer in its first write, submit a thousand more, let it go. The counts are taken in the last
    // callback, before the committer can rest.
    let store = Double::new();
    store.hold();
    let committer = start(&store);
    committer.submit(store.batch(store.epoch, "first"), Box::new(|_| {}));
    store.wait_until_held();
    let (told, counts) = mpsc::channel();
    for number in 1..=1_000 {
        let (told, double) = (told.clone(), store.clone());
        let done: Done = Box::new(move |commit| {
            assert!(double.inner.synced() >= commit.unwrap());
            if number == 1_000 {
                let seen = double.seen.lock().unwrap();
                told.send((seen.writes, seen.syncs)).unwrap();
            }
        });
        committer.submit(store.batch(store.epoch, &number.to_string()), done);
    }
    store.release();
    assert_eq!(counts.recv().unwrap(), (1_001, 1));
    let sizes = committer.groups().sizes.read();
    assert_eq!(sizes.sums.iter().sum::<u64>(), 1_001);
    assert_eq!(sizes.counts.iter().sum::<u64>(), 1, "one group");
    committer.stop();
}

#[test]
fn submitters_are_told_in_order_and_a_fence_concerns_one_batch() {
    // Aim: a batch of a former epoch fails alone, in its turn; barriers are told what is durable before them.
    let store = Double::new();
    let former = Epoch(store.epoch.0 - 1);
    let committer = start(&store);
    let (told, outcomes) = mpsc::channel();
    for number in 0..300_u32 {
        let batch = match number % 3 {
            0 => store.batch(store.epoch, &number.to_string()),
            1 => store.batch(former, &number.to_string()),
            _ => Batch::new(PARTITION, store.epoch),
        };
        let (told, double) = (told.clone(), store.clone());
        committer.submit(
            batch,
            Box::new(move |outcome| {
                told.send((number, outcome, double.inner.synced())).unwrap();
            }),
        );
    }
    committer.stop();
    let mut last = 0;
    for expected in 0..300_u32 {
        let (number, outcome, synced) = outcomes.recv().unwrap();
        assert_eq!(number, expected);
        match number % 3 {
            0 => {
                let commit = outcome.unwrap();
                assert!(commit > last && commit <= synced);
                last = commit;
            }
            1 => assert!(matches!(outcome, Err(Error::Fenced { .. }))),
            _ => assert_eq!(outcome.unwrap(), last),
        }
    }
}

#[test]
fn stop_writes_what_was_submitted_and_drops_what_comes_later() {
    let store = Double::new();
    store.hold();
    let committer = start(&store);
    let other = committer.clone();
    let (told, outcomes) = mpsc::channel();
    for number in 0..10 {
        let told = told.clone();
        committer.submit(
            store.batch(store.epoch, &number.to_string()),
            Box::new(move |_| told.send(number).unwrap()),
        );
    }
    store.release();
    committer.stop();
    other.submit(
        store.batch(store.epoch, "late"),
        Box::new(move |_| told.send(10).unwrap()),
    );
    assert_eq!(
        outcomes.iter().collect::<Vec<i32>>(),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn a_failed_sync_is_fatal_and_nobody_is_told() {
    let store = Double::new();
    store.seen.lock().unwrap().fails_to_sync = true;
    let (told, outcomes) = mpsc::channel();
    let (failed, failures) = mpsc::channel();
    let failed = Mutex::new(failed);
    let committer = Committer::start(
        store.clone(),
        Box::new(move |error| failed.lock().unwrap().send(error.to_string()).unwrap()),
    );
    committer.submit(
        store.batch(store.epoch, "a"),
        Box::new(move |_| told.send(()).unwrap()),
    );
    let failure = failures.recv().unwrap();
    assert!(
        failure.contains("no more disk") && failure.contains("folder"),
        "{failure}"
    );
    committer.stop();
    // Dropped it would tell its caller that nothing was applied, which nobody knows (S-1.13).
    assert_eq!(
        outcomes.try_recv(),
        Err(mpsc::TryRecvError::Empty),
        "the callback is neither called nor dropped"
    );
}

#[test]
fn a_panicking_callback_is_fatal() {
    let store = Double::new();
    let (failed, failures) = mpsc::channel();
    let failed = Mutex::new(failed);
    let committer = Committer::start(
        store.clone(),
        Box::new(move |error| failed.lock().unwrap().send(error.to_string()).unwrap()),
    );
    committer.submit(
        store.batch(store.epoch, "a"),
        Box::new(|_| panic!("a mistake of ours")),
    );
    let failure = failures.recv().unwrap();
    assert!(failure.contains("a mistake of ours"), "{failure}");
    committer.stop();
}
