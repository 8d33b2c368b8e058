//! Episodes: when one is due, handing it out, and taking back what the worker decided.

use std::time::Instant;

use mainspring_core::action::{Chunk, EpisodeResult};
use mainspring_core::message::FailureDetails;
use mainspring_core::orchestration::Episode;
use mainspring_core::wire;

use super::{ActivationActor, Reply};
use crate::clock;
use crate::dispatch::{Class, Granted, StreamId, Token, back_off};
use crate::error::Error;
use crate::turns::After;

/// History beyond this is streamed to workers that can; below it is embedded for them too (S-3.35).
const EMBEDDED_HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Most bytes collected from a response in chunks (S-3.31).
const CHUNKED_BYTES_MAX: usize = 64 << 20;

/// The episode that is out with a worker.
pub(super) struct Leased {
    pub(super) token: Token,
    episode: Episode,
    leased_at: Instant,
    /// What came so far of a response in chunks.
    collected: Option<Collected>,
}

/// A response in chunks, so far (S-3.31).
struct Collected {
    result: EpisodeResult,
    next_chunk: u32,
    bytes: usize,
}

/// An episode whose cut must be durable before it may go out (S-4.17).
pub(super) struct Pinning {
    granted: Granted,
    episode: Episode,
}

impl ActivationActor {
    /// Whether the instance has something to run now. Cheap: it is asked after every turn.
    fn has_work(&self) -> bool {
        let Some(instance) = &self.instance else {
            return false;
        };
        let record = &instance.record;
        let is_held = record.status.is_terminal()
            || record.status == mainspring_core::orchestration::Status::Suspended
            || record.terminating.is_some();
        if is_held || self.lease.is_some() || self.pinning.is_some() {
            return false;
        }
        if !record.is_started {
            return instance
                .start
                .scheduled_start_at
                .is_none_or(|at| at <= clock::now());
        }
        record.wants_episode || !self.mailbox.is_empty()
    }

    /// Offers the next episode to the dispatcher, if there is one and nothing of this instance is out already (S-0.1).
    pub(super) fn consider(&mut self, avoid: Option<StreamId>) {
        if self.is_queued || self.is_backing_off || !self.has_work() {
            return;
        }
        let Some(instance) = &self.instance else {
            return;
        };
        let class = Class::new(
            &instance.record.name,
            instance.record.version.as_deref(),
            self.oversize.is_some(),
        );
        match self.shared.services.dispatch.offer(&self.key, class, avoid) {
            Some(granted) => self.hand_out(granted),
            None => self.is_queued = true,
        }
    }

    /// A stream has room for the episode that waited in the queue.
    pub(super) fn granted(&mut self, granted: Granted) {
        self.is_queued = false;
        if self.is_backing_off || !self.has_work() {
            return self.shared.services.dispatch.decline(granted);
        }
        self.hand_out(granted);
    }

    fn hand_out(&mut self, granted: Granted) {
        let Some(instance) = &mut self.instance else {
            return self.shared.services.dispatch.decline(granted);
        };
        let messages = self.mailbox.iter().map(|w| &w.message);
        let limits = &self.shared.services.config.limits;
        let Some(episode) = instance.next_episode(messages, clock::now(), limits) else {
            return self.shared.services.dispatch.decline(granted);
        };
        if granted.is_without_tokens && instance.record.pinned.is_none() {
            let before = self.before();
            if let Some(instance) = &mut self.instance {
                instance.pin(&episode);
            }
            self.pinning = Some(Pinning { granted, episode });
            self.settle(before);
            return self.then(After::Pinned {
                key: self.key.clone(),
            });
        }
        self.send_out(granted, episode);
    }

    /// The cut of the episode is durable: it goes out, unless it was fenced meanwhile.
    pub(super) fn pinned(&mut self) {
        if let Some(Pinning { granted, episode }) = self.pinning.take() {
            self.send_out(granted, episode);
        }
    }

    fn send_out(&mut self, granted: Granted, episode: Episode) {
        let services = std::sync::Arc::clone(&self.shared.services);
        let past = match self.history() {
            Ok(past) => past,
            Err(error) => {
                tracing::error!(%error, hub = self.key.hub.0, instance = %self.key.instance, "history cannot be read");
                self.damage = Some(error);
                return services.dispatch.decline(granted);
            }
        };
        let Some(instance) = &self.instance else {
            return services.dispatch.decline(granted);
        };
        let is_streamed = granted.can_stream_history
            && instance.record.history_bytes > EMBEDDED_HISTORY_BYTES_MAX;
        let bytes = wire::orchestrator_work_item_bytes(instance, &past, &episode, is_streamed);
        if bytes > services.config.limits.work_item_bytes_max && !granted.receives_any_size {
            services.dispatch.decline(granted);
            return self.wait_for_large_stream();
        }
        let token = services.dispatch.token();
        let parts = wire::orchestrator_work_item(
            instance,
            &past,
            &episode,
            is_streamed,
            &token.to_string(),
        );
        tracing::trace!(hub = self.key.hub.0, instance = %self.key.instance, events = episode.events.len(), "episode dispatched");
        self.oversize = None;
        self.lease = Some(Leased {
            token,
            episode,
            leased_at: Instant::now(),
            collected: None,
        });
        if !services.dispatch.lease(&self.key, token, granted, parts) {
            self.lease = None;
            self.consider(None);
        }
    }

    /// Offers the episode to streams that receive items of any size; fails the instance if none comes in time (S-13.20).
    fn wait_for_large_stream(&mut self) {
        if self.oversize.is_none() {
            let services = std::sync::Arc::clone(&self.shared.services);
            let key = self.key.clone();
            let wait = services.config.oversize_wait;
            let waiting = self.shared.turns.borrow().sequence();
            self.oversize = Some((waiting, Instant::now()));
            services.runtime.clone().spawn(async move {
                tokio::time::sleep(wait).await;
                services
                    .placement()
                    .send(key, super::Input::OversizeExpired { waiting });
            });
        }
        self.consider(None);
    }

    pub(super) fn oversize_expired(&mut self, waiting: u64) {
        let has_waited = self.oversize.is_some_and(|(number, since)| {
            number == waiting && since.elapsed() >= self.shared.services.config.oversize_wait
        });
        if !has_waited || self.lease.is_some() {
            return;
        }
        self.oversize = None;
        let limit = self.shared.services.config.limits.work_item_bytes_max;
        let message = format!(
            "the history of orchestration instance '{}' no longer fits a work item of {limit} bytes, and no connected worker can stream it",
            self.key.instance
        );
        self.fail(FailureDetails::new("HistoryTooLarge", &message, true));
    }

    fn fail(&mut self, failure: FailureDetails) {
        let before = self.before();
        let now = self.now();
        let Some(instance) = &mut self.instance else {
            return;
        };
        let transition = instance.fail(None, failure, now, &mut *self.shared.ids.borrow_mut());
        self.turn(before, transition);
    }

    /// Takes a worker's response. A stale token is answered like success (S-4.4).
    pub(super) fn completed(
        &mut self,
        token: Token,
        result: EpisodeResult,
        bytes: usize,
        reply: Reply<()>,
    ) {
        let Some(leased) = self.lease.as_mut().filter(|l| l.token == token) else {
            return self.shared.answer(move || drop(reply.send(Ok(()))));
        };
        let result = match leased.collect(result, bytes) {
            Ok(Some(result)) => result,
            Ok(None) => return self.shared.answer(move || drop(reply.send(Ok(())))),
            Err(error) => {
                self.lease_lost(token, None, true);
                return self.shared.answer(move || drop(reply.send(Err(error))));
            }
        };
        if result.requires_history {
            self.lease_lost(token, None, true);
            return self.shared.answer(move || drop(reply.send(Ok(()))));
        }
        self.accept(token, result, reply);
    }

    fn accept(&mut self, token: Token, result: EpisodeResult, reply: Reply<()>) {
        let before = self.before();
        let now = self.now();
        let services = std::sync::Arc::clone(&self.shared.services);
        let (Some(leased), Some(instance)) = (&self.lease, &mut self.instance) else {
            return;
        };
        let decided = instance.complete(
            &leased.episode,
            result,
            &services.config.limits,
            now,
            &mut *self.shared.ids.borrow_mut(),
        );
        match decided {
            Ok(transition) => {
                self.lease = None;
                self.attempts = 0;
                self.turn(before, transition);
                services.dispatch.release(token);
                self.shared.answer(move || drop(reply.send(Ok(()))));
                self.consider(None);
            }
            Err(error) => {
                self.lease_lost(token, None, true);
                self.shared
                    .answer(move || drop(reply.send(Err(error.into()))));
            }
        }
    }

    /// The leased episode, if any, is void: its completion will be ignored (S-4.16).
    pub(super) fn fence(&mut self) {
        if let Some(leased) = self.lease.take() {
            self.shared.services.dispatch.release(leased.token);
        }
        if let Some(pinning) = self.pinning.take() {
            self.shared.services.dispatch.decline(pinning.granted);
        }
    }

    /// The lease ended without an answer; given back, the next delivery waits out a growing back-off (S-13.17).
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
        self.shared.services.dispatch.release(token);
        self.attempts += u32::from(is_given_back);
        let delay = if is_given_back {
            back_off(self.attempts)
        } else {
            std::time::Duration::ZERO
        };
        if delay.is_zero() {
            return self.consider(avoid);
        }
        self.is_backing_off = true;
        let services = std::sync::Arc::clone(&self.shared.services);
        let key = self.key.clone();
        services.runtime.clone().spawn(async move {
            tokio::time::sleep(delay).await;
            services
                .placement()
                .send(key, super::Input::Retry { avoid });
        });
    }

    /// Ends a lease that has lasted longer than is allowed (S-13.19).
    pub(super) fn expire_lease(&mut self) {
        let longest = self.shared.services.config.orchestration_lease_max;
        if let (Some(leased), Some(longest)) = (&self.lease, longest)
            && leased.leased_at.elapsed() > longest
        {
            let token = leased.token;
            self.shared.services.dispatch.expire(token);
            self.lease_lost(token, None, false);
        }
    }
}

impl Leased {
    /// Adds one response, whole or in chunks. `None`: more chunks are to come (S-3.31, S-3.36).
    fn collect(
        &mut self,
        response: EpisodeResult,
        bytes: usize,
    ) -> Result<Option<EpisodeResult>, Error> {
        let Some(Chunk { index, is_last }) = response.chunk else {
            let was_collecting = self.collected.take().is_some();
            let events_processed = response.events_processed.filter(|_| !was_collecting);
            return Ok(Some(EpisodeResult {
                events_processed,
                ..response
            }));
        };
        let next = self.collected.as_ref().map_or(0, |c| c.next_chunk);
        // A repeated chunk is a client's retry.
        if index < next {
            return Ok(None);
        }
        if index > next {
            return Err(Error::invalid(format!(
                "chunk {index} of the response came where chunk {next} was expected"
            )));
        }
        let collected = match self.collected.take() {
            None => Collected {
                result: EpisodeResult {
                    events_processed: None,
                    ..response
                },
                next_chunk: 1,
                bytes,
            },
            Some(mut collected) => {
                collected.result.actions.extend(response.actions);
                collected.next_chunk += 1;
                collected.bytes += bytes;
                collected
            }
        };
        if collected.bytes > CHUNKED_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the response has more than {CHUNKED_BYTES_MAX} bytes in its chunks"
            )));
        }
        if is_last {
            return Ok(Some(collected.result));
        }
        self.collected = Some(collected);
        Ok(None)
    }
}
