//! What waits for an entity, in order of arrival, which is the order of positions; and what is known of it without looking through it,
//! since a long queue is asked about often.

use std::collections::VecDeque;

use mainspring_core::entity::{LockRequest, Operation};
use mainspring_core::id::{InstanceId, Position};

use crate::entity::Lock;

/// What an entry takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 128;

/// What waits in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Operation(Box<Operation>),
    Lock(Box<LockRequest>),
    Unlock {
        critical_section: String,
        holder: InstanceId,
    },
}

impl Entry {
    /// Whether it belongs to a lock: an operation of its holder, or its end.
    fn is_within(&self, lock: &Lock) -> bool {
        match self {
            Entry::Operation(operation) => operation.sender.generation() == Some(&lock.holder),
            Entry::Lock(_) => false,
            Entry::Unlock {
                critical_section, ..
            } => *critical_section == lock.critical_section,
        }
    }

    fn bytes(&self) -> usize {
        let texts = match self {
            Entry::Operation(operation) => operation.bytes(),
            Entry::Lock(request) => request.lock_set.iter().map(|e| e.as_str().len()).sum(),
            Entry::Unlock { .. } => 0,
        };
        ENTRY_BYTES + texts
    }
}

/// A message that waits, durable under its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) position: Position,
    pub(crate) entry: Entry,
}

/// The queue. It has to be told which lock the entity is under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Positions rise.
    waiting: VecDeque<Queued>,
    operations: usize,
    bytes: usize,
    lock: Option<Lock>,
    /// Positions of what belongs to the lock.
    within: VecDeque<Position>,
}

impl Queue {
    pub(crate) fn push(&mut self, queued: Queued) {
        self.operations += usize::from(matches!(queued.entry, Entry::Operation(_)));
        self.bytes += queued.entry.bytes();
        if self.is_within(&queued.entry) {
            self.within.push_back(queued.position);
        }
        self.waiting.push_back(queued);
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let first = self.waiting.front()?.position;
        self.take(first)
    }

    /// Takes out what waits under this position.
    pub(crate) fn take(&mut self, position: Position) -> Option<Queued> {
        let queued = self.waiting.remove(self.place(position)?)?;
        self.operations -= usize::from(matches!(queued.entry, Entry::Operation(_)));
        self.bytes -= queued.entry.bytes();
        if let Ok(at) = self.within.binary_search(&position) {
            self.within.remove(at);
        }
        Some(queued)
    }

    fn place(&self, position: Position) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&position, |queued| queued.position)
            .ok()
    }

    fn is_within(&self, entry: &Entry) -> bool {
        self.lock.as_ref().is_some_and(|lock| entry.is_within(lock))
    }

    /// The entity is locked, or not any more.
    pub(crate) fn set_lock(&mut self, lock: Option<&Lock>) {
        self.lock = lock.cloned();
        let within = self.waiting.iter().filter(|q| self.is_within(&q.entry));
        self.within = match lock {
            Some(_) => within.map(|q| q.position).collect(),
            None => VecDeque::new(),
        };
    }

    /// Takes out what `is_void`; gives the positions.
    pub(crate) fn take_out(&mut self, is_void: impl Fn(&Entry) -> bool) -> Vec<Position> {
        let void = self.waiting.iter().filter(|q| is_void(&q.entry));
        let positions: Vec<Position> = void.map(|q| q.position).collect();
        for position in &positions {
            self.take(*position);
        }
        positions
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        self.waiting.front()
    }

    pub(crate) fn get(&self, position: Position) -> Option<&Queued> {
        self.waiting.get(self.place(position)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter()
    }

    /// What belongs to the lock, first to last.
    pub(crate) fn within(&self) -> impl Iterator<Item = &Queued> {
        self.within
            .iter()
            .filter_map(|position| self.get(*position))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
