//! Batches: when one is due, handing it out, and taking back what the worker decided.

use std::time::Duration;

use mainspring_core::entity::BatchResult;
use mainspring_core::message::FailureDetails;
use mainspring_core::wire;
use mainspring_entities::{Batch, Decision, Transition};

use super::EntityActor;
use crate::activation::{Input, Reply};
use crate::clock;
use crate::dispatch::{Class, Granted, Size, StreamId, Token, back_off};

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
    /// Whether operations may go out now.
    pub(super) fn has_work(&self) -> bool {
        self.lease.is_none() && self.entity.as_ref().is_some_and(|e| e.has_work())
    }

    pub(super) fn class(&self) -> Class {
        let size = match self.oversize {
            Some(_) => Size::Unlimited,
            None => Size::Ordinary,
        };
        Class::of_entity(&self.key.instance, size)
    }

    /// Offers the next batch to the dispatcher, if there is one and nothing of this entity is out already.
    pub(super) fn consider(&mut self, avoid: Option<StreamId>) {
        // Whatever led here is decided and written.
        self.shared.turns.borrow_mut().mark_whole();
        if self.backing_off.is_some() || !self.has_work() {
            return;
        }
        self.forget_oversize_unless_next();
        let class = self.class();
        if self.queued.as_ref() == Some(&class) {
            return;
        }
        let dispatch = &self.shared.services.dispatch;
        match dispatch.offer(&self.key, &class, avoid) {
            Some(granted) => {
                self.queued = None;
                self.hand_out(granted);
            }
            None => self.queued = Some(class),
        }
    }

    /// Another operation may have come to the head meanwhile.
    fn forget_oversize_unless_next(&mut self) {
        if self.oversize.is_none() {
            return;
        }
        let limits = self.limits();
        let next = self.entity.as_ref().and_then(|e| e.next_batch(&limits));
        if next.is_none_or(|batch| !batch.is_oversize) {
            self.oversize = None;
        }
    }

    /// A batch that is not to run now does not wait for a stream either.
    pub(super) fn withdraw_unless_due(&mut self) {
        if self.has_work() {
            return;
        }
        // What was too large has gone.
        self.oversize = None;
        if self.queued.take().is_some() {
            self.shared.services.dispatch.withdraw(&self.key);
        }
    }

    /// A stream has room for the batch that waited in the queue.
    pub(super) fn granted(&mut self, granted: Granted) {
        self.queued = None;
        if self.backing_off.is_some() || !self.has_work() {
            return self.shared.services.dispatch.decline(granted);
        }
        self.hand_out(granted);
    }

    fn hand_out(&mut self, granted: Granted) {
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
        let token = dispatch.token();
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
        if !dispatch.lease(&self.key, token, granted, parts) {
            self.lease = None;
            self.consider(None);
        }
    }

    fn begin_oversize_wait(&mut self) {
        self.waits += 1;
        let number = self.waits;
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
        let Some(class) = self.queued.clone().filter(|_| self.has_work()) else {
            return;
        };
        let services = &self.shared.services;
        if services.dispatch.is_instance_receivable(&self.key, &class) {
            return self.begin_oversize_wait();
        }
        self.queued = None;
        self.shared.services.dispatch.withdraw(&self.key);
        self.fail_oversize();
        self.answer_viewers();
        self.consider(None);
    }

    /// All that stand at the head and that no connected worker could receive: none of them waits once more.
    fn fail_oversize(&mut self) {
        let limits = self.limits();
        let now = clock::now();
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
        for _ in 0..limits.batch_operations_max {
            let Some(batch) = entity.next_batch(&limits).filter(|b| b.is_oversize) else {
                break;
            };
            entity.fail(&batch, failure.clone(), now, &mut transition);
            self.done += 1;
        }
        self.turn(transition);
    }

    /// Takes a worker's answer. A stale token is answered like success (S-4.4).
    pub(super) fn batch_done(&mut self, token: Token, result: BatchResult, reply: Reply<()>) {
        let mut limits = self.limits();
        let now = clock::now();
        let leased = self.lease.as_ref().filter(|l| l.token == token);
        let (Some(leased), Some(entity)) = (leased, &mut self.entity) else {
            return self.answer(reply, Ok(()));
        };
        if leased.receives_any_size {
            limits.state_bytes_max = limits.payload_bytes_max;
        }
        let failure = result.failure.clone();
        let before = entity.backlog();
        let mut ids = self.shared.ids.borrow_mut();
        let decision = entity.complete(&leased.batch, result, &limits, now, &mut *ids);
        drop(ids);
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
        self.attempts = 0;
        self.faults = 0;
        self.done += done as u64;
        if let Some(entity) = &mut self.entity {
            entity.forget_recent(clock::now(), &mut transition);
        }
        self.turn(transition);
        self.shared.services.dispatch.answered(token);
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
        self.attempts += u32::from(is_given_back);
        let delay = match is_given_back {
            true => back_off(self.attempts),
            false => Duration::ZERO,
        };
        // What waited for the batch to come back: a lock, or its end.
        self.turn(Transition::default());
        if delay.is_zero() {
            self.consider(avoid);
        } else {
            self.rest(delay, avoid);
        }
    }

    /// Hands nothing out for a while.
    pub(super) fn rest(&mut self, delay: Duration, avoid: Option<StreamId>) {
        self.waits += 1;
        let number = self.waits;
        self.backing_off = Some(number);
        self.shared
            .later(&self.key, delay, Input::Retry { number, avoid });
    }
}
