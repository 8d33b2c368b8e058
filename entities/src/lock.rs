//! Critical sections: an orchestration holds several entities at once.
//!
//! A request for locks walks along its lock set, which has one order for everybody, so that crossing sets cannot wait for each other in a
//! circle (S-12.26, S-12.27). At each entity it queues like an operation. While an entity is locked, only what its holder sends is done.

use mainspring_core::effect::Effect;
use mainspring_core::entity::{Generation, LockRequest};
use mainspring_core::id::{InstanceId, Position};
use mainspring_core::message::{Fence, Message};
use mainspring_core::time::Timestamp;

use crate::entity::{Entity, Lock, Transition};
use crate::queue::Entry;

impl Entity {
    /// Decides what stands at the head of the queue and is no operation: locks that can be had, locks given back.
    ///
    /// `is_idle`: no batch is out. `is_over`: whether a generation has ended, by what is committed of it (S-12.28).
    pub fn settle(
        &mut self,
        is_idle: bool,
        is_over: &mut dyn FnMut(&Generation) -> bool,
        now: Timestamp,
        transition: &mut Transition,
    ) {
        while self.unlock_if_due(transition)
            || (is_idle && self.lock_if_free(is_over, now, transition))
        {}
    }

    /// Gives the lock back if that is the next thing its holder wants (S-12.30).
    fn unlock_if_due(&mut self, transition: &mut Transition) -> bool {
        let next = self.queue.within().next();
        let Some(unlock) = next.filter(|q| matches!(q.entry, Entry::Unlock { .. })) else {
            return false;
        };
        self.take(unlock.position, transition);
        self.set_lock(None);
        true
    }

    /// Takes the request at the head of the queue: locked, it goes on to the next entity; after the last, its sender is told.
    fn lock_if_free(
        &mut self,
        is_over: &mut dyn FnMut(&Generation) -> bool,
        now: Timestamp,
        transition: &mut Transition,
    ) -> bool {
        if self.record.lock.is_some() {
            return false;
        }
        let Some(first) = self.queue.front() else {
            return false;
        };
        if matches!(first.entry, Entry::Operation(_)) {
            return false;
        }
        // An unlock goes, too: its lock is gone already.
        if let Some(Entry::Lock(request)) = self.take(first.position, transition)
            && !is_over(&request.holder)
        {
            self.set_lock(Some(Lock {
                critical_section: request.critical_section.clone(),
                holder: request.holder.clone(),
            }));
            transition.effects.push(next_step(*request, now));
        }
        true
    }

    fn take(&mut self, position: Position, transition: &mut Transition) -> Option<Entry> {
        transition.is_changed = true;
        let queued = self.queue.take(position)?;
        transition.removed.push(queued.position);
        Some(queued.entry)
    }

    /// A generation is over: it holds nothing and asks for no lock any more. What it asked for before is done all the same (S-12.52).
    pub(crate) fn release(&mut self, over: &Generation, transition: &mut Transition) {
        if self.record.lock.as_ref().is_some_and(|l| l.holder == *over) {
            self.set_lock(None);
            transition.is_changed = true;
        }
        let is_void = |entry: &Entry| matches!(entry, Entry::Lock(r) if r.holder == *over);
        transition.removed.extend(self.queue.take_out(is_void));
    }

    fn set_lock(&mut self, lock: Option<Lock>) {
        self.queue.set_lock(lock.as_ref());
        self.record.lock = lock;
    }

    /// Whether a critical section holds this entity, or waits for it (S-12.34).
    pub(crate) fn knows(&self, wanted: &LockRequest) -> bool {
        let critical_section = &wanted.critical_section;
        let holds =
            self.record.lock.as_ref().is_some_and(|l| {
                l.critical_section == *critical_section && l.holder == wanted.holder
            });
        holds
            || self.queue.iter().any(|q| match &q.entry {
                Entry::Lock(request) => {
                    request.critical_section == *critical_section && request.holder == wanted.holder
                }
                Entry::Operation(_) | Entry::Unlock { .. } => false,
            })
    }

    pub(crate) fn is_held_in(&self, critical_section: &str, holder: &InstanceId) -> bool {
        self.record.lock.as_ref().is_some_and(|lock| {
            lock.critical_section == critical_section && lock.holder.instance == *holder
        })
    }
}

fn next_step(request: LockRequest, now: Timestamp) -> Effect {
    let position = request.position + 1;
    match request.lock_set.get(position as usize).cloned() {
        Some(target) => Effect::Send {
            target,
            message: Message::Lock(Box::new(LockRequest {
                position,
                ..request
            })),
        },
        None => Effect::Send {
            target: request.holder.instance,
            message: Message::LocksGranted {
                fence: Fence {
                    execution_id: request.holder.execution_id,
                    scheduling: request.scheduling,
                },
                critical_section: request.critical_section,
                at: now,
            },
        },
    }
}
