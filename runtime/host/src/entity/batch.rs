//! Batches: when one is due, handing it out, and taking back what the worker decided.

use mainspring_core::effect::Effect;
use mainspring_core::entity::BatchResult;
use mainspring_core::message::{FailureDetails, Message};
use mainspring_core::wire;
use mainspring_entities::{Batch, Decision, Transition};

use super::EntityActor;
use crate::activation::{Input, Reply};
use crate::clock::RandomIds;
use crate::dispatch::{Class, Granted, Outgoing, Size, StreamId, Token};
use crate::resident::Resident;

/// The operations that are out with a worker.
pub(super) struct Leased {
    token: Token,
    batch: Batch,
    /// The worker's channel receives items of any size.
    receives_any_size: bool,
}

/// Waiting for a stream that receives more than ordinary ones.
pub(super) struct Oversize {
    number: u64,
}

impl EntityActor {
    pub(super) fn class(&self) -> Class {
        let size = match self.oversize {
            Some(_) => Size::Unlimited,
            None => Size::Ordinary,
        };
        Class::of_entity(&self.key.instance, size)
    }

    /// Another operation may have come to the head meanwhile.
    pub(super) fn forget_oversize_unless_next(&mut self) {
        if self.oversize.is_none() {
            return;
        }
        let limits = self.limits();
        let next = self.entity.as_ref().and_then(|e| e.next_batch(&limits));
        if next.is_none_or(|batch| !batch.is_oversize) {
            self.oversize = None;
        }
    }

    /// After a turn: what is not to run now waits neither for a stream nor for a larger one.
    pub(super) fn withdraw_what_is_not_due(&mut self) {
        if !self.has_work() {
            self.oversize = None;
        }
        self.withdraw_unless_due();
    }

    pub(super) fn hand_out_batch(&mut self, granted: Granted) {
        let limits = self.limits();
        let shared = std::rc::Rc::clone(&self.shared);
        let dispatch = &shared.services.dispatch;
        let next = self
            .entity
            .as_ref()
            .and_then(|e| Some((e, e.next_batch(&limits)?)));
        let Some((entity, batch)) = next else {
            return dispatch.decline(granted);
        };
        if batch.is_oversize && !granted.receives_any_size {
            dispatch.decline(granted);
            if self.oversize.is_none() {
                self.begin_oversize_wait();
            }
            return self.consider(None);
        }
        let waiting = &shared.services.metrics.batch_messages;
        waiting.note(entity.queue_len() as u64);
        let token = Token::fresh();
        let parts = wire::entity_work_item(
            &self.key.instance,
            entity.record.execution_id.as_str(),
            entity.state.as_deref(),
            entity.operations(&batch),
            &token.to_string(),
        );
        self.oversize = None;
        let receives_any_size = granted.receives_any_size;
        self.lease = Some(Leased {
            token,
            batch,
            receives_any_size,
        });
        if !dispatch.lease(&self.key, token, granted, Outgoing::whole(parts)) {
            self.lease = None;
            self.consider(None);
        }
    }

    fn begin_oversize_wait(&mut self) {
        let number = self.standing.next_wait();
        self.oversize = Some(Oversize { number });
        let input = Input::OversizeExpired { waiting: number };
        let wait = self.shared.services.config.oversize_wait;
        self.shared.later(&self.key, wait, input);
    }

    /// No channel can carry the state together with the next operation: the operation fails, the state stays (S-14.4).
    pub(super) fn oversize_expired(&mut self, waiting: u64) {
        if self.oversize.take_if(|o| o.number == waiting).is_none() {
            return;
        }
        let Some(class) = self.standing.queued.clone().filter(|_| self.has_work()) else {
            return;
        };
        let services = &self.shared.services;
        if services.dispatch.is_instance_receivable(&self.key, &class) {
            return self.begin_oversize_wait();
        }
        self.withdraw();
        self.fail_oversize();
        self.answer_viewers();
        self.consider(None);
    }

    /// All that stand at the head and that no connected worker could receive: none of them waits once more.
    fn fail_oversize(&mut self) {
        let limits = self.limits();
        let now = self.shared.now();
        let mut transition = Transition::default();
        let Some(entity) = &mut self.entity else {
            return;
        };
        let bytes = entity.state.as_ref().map_or(0, String::len);
        let message = format!(
            "the entity's state of {bytes} bytes and the operation do not fit a work item of {} bytes, and no connected worker can receive a larger one",
            limits.work_item_bytes_max
        );
        let failure = FailureDetails::new("PayloadTooLarge", &message, true);
        let mut failed = 0;
        for _ in 0..limits.batch_operations_max {
            let Some(batch) = entity.next_batch(&limits).filter(|b| b.is_oversize) else {
                break;
            };
            entity.fail(&batch, failure.clone(), now, &mut transition);
            failed += 1;
        }
        self.note_done(failed, &transition);
        self.turn(transition);
    }

    /// Takes a worker's answer. A stale token is answered like success (S-4.4).
    pub(super) fn batch_done(&mut self, token: Token, result: BatchResult, reply: Reply<()>) {
        let mut limits = self.limits();
        let now = self.shared.now();
        let leased = self.lease.as_ref().filter(|l| l.token == token);
        let (Some(leased), Some(entity)) = (leased, &mut self.entity) else {
            return self.answer(reply, Ok(()));
        };
        if leased.receives_any_size {
            limits.state_bytes_max = limits.payload_bytes_max;
        }
        let failure = result.failure.clone();
        let before = entity.backlog();
        let decision = entity.complete(&leased.batch, result, &limits, now, &mut RandomIds);
        let done = before - entity.backlog();
        match decision {
            Decision::Done(transition) => self.accepted(token, transition, done),
            Decision::Retry => {
                if let Some(failure) = failure {
                    let (error_type, message) = failure.error_type_and_message();
                    self.span().in_scope(|| {
                        tracing::warn!(
                            error_type,
                            message,
                            "a worker could not run a batch; it is tried again later"
                        );
                    });
                }
                self.shared.services.dispatch.return_lease(token);
            }
            Decision::Divide => self.shared.services.dispatch.lose(token),
        }
        self.answer(reply, Ok(()));
        self.answer_viewers();
        self.consider(None);
    }

    fn accepted(&mut self, token: Token, mut transition: Transition, done: usize) {
        self.lease = None;
        self.standing.answered();
        self.note_done(done, &transition);
        if let Some(entity) = &mut self.entity {
            entity.forget_recent(self.shared.now(), &mut transition);
        }
        self.turn(transition);
        self.shared.services.dispatch.answered(token);
    }

    /// Counts operations that a turn has done.
    fn note_done(&mut self, done: usize, transition: &Transition) {
        self.done += done as u64;
        let is_failure = |effect: &&Effect| {
            let Effect::Send { message, .. } = effect else {
                return false;
            };
            matches!(message, Message::EntityFailed { .. })
        };
        let calls = transition.effects.iter().filter(is_failure).count();
        let failed = calls + transition.failed_signals.len();
        let operations = &self.shared.services.metrics.operations;
        operations.failed.add(failed as u64);
        let completed = done.saturating_sub(failed);
        operations.completed.add(completed as u64);
    }

    /// The lease ended without an answer; given back, the next delivery waits out a growing back-off (S-13.17). An entity with operations
    /// waiting is always handed out again (S-12.20).
    pub(super) fn lease_lost(
        &mut self,
        token: Token,
        avoid: Option<StreamId>,
        is_given_back: bool,
    ) {
        if self.lease.as_ref().is_none_or(|l| l.token != token) {
            return;
        }
        self.lease = None;
        // What waited for the batch to come back: a lock, or its end.
        self.turn(Transition::default());
        self.offer_again(avoid, is_given_back);
    }
}
