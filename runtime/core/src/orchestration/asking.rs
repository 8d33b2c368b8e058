//! What an orchestration asks of entities: signals, calls, locks (S-12.21 to S-12.30).

use crate::effect::Effect;
use crate::entity::{Asked, EntityEvent, Generation, LockRequest, Operation, Sender, lock_set};
use crate::history::{EventKind, OtherEvent};
use crate::id::{FreshIds, InstanceId};
use crate::message::{FailureDetails, Fence, Message};
use crate::time::Timestamp;
use crate::wire;

use super::turn::Turn;
use super::{Orchestration, Transition};

impl Orchestration {
    /// History gets the action's event as it is; the entity gets the message. What is asked in the very response that ends the generation
    /// is asked all the same (S-12.52), locks apart.
    pub(super) fn send_to_entity(
        &mut self,
        turn: &mut Turn,
        id: i32,
        event: OtherEvent,
        ids: &mut dyn FreshIds,
    ) {
        let asked = wire::entity_event(&event);
        let now = turn.now;
        self.record_event(&mut turn.transition, id, now, EventKind::Other(event));
        let scheduling = self.open.latest();
        match asked {
            Some(EntityEvent::LockRequested { .. }) if turn.ends => {}
            Some(asked) => self.ask_entity(&mut turn.transition, asked, scheduling, now, ids),
            None => {}
        }
    }

    /// Sends what an event asks. `scheduling`: its number, if it has one.
    pub(super) fn ask_entity(
        &self,
        transition: &mut Transition,
        asked: EntityEvent,
        scheduling: u32,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) {
        match asked {
            EntityEvent::Signaled(asked) => {
                // An illegal target is nobody (S-4.18).
                if let Ok(target) = InstanceId::parse_entity(&asked.target) {
                    let sender = Sender::Signal(self.generation());
                    let message = operation(asked, sender, now, ids);
                    transition.effects.push(Effect::Send { target, message });
                }
            }
            EntityEvent::Called(asked) => match InstanceId::parse_entity(&asked.target) {
                Ok(target) => {
                    let caller = self.generation();
                    let message = operation(asked, Sender::Call { caller, scheduling }, now, ids);
                    transition.effects.push(Effect::Send { target, message });
                }
                Err(error) => {
                    let message = format!("the entity cannot be called: {error}");
                    transition.own_messages.push(Message::EntityFailed {
                        fence: self.fence(scheduling),
                        request_id: asked.request_id,
                        failure: FailureDetails::new("InvalidArgument", &message, true),
                        at: now,
                    });
                }
            },
            EntityEvent::LockRequested {
                critical_section,
                lock_set: listed,
            } => self.request_locks(transition, critical_section, &listed, scheduling, now),
            EntityEvent::UnlockSent {
                critical_section,
                target,
            } => {
                if let Ok(target) = InstanceId::parse_entity(&target) {
                    let message = Message::Unlock {
                        critical_section,
                        holder: self.id.clone(),
                    };
                    transition.effects.push(Effect::Send { target, message });
                }
            }
            EntityEvent::Completed { .. }
            | EntityEvent::Failed { .. }
            | EntityEvent::LockGranted { .. } => {}
        }
    }

    /// A set that is illegal has failed the instance before this.
    fn request_locks(
        &self,
        transition: &mut Transition,
        critical_section: String,
        listed: &[String],
        scheduling: u32,
        now: Timestamp,
    ) {
        let lock_set = lock_set(listed).unwrap_or_default();
        let Some(target) = lock_set.first().cloned() else {
            transition.own_messages.push(Message::LocksGranted {
                fence: self.fence(scheduling),
                critical_section,
                at: now,
            });
            return;
        };
        let request = LockRequest {
            critical_section,
            lock_set,
            position: 0,
            holder: self.generation(),
            scheduling,
        };
        let message = Message::Lock(Box::new(request));
        transition.effects.push(Effect::Send { target, message });
    }

    pub(super) fn generation(&self) -> Generation {
        Generation {
            instance: self.id.clone(),
            execution_id: self.record.execution_id.clone(),
        }
    }

    fn fence(&self, scheduling: u32) -> Fence {
        Fence {
            execution_id: self.record.execution_id.clone(),
            scheduling,
        }
    }
}

fn operation(asked: Asked, sender: Sender, now: Timestamp, ids: &mut dyn FreshIds) -> Message {
    let Asked {
        request_id,
        name,
        input,
        scheduled_at,
        ..
    } = asked;
    let operation = Operation::new(request_id, name, input, sender, now, ids);
    Message::Operation(Box::new(operation.scheduled(scheduled_at)))
}
