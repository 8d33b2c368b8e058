//! What is known of one entity, and how messages reach it.

use mainspring_core::effect::Effect;
use mainspring_core::entity::{Generation, Sender};
use mainspring_core::id::{ExecutionId, InstanceId, Position};
use mainspring_core::message::{FailureDetails, Message};
use mainspring_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::queue::{Entry, Queue, Queued};
use crate::recent::Recent;

/// The state that is rewritten whenever something changes, therefore small: never the entity's own state. Fields are only ever
/// added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names the record, from its first message until it is removed (S-12.4).
    pub execution_id: ExecutionId,
    /// When an operation last changed something; at first, when the record began. Never runs backwards.
    pub last_modified: Timestamp,
    /// Whether there is state: the entity exists (S-12.6).
    pub has_state: bool,
    /// Who holds it.
    pub lock: Option<Lock>,
    /// The last request of a client that was done. Later ones in the mailbox wait; up to here they are kept only so that a
    /// repeated one is recognised (S-12.37).
    pub done: Position,
    /// All messages up to here have left the mailbox.
    pub mailbox_head: Position,
}

/// A lock on an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The critical section.
    pub critical_section: String,
    /// The orchestration that is in it.
    pub holder: Generation,
}

/// An entity in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its id.
    pub id: InstanceId,
    /// Rewritten when something changes.
    pub record: Record,
    /// Set exactly if [`Record::has_state`]. Opaque; empty and falsy texts are state, too.
    pub state: Option<String>,
    /// In order of arrival.
    pub(crate) queue: Queue,
    pub(crate) recent: Recent,
    /// Operations at the head of the queue that go out one at a time: a batch with them had something too large in it (S-14.4).
    pub(crate) single: usize,
}

/// What becomes durable together, and what may be done once it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// Messages that leave the mailbox.
    pub removed: Vec<Position>,
    /// The record has changed.
    pub is_changed: bool,
    /// The state has changed, or gone.
    pub is_state_changed: bool,
    /// Signals that failed: nobody is told, so they are for the log (S-12.15). Names and failures.
    pub failed_signals: Vec<(String, FailureDetails)>,
    /// Messages for the own mailbox, in order.
    pub own_messages: Vec<Message>,
    /// In the order in which they are to be performed.
    pub effects: Vec<Effect>,
}

/// What became of a message that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It waits in the queue.
    Queued,
    /// It is not due before this time: keep it aside, and bring it again then (S-6.7).
    Delayed(Timestamp),
    /// It was decided, or has nothing to decide: it leaves the mailbox.
    Done,
}

/// What a client sees of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: InstanceId,
    /// When it last changed.
    pub last_modified: Timestamp,
    /// Operations that were not executed yet.
    pub backlog: usize,
    /// The orchestration that holds it (S-12.36).
    pub locked_by: Option<InstanceId>,
    /// The state, if it was asked for.
    pub state: Option<String>,
}

impl Entity {
    /// An entity with its first message: nothing yet but a name.
    pub fn new(id: InstanceId, execution_id: ExecutionId, now: Timestamp) -> Self {
        let record = Record {
            execution_id,
            last_modified: now,
            has_state: false,
            lock: None,
            done: Position::default(),
            mailbox_head: Position::default(),
        };
        Self::restore(id, record, None)
    }

    /// An entity from storage, before its mailbox is [brought](Entity::arrive) again.
    pub fn restore(id: InstanceId, record: Record, state: Option<String>) -> Self {
        let mut queue = Queue::default();
        queue.set_lock(record.lock.as_ref());
        Self {
            id,
            record,
            state,
            queue,
            recent: Recent::default(),
            single: 0,
        }
    }

    /// Takes note of a client's request id before its message is made durable. False: it was seen within the last minute, and is
    /// not to be taken again (S-12.37).
    pub fn accept(&mut self, request_id: &str) -> bool {
        self.recent.accept(request_id)
    }

    /// Takes in a message that is durable in the mailbox under `position`; messages arrive in order of their positions, after a
    /// restart once more.
    pub fn arrive(
        &mut self,
        position: Position,
        message: Message,
        now: Timestamp,
        transition: &mut Transition,
    ) -> Arrival {
        let entry = match message {
            Message::Operation(operation) => {
                let is_client = operation.sender == Sender::Client;
                if is_client && position <= self.record.done {
                    self.recent
                        .restore(operation.at, position, operation.request_id);
                    return Arrival::Queued;
                }
                if let Some(due) = operation.scheduled_at.filter(|due| *due > now) {
                    return Arrival::Delayed(due);
                }
                if is_client {
                    self.recent.accept(&operation.request_id);
                }
                Entry::Operation(operation)
            }
            Message::Lock(request) if !self.knows(&request) => Entry::Lock(request),
            Message::Unlock {
                critical_section,
                holder,
            } if self.is_held_in(&critical_section, &holder) => Entry::Unlock {
                critical_section,
                holder,
            },
            Message::ReleaseLocks(generation) => {
                self.release(&generation, transition);
                return Arrival::Done;
            }
            _ => return Arrival::Done,
        };
        self.queue.push(Queued { position, entry });
        Arrival::Queued
    }

    /// Operations that were not executed yet.
    pub fn backlog(&self) -> usize {
        self.queue.operations()
    }

    /// Everything that waits, locks among it.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// About how many bytes wait.
    pub fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether nothing waits.
    pub fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether requests done lately are still in the mailbox.
    pub fn has_recent(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Forgets requests older than a minute; they leave the mailbox (S-12.37).
    pub fn forget_recent(&mut self, now: Timestamp, transition: &mut Transition) {
        self.recent.forget(now, &mut transition.removed);
    }

    /// Notes how far the mailbox is empty, so that reading it begins there. `removed`: what leaves it now.
    pub fn mark_head(&mut self, removed: &[Position]) {
        let waiting = self.queue.front().map(|q| q.position);
        let lowest = match (waiting, self.recent.first()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let head = match lowest {
            Some(lowest) => before(lowest),
            None => removed
                .iter()
                .copied()
                .max()
                .map(before)
                .unwrap_or_default(),
        };
        self.record.mailbox_head = self.record.mailbox_head.max(head);
    }

    /// Whether nothing of it needs to be kept (S-12.7).
    pub fn is_disposable(&self) -> bool {
        !self.record.has_state
            && self.record.lock.is_none()
            && self.queue.is_empty()
            && self.recent.is_empty()
    }

    /// What a client sees, whether it has state or not.
    pub fn view(&self, include_state: bool) -> View {
        View {
            id: self.id.clone(),
            last_modified: self.record.last_modified,
            backlog: self.backlog(),
            locked_by: self.record.lock.as_ref().map(|l| l.holder.instance.clone()),
            state: self.state.clone().filter(|_| include_state),
        }
    }

    /// Drops state and waiting signals. `None`, and nothing happens: it is locked, or an orchestration waits for it (S-11.23).
    pub fn purge(&mut self, now: Timestamp) -> Option<Transition> {
        let is_wanted = |queued: &Queued| match &queued.entry {
            Entry::Operation(operation) => operation.is_call(),
            Entry::Lock(_) => true,
            Entry::Unlock { .. } => false,
        };
        if self.record.lock.is_some() || self.queue.iter().any(is_wanted) {
            return None;
        }
        let mut transition = Transition::default();
        while let Some(queued) = self.queue.pop() {
            self.leave(queued.position, &queued.entry, &mut transition);
        }
        self.single = 0;
        self.set_state(None, now, &mut transition);
        Some(transition)
    }

    /// A message was dealt with. A client's stays in the mailbox for a while, behind the mark, to be recognised.
    pub(crate) fn leave(&mut self, position: Position, entry: &Entry, transition: &mut Transition) {
        match entry {
            Entry::Operation(operation) if operation.sender == Sender::Client => {
                self.record.done = self.record.done.max(position);
                transition.is_changed = true;
                let request_id = operation.request_id.clone();
                self.recent
                    .done(operation.at, position, request_id, &mut transition.removed);
            }
            _ => transition.removed.push(position),
        }
    }

    pub(crate) fn set_state(
        &mut self,
        state: Option<String>,
        now: Timestamp,
        transition: &mut Transition,
    ) {
        transition.is_changed = true;
        self.record.last_modified = self.record.last_modified.max(now);
        self.record.has_state = state.is_some();
        if state != self.state {
            transition.is_state_changed = true;
            self.state = state;
        }
    }
}

/// The end of the commit in front of this position's. A head stands between commits: of one commit, more may be on its way.
fn before(position: Position) -> Position {
    Position {
        commit: position.commit.saturating_sub(1),
        index: u16::MAX,
    }
}
