//! What waits for an entity, in order of arrival; and counts of it, since a long queue is asked about often.

use std::collections::VecDeque;

use mainspring_core::entity::{LockRequest, Operation};
use mainspring_core::id::{InstanceId, Position};

use crate::entity::Lock;

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
    pub(crate) fn is_within(&self, lock: &Lock) -> bool {
        match self {
            Entry::Operation(operation) => operation.sender.generation() == Some(&lock.holder),
            Entry::Lock(_) => false,
            Entry::Unlock {
                critical_section, ..
            } => *critical_section == lock.critical_section,
        }
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
    waiting: VecDeque<Queued>,
    operations: usize,
    lock: Option<Lock>,
    /// Entries that belong to the lock.
    within: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, queued: Queued) {
        self.count(&queued.entry, 1);
        self.waiting.push_back(queued);
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<Queued> {
        let queued = self.waiting.remove(at)?;
        self.count(&queued.entry, -1);
        Some(queued)
    }

    fn count(&mut self, entry: &Entry, by: isize) {
        if matches!(entry, Entry::Operation(_)) {
            self.operations = self.operations.saturating_add_signed(by);
        }
        if self.lock.as_ref().is_some_and(|lock| entry.is_within(lock)) {
            self.within = self.within.saturating_add_signed(by);
        }
    }

    /// The entity is locked, or not any more.
    pub(crate) fn set_lock(&mut self, lock: Option<&Lock>) {
        self.lock = lock.cloned();
        self.within = match lock {
            Some(lock) => self.iter().filter(|q| q.entry.is_within(lock)).count(),
            None => 0,
        };
    }

    /// Takes out what `is_void`; gives the positions.
    pub(crate) fn take_out(&mut self, is_void: impl Fn(&Entry) -> bool) -> Vec<Position> {
        let void: Vec<usize> = (0..self.waiting.len())
            .filter(|at| is_void(&self.waiting[*at].entry))
            .collect();
        let taken = void.into_iter().rev().filter_map(|at| self.remove(at));
        let mut positions: Vec<Position> = taken.map(|queued| queued.position).collect();
        positions.reverse();
        positions
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        self.waiting.front()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter()
    }

    /// Entries that belong to the lock, first to last, each with its place.
    pub(crate) fn within(&self) -> impl Iterator<Item = (usize, &Queued)> {
        let lock = self.lock.as_ref();
        self.waiting
            .iter()
            .enumerate()
            .filter(move |(_, queued)| lock.is_some_and(|lock| queued.entry.is_within(lock)))
            // Behind the last there is nothing to look for.
            .take(self.within)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
