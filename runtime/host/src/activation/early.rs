//! Early messages: an activity's outcome goes to the worker before it is durable.
//!
//! An episode has no effect but its answer, so it may be run on a message that is only in memory, as long as nobody was told that the
//! message is safe. The commit that takes the answer then holds message and decision at once: one wait for the disk in place of two, and
//! no passage through the mailbox. If the process ends before, the activity's outcome was never acknowledged, and it is run again.
//!
//! That is done only for the stream whose worker keeps the instance: its episode takes no longer than its code, and it has agreed that an
//! activity's receipt may come after the next episode. An early message is in the mailbox, at its head, exactly as long as the episode that
//! it went out with is leased; whatever ends the lease otherwise makes it an ordinary message.

use std::collections::HashSet;

use mainspring_core::id::InstanceKey;
use mainspring_core::message::Message;

use super::{ActivationActor, Reply, Waiting};
use crate::resident::Resident;
use crate::turns::After;

/// Early messages of all partitions together: half of what may be unanswered on one work stream, so that an episode's answer never
/// waits behind those that wait for it.
const EARLY_MAX: usize = 2_048;

/// The instances of a partition that have an early message, by how long.
pub(crate) struct EarlyMessages {
    max: usize,
    /// Since the last look.
    young: HashSet<InstanceKey>,
    old: HashSet<InstanceKey>,
}

impl EarlyMessages {
    pub(crate) fn new(partitions: usize) -> Self {
        Self {
            max: EARLY_MAX / partitions.max(1),
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.young.len() + self.old.len() < self.max
    }

    fn add(&mut self, key: &InstanceKey) {
        self.young.insert(key.clone());
    }

    fn remove(&mut self, key: &InstanceKey) {
        let _ = self.young.remove(key) || self.old.remove(key);
    }

    /// Those that had one at the last look already; all, if nothing is to wait any longer.
    pub(crate) fn expired(&mut self, are_all: bool) -> Vec<InstanceKey> {
        let mut expired: Vec<_> = self.old.drain().collect();
        self.old = std::mem::take(&mut self.young);
        if are_all {
            expired.extend(self.old.drain());
        }
        expired
    }
}

impl ActivationActor {
    /// Whether a message that comes now would go out at once, to a worker that has the instance in memory.
    pub(super) fn can_take_early(&self) -> bool {
        self.mailbox.is_empty()
            && self.arriving == 0
            && self.lease.is_none()
            && self.pinning.is_none()
            && self.standing.backing_off.is_none()
            && self.kept_by().is_some()
            && self.shared.early.borrow().has_room()
            && !self.shared.services.is_stopping()
    }

    /// Puts a message at the head of the empty mailbox and hands it out. `reply` is answered once it is durable.
    pub(super) fn take_early(&mut self, message: Message, reply: Reply<()>) {
        self.mailbox.push_back(Waiting {
            position: None,
            message,
        });
        self.early = Some(reply);
        self.shared.early.borrow_mut().add(&self.key);
        self.consider(None);
    }

    /// The early message was taken by a turn, or is of no use any more: who told it is answered with that turn.
    pub(super) fn answer_early(&mut self) {
        if let Some(reply) = self.early.take() {
            self.shared.early.borrow_mut().remove(&self.key);
            self.then(After::Answer(Box::new(move || drop(reply.send(Ok(()))))));
        }
    }

    /// After each input: an early message that is not out with a worker is put into the mailbox as others are.
    pub(super) fn save_early_unless_out(&mut self) {
        if self.lease.is_some() || self.early.is_none() {
            return;
        }
        let before = self.before();
        let is_early = |waiting: &mut Waiting| waiting.position.is_none();
        if let Some(waiting) = self.mailbox.pop_front_if(is_early) {
            self.arriving += 1;
            self.shared.receive_own(&self.key, waiting.message);
        }
        self.settle(before);
        self.answer_early();
    }

    /// The episode takes long: the message does not wait for it any more. The episode is void, and comes again with the saved message.
    pub(super) fn early_expired(&mut self) {
        if self.early.is_some() {
            self.fence();
        }
    }
}
