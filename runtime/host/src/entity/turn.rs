//! From a decision to a batch: what one turn of an entity writes, and what is performed once it is durable.

use mainspring_core::effect::Effect;
use mainspring_core::message::Message;
use mainspring_entities::Transition;

use super::{EntityActor, is_over};
use crate::resident::Resident;

impl EntityActor {
    /// Decides locks that can be had or are given back, and writes the whole turn into the open batch.
    pub(super) fn turn(&mut self, mut transition: Transition) {
        let shared = std::rc::Rc::clone(&self.shared);
        let key = self.key.clone();
        let is_idle = self.lease.is_none();
        let Some(entity) = &mut self.entity else {
            return;
        };
        let mut is_over = |generation: &_| is_over(&shared, &key, generation);
        entity.settle(is_idle, &mut is_over, shared.now(), &mut transition);
        entity.mark_head(&transition.removed);
        let Transition {
            removed,
            is_changed,
            is_state_changed,
            failed_signals,
            own_messages,
            effects,
        } = transition;
        for position in &removed {
            shared.decide(|turns| turns.batch().remove_message(&key, *position));
        }
        if is_state_changed {
            let state = entity.state.as_deref();
            shared.decide(|turns| turns.batch().put_entity_state(&key, state));
        }
        let is_written = is_changed || !removed.is_empty();
        let is_over = entity.is_disposable() && self.arriving == 0 && own_messages.is_empty();
        if is_over && (is_written || is_state_changed) {
            shared.decide(|turns| turns.batch().remove_entity(&key));
            self.entity = None;
        } else if is_written {
            shared.decide(|turns| turns.batch().put_entity(&key, &entity.record));
        }
        for effect in effects {
            // Entities ask for nothing else.
            if let Effect::Send { target, message } = effect {
                shared.send(key.hub, target, message);
            }
        }
        for message in own_messages {
            self.receive_own(message);
        }
        for (operation, failure) in failed_signals {
            let (error_type, message) = failure.error_type_and_message();
            self.span().in_scope(|| {
                tracing::warn!(operation, error_type, message, "a signal failed");
            });
        }
        self.mark_busy();
        self.note_turn();
        self.withdraw_what_is_not_due();
    }

    /// Puts a message into the own mailbox; it takes its place there once it is durable.
    pub(super) fn receive_own(&mut self, message: Message) {
        self.arriving += 1;
        self.shared.receive_own(&self.key, message);
        self.note_turn();
    }

    pub(super) fn note_turn(&mut self) {
        let turns = self.shared.turns.borrow();
        if !turns.is_empty() {
            self.last_turn = Some(turns.sequence());
        }
    }

    /// Keeps the store's list of instances to look at after a restart: those with something waiting.
    pub(super) fn mark_busy(&mut self) {
        let is_busy = self.arriving > 0
            || self.lease.is_some()
            || self.entity.as_ref().is_some_and(|e| !e.is_queue_empty());
        if is_busy != self.is_marked_busy {
            self.is_marked_busy = is_busy;
            self.shared.decide(|turns| match is_busy {
                true => turns.batch().mark_busy(&self.key),
                false => turns.batch().clear_busy(&self.key),
            });
        }
    }
}
