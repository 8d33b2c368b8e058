//! What the scheduler counts of itself: numbers that anybody may read at any time and that cost those who work next to nothing.
//!
//! A number is a relaxed atomic, added to where the thing happens; what is in hand is counted only when somebody asks. There is no lock, no
//! allocation and no name of an instance in here, and nothing knows how the numbers are shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainspring_core::orchestration::Status;
use mainspring_store::{Distribution, Histogram};

use crate::api::WorkKind;
use crate::host::Host;

/// Upper bounds of times that the scheduler itself takes, in nanoseconds: from 0.1 ms, less than a sync, to 10 s.
const TIMES: [u64; 15] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// Upper bounds of times that depend on workers, in nanoseconds: from 1 ms to an hour.
const WAITS: [u64; 14] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
    120_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// Upper bounds of numbers of messages.
const DEPTHS: [u64; 11] = [0, 1, 2, 4, 8, 16, 64, 256, 1_024, 8_192, 65_536];

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Of one that falls, too.
    pub(crate) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How things ended: those that went well, and those that failed.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    pub(crate) completed: Counter,
    pub(crate) failed: Counter,
}

impl Endings {
    fn read(&self) -> Ended {
        Ended {
            completed: self.completed.read(),
            failed: self.failed.read(),
        }
    }
}

/// Work items of one kind.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) dispatched: Counter,
    pub(crate) returned: Counter,
    pub(crate) waits: Histogram,
    pub(crate) leases: Histogram,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            dispatched: Counter::default(),
            returned: Counter::default(),
            waits: Histogram::new(&WAITS),
            leases: Histogram::new(&WAITS),
        }
    }
}

/// All that one scheduler counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    work: [Work; WorkKind::ALL.len()],
    pub(crate) started: Counter,
    pub(crate) continued: Counter,
    ended: [Counter; ENDS.len()],
    pub(crate) activities: Endings,
    pub(crate) operations: Endings,
    pub(crate) turns: Histogram,
    pub(crate) lateness: Histogram,
    pub(crate) episode_messages: Histogram,
    pub(crate) batch_messages: Histogram,
    /// Instances and entities in memory.
    pub(crate) activations: Counter,
    pub(crate) warm_hits: Counter,
    pub(crate) warm_misses: Counter,
}

/// Statuses that an orchestration ends with.
const ENDS: [Status; 4] = [
    Status::Completed,
    Status::Failed,
    Status::Canceled,
    Status::Terminated,
];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            work: Default::default(),
            started: Counter::default(),
            continued: Counter::default(),
            ended: Default::default(),
            activities: Endings::default(),
            operations: Endings::default(),
            turns: Histogram::new(&TIMES),
            lateness: Histogram::new(&TIMES),
            episode_messages: Histogram::new(&DEPTHS),
            batch_messages: Histogram::new(&DEPTHS),
            activations: Counter::default(),
            warm_hits: Counter::default(),
            warm_misses: Counter::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn of(&self, kind: WorkKind) -> &Work {
        &self.work[kind.place()]
    }

    /// An orchestration has ended with this status.
    pub(crate) fn end(&self, status: Status) {
        if let Some(place) = ENDS.iter().position(|end| *end == status) {
            self.ended[place].add(1);
        }
    }
}

/// How the scheduler stands, and what it has done since its process started.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Work items, kind by kind.
    pub work: [WorkSnapshot; 3],
    /// Streams of work items that are open: one for each connected worker.
    pub workers: u64,
    /// Orchestrations that were started, restarted or rewound.
    pub started: u64,
    /// Generations that followed another by continue-as-new.
    pub continued: u64,
    /// Orchestrations that have ended, by their status.
    pub ended: [(Status, u64); 4],
    /// Activities whose outcome was taken.
    pub activities: Ended,
    /// Operations of entities that were done.
    pub operations: Ended,
    /// From the first decision in a batch of turns until the batch is durable and performed; nanoseconds.
    pub turns: Distribution,
    /// From the first write of a group of batches until it is durable; nanoseconds.
    pub commits: Distribution,
    /// Batches that shared a sync.
    pub groups: Distribution,
    /// How much later than due timers, scheduled starts and delayed operations fired; nanoseconds.
    pub lateness: Distribution,
    /// Instances and entities in memory.
    pub activations: u64,
    /// Looks for the state of an instance that left memory, by where it was found.
    pub warm: Found,
    /// Looks for chunks of history, by where they were found.
    pub history: Found,
    /// Bytes that warm state and history take in memory.
    pub cache_bytes: u64,
    /// Bytes that the store takes on disk.
    pub store_bytes: u64,
    /// Bytes that the disk has left; `None`: there is none.
    pub disk_free_bytes: Option<u64>,
}

/// Work items of one kind.
#[derive(Debug, Clone)]
pub struct WorkSnapshot {
    /// The kind.
    pub kind: WorkKind,
    /// What is in hand.
    pub in_hand: InHand,
    /// Items handed to workers, repetitions included.
    pub dispatched: u64,
    /// Of these, those that came to nothing and were delivered again.
    pub returned: u64,
    /// From being ready to being handed out; nanoseconds.
    pub waits: Distribution,
    /// From being handed out to being answered; nanoseconds.
    pub leases: Distribution,
    /// Messages that waited in the mailbox when an item was made of it; `None`: activities have none.
    pub messages: Option<Distribution>,
}

/// Work items of one kind that are not answered yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InHand {
    /// Those that no worker has.
    pub pending: u64,
    /// Those that are with a worker.
    pub active: u64,
    /// How long the oldest that waits for a worker has waited.
    pub pending_age: Duration,
    /// How long the oldest that is with a worker has been there.
    pub active_age: Duration,
}

/// How many ended well, and how many failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Those that gave a result.
    pub completed: u64,
    /// Those that gave a failure.
    pub failed: u64,
}

/// How often something was in memory, and how often it had to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// It was in memory.
    pub hits: u64,
    /// It was read from the store.
    pub misses: u64,
}

impl Host {
    /// How the scheduler stands. It takes a short lock to count what is in hand, in proportion to what workers hold.
    pub fn metrics(&self) -> Snapshot {
        let services = &self.inner.services;
        let metrics = &services.metrics;
        let (workers, in_hand) = services.dispatch.in_hand();
        let work = WorkKind::ALL.map(|kind| {
            let work = metrics.of(kind);
            let messages = match kind {
                WorkKind::Orchestration => Some(metrics.episode_messages.read()),
                WorkKind::Entity => Some(metrics.batch_messages.read()),
                WorkKind::Activity => None,
            };
            WorkSnapshot {
                kind,
                in_hand: in_hand[kind.place()],
                dispatched: work.dispatched.read(),
                returned: work.returned.read(),
                waits: work.waits.read(),
                leases: work.leases.read(),
                messages,
            }
        });
        let mut ended = ENDS.map(|status| (status, 0));
        for ((_, count), counter) in ended.iter_mut().zip(&metrics.ended) {
            *count = counter.read();
        }
        let lookups = services.cache.lookups();
        let groups = services.committer.groups();
        let free = services.store.free_bytes();
        Snapshot {
            work,
            workers,
            started: metrics.started.read(),
            continued: metrics.continued.read(),
            ended,
            activities: metrics.activities.read(),
            operations: metrics.operations.read(),
            turns: metrics.turns.read(),
            commits: groups.times.read(),
            groups: groups.sizes.read(),
            lateness: metrics.lateness.read(),
            activations: metrics.activations.read(),
            warm: Found {
                hits: metrics.warm_hits.read(),
                misses: metrics.warm_misses.read(),
            },
            history: Found {
                hits: lookups.hits.load(Ordering::Relaxed),
                misses: lookups.misses.load(Ordering::Relaxed),
            },
            cache_bytes: services.cache.usage_bytes() as u64,
            store_bytes: services.store.size_bytes(),
            disk_free_bytes: (free < u64::MAX).then_some(free),
        }
    }
}
