//! Batches: what a worker is handed, and what its answer means.

use mainspring_core::effect::Effect;
use mainspring_core::entity::{
    BatchResult, Operation, OperationAction, OperationOutcome, Sender, guid,
};
use mainspring_core::id::{FreshIds, InstanceId, Position, instance_id};
use mainspring_core::message::{FailureDetails, Fence, Message, NewInstance, TURN_MESSAGES_MAX};
use mainspring_core::time::Timestamp;
use mainspring_core::wire;

use crate::entity::{Entity, Transition};
use crate::queue::{Entry, Queued};

/// Bytes of a work item that are neither state nor operations.
const HEAD_ROOM: usize = 4 << 10;

/// Bounds on what an entity may hold and a worker is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// UTF-8 bytes of one payload (S-14.2).
    pub payload_bytes_max: usize,
    /// UTF-8 bytes of the state: no more than the worker's channel can bring back to it (S-14.4).
    pub state_bytes_max: usize,
    /// Operations in one batch (S-12.10).
    pub batch_operations_max: usize,
    /// Encoded bytes of one work item (S-1.11).
    pub work_item_bytes_max: usize,
}

/// Operations that go to a worker together, named by their places in the mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// In order; never empty.
    pub positions: Vec<Position>,
    /// It is larger than a work item may be for ordinary channels; then it holds one operation.
    pub is_oversize: bool,
}

/// What an answer to a batch means.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// This much was done.
    Done(Transition),
    /// Nothing was done: the batch goes out again after a while (S-12.16).
    Retry,
    /// Nothing was done: its operations go out again at once, one at a time (S-14.4).
    Divide,
}

impl Entity {
    /// The operations that may go out now: from the head of the queue up to the first that is none; those of the holder alone while it is
    /// locked (S-12.10, S-12.29).
    pub fn next_batch(&self, limits: &Limits) -> Option<Batch> {
        let count_max = match self.single {
            0 => limits.batch_operations_max.max(1),
            _ => 1,
        };
        let state_bytes = self.state.as_ref().map_or(0, String::len);
        let room = limits.work_item_bytes_max.saturating_sub(HEAD_ROOM);
        let mut bytes = state_bytes;
        let mut positions = Vec::new();
        for (position, operation) in self.ready() {
            bytes += wire::operation_bytes(&self.id, operation);
            let is_first = positions.is_empty();
            if !is_first && (positions.len() >= count_max || bytes > room) {
                break;
            }
            positions.push(position);
            if is_first && bytes > room {
                return Some(Batch {
                    positions,
                    is_oversize: true,
                });
            }
        }
        (!positions.is_empty()).then_some(Batch {
            positions,
            is_oversize: false,
        })
    }

    /// Whether an operation may go out now.
    pub fn has_work(&self) -> bool {
        self.ready().next().is_some()
    }

    /// Operations that may go out one after the other without anything else happening.
    pub fn ready_len(&self) -> usize {
        self.ready().count()
    }

    fn ready(&self) -> impl Iterator<Item = (Position, &Operation)> {
        let is_locked = self.record.lock.is_some();
        let own = is_locked.then(|| self.queue.within());
        let all = (!is_locked).then(|| self.queue.iter());
        let ready = own.into_iter().flatten().chain(all.into_iter().flatten());
        ready.map_while(|queued| match &queued.entry {
            Entry::Operation(operation) => Some((queued.position, &**operation)),
            Entry::Lock(_) | Entry::Unlock { .. } => None,
        })
    }

    /// The operations of a batch that is out: nothing else takes them from the queue.
    pub fn operations<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = &'a Operation> {
        batch
            .positions
            .iter()
            .filter_map(|position| match &self.queue.get(*position)?.entry {
                Entry::Operation(operation) => Some(&**operation),
                Entry::Lock(_) | Entry::Unlock { .. } => None,
            })
    }

    /// Takes a worker's answer (S-12.13 to S-12.19). As many operations as it has results are done; the others stay and go out again.
    pub fn complete(
        &mut self,
        batch: &Batch,
        result: BatchResult,
        limits: &Limits,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Decision {
        if result.outcomes.is_empty() || result.requires_state {
            return Decision::Retry;
        }
        if let Some(failure) = too_large(&result, limits) {
            if batch.positions.len() > 1 {
                self.single = batch.positions.len();
                return Decision::Divide;
            }
            let mut transition = Transition::default();
            self.fail(batch, failure, now, &mut transition);
            return Decision::Done(transition);
        }
        let mut transition = Transition::default();
        let BatchResult {
            outcomes,
            actions,
            state,
            ..
        } = result;
        for (position, outcome) in batch.positions.iter().zip(outcomes) {
            self.consume(*position, outcome, now, &mut transition);
        }
        self.set_state(state, now, &mut transition);
        for action in actions {
            self.act(action, now, ids, &mut transition);
        }
        Decision::Done(transition)
    }

    /// The first operation of a batch fails without a worker's word; the state stays (S-14.4).
    pub fn fail(
        &mut self,
        batch: &Batch,
        failure: FailureDetails,
        now: Timestamp,
        transition: &mut Transition,
    ) {
        if let Some(first) = batch.positions.first() {
            let outcome = OperationOutcome::Failure(failure);
            self.consume(*first, outcome, now, transition);
        }
    }

    /// One operation is done: it leaves the queue, and whoever waits for it is told.
    fn consume(
        &mut self,
        position: Position,
        outcome: OperationOutcome,
        now: Timestamp,
        transition: &mut Transition,
    ) {
        let Some(Queued { entry, .. }) = self.queue.take(position) else {
            return;
        };
        self.single = self.single.saturating_sub(1);
        self.leave(position, &entry, transition);
        let Entry::Operation(operation) = entry else {
            return;
        };
        let Sender::Call { caller, scheduling } = operation.sender else {
            if let OperationOutcome::Failure(failure) = outcome {
                transition.failed_signals.push((operation.name, failure));
            }
            return;
        };
        let fence = Fence {
            execution_id: caller.execution_id,
            scheduling,
        };
        let request_id = operation.request_id;
        let at = now;
        let message = match outcome {
            OperationOutcome::Success(result) => Message::EntityCompleted {
                fence,
                request_id,
                result,
                at,
            },
            OperationOutcome::Failure(failure) => Message::EntityFailed {
                fence,
                request_id,
                failure,
                at,
            },
        };
        transition.effects.push(Effect::Send {
            target: caller.instance,
            message,
        });
    }

    /// Illegal targets are nobody, and an orchestrator without a name cannot be started.
    fn act(
        &mut self,
        action: OperationAction,
        now: Timestamp,
        ids: &mut dyn FreshIds,
        transition: &mut Transition,
    ) {
        match action {
            OperationAction::SendSignal {
                target,
                name,
                input,
                scheduled_at,
            } => {
                let Ok(target) = InstanceId::parse_entity(&target) else {
                    return;
                };
                let operation = Operation::new(guid(ids), name, input, Sender::Entity, now, ids)
                    .scheduled(scheduled_at);
                let message = Message::Operation(Box::new(operation));
                if target == self.id {
                    transition.own_messages.push(message);
                } else {
                    transition.effects.push(Effect::Send { target, message });
                }
            }
            OperationAction::StartOrchestration {
                instance,
                name,
                version,
                input,
                scheduled_at,
                trace,
            } => {
                let target = match instance.is_empty() {
                    true => Ok(instance_id(ids)),
                    false => InstanceId::parse(&instance),
                };
                let Some(target) = target.ok().filter(|_| !name.is_empty()) else {
                    return;
                };
                let new = NewInstance {
                    instance: target.clone(),
                    name,
                    version,
                    input,
                    tags: Default::default(),
                    scheduled_start_at: scheduled_at,
                    execution_id: None,
                    parent: None,
                    trace,
                };
                let message = Message::StartFromEntity(Box::new(new));
                transition.effects.push(Effect::Send { target, message });
            }
        }
    }
}

/// Why an answer cannot be taken as it is, naming what is too large, its size and the limit.
fn too_large(result: &BatchResult, limits: &Limits) -> Option<FailureDetails> {
    let messages = result.actions.len();
    if messages > TURN_MESSAGES_MAX {
        let message = format!(
            "the operation sends {messages} messages; at most {TURN_MESSAGES_MAX} are allowed"
        );
        return Some(FailureDetails::new("TooManyMessages", &message, true));
    }
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let of_outcome = |outcome: &OperationOutcome| match outcome {
        OperationOutcome::Success(result) => length(result),
        OperationOutcome::Failure(_) => 0,
    };
    let of_action = |action: &OperationAction| match action {
        OperationAction::SendSignal { input, .. } => ("signal input", length(input)),
        OperationAction::StartOrchestration { input, .. } => ("orchestration input", length(input)),
    };
    let limit = limits.payload_bytes_max;
    let state = (
        "entity state",
        length(&result.state),
        limits.state_bytes_max,
    );
    let outcomes = result.outcomes.iter().map(of_outcome);
    let outcomes = outcomes.map(|bytes| ("operation result", bytes, limit));
    let actions = result.actions.iter().map(of_action);
    let actions = actions.map(|(what, bytes)| (what, bytes, limit));
    let (what, bytes, limit) = std::iter::once(state)
        .chain(outcomes)
        .chain(actions)
        .find(|(_, bytes, limit)| bytes > limit)?;
    let message = format!("the {what} has {bytes} bytes; at most {limit} are allowed");
    Some(FailureDetails::new("PayloadTooLarge", &message, true))
}
