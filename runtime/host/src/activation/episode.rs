//! Episodes: when one is due, handing it out, and taking back what the worker decided.

use std::time::Duration;

use bytes::Bytes;
use mainspring_core::action::{Chunk, EpisodeResult};
use mainspring_core::id::ExecutionId;
use mainspring_core::message::FailureDetails;
use mainspring_core::orchestration::{Episode, Orchestration, Transition};
use mainspring_core::wire;

use super::turn::Before;
use super::{ActivationActor, Reply};
use crate::clock::RandomIds;
use crate::dispatch::{Class, Granted, Outgoing, Size, StreamId, Token};
use crate::error::Error;
use crate::resident::Resident;
use crate::turns::After;

/// History beyond this is streamed to workers that can; below it is embedded for them too (S-3.35).
const EMBEDDED_HISTORY_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of a response, whole or collected in chunks (S-3.31).
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// The episode that is out with a worker.
pub(super) struct Leased {
    pub(super) token: Token,
    episode: Episode,
    /// The stream that it went out on.
    stream: StreamId,
    /// The worker fetches the history itself.
    pub(super) is_streamed: bool,
    /// It went without the history, which its worker knows.
    is_short: bool,
    /// Its worker keeps instances, and after this episode knows the history as it stands in the store.
    may_be_kept: bool,
    /// What came so far of a response in chunks.
    collected: Option<Collected>,
}

/// What a worker keeps: the instance as the last accepted answer left it.
pub(super) struct Kept {
    /// The stream that the episode went out on and the answer came over.
    stream: StreamId,
    execution_id: ExecutionId,
    /// Events that were in history then. If the server adds one by itself, the worker does not know it (S-9.1).
    events: u32,
}

/// A response in chunks, so far (S-3.31).
struct Collected {
    result: EpisodeResult,
    next_chunk: u32,
    bytes: usize,
}

enum Collection {
    /// More chunks are to come.
    Partial,
    Complete(EpisodeResult),
    TooLarge,
}

/// An episode whose cut must be durable before it may go out (S-4.17).
pub(super) struct Pinning {
    granted: Granted,
    episode: Episode,
    /// The batch that holds the cut.
    batch: u64,
}

/// Waiting for a stream that receives more than ordinary ones (S-13.20).
pub(super) struct Oversize {
    number: u64,
    size: Size,
}

/// Whether events that were carried over have not entered history yet (S-3.18).
pub(super) fn has_carried(instance: &Orchestration) -> bool {
    (instance.record.carried_taken as usize) < instance.start.carried.len()
}

impl ActivationActor {
    /// Whether the instance has an episode to run now.
    pub(super) fn has_episode(&self) -> bool {
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
                .is_none_or(|at| at <= self.now());
        }
        record.wants_episode || has_carried(instance) || !self.mailbox.is_empty()
    }

    pub(super) fn class(&self) -> Option<Class> {
        let record = &self.instance.as_ref()?.record;
        let size = self.oversize.as_ref().map_or(Size::Ordinary, |o| o.size);
        Some(Class::new(&record.name, record.version.as_deref(), size))
    }

    pub(super) fn hand_out_episode(&mut self, granted: Granted) {
        if self.early.is_some() && self.kept_by() != Some(granted.stream) {
            // For anybody else it becomes an ordinary message first.
            return self.shared.services.dispatch.decline(granted);
        }
        let rest = self.fence_after_restart(&granted);
        if !rest.is_zero() {
            self.shared.services.dispatch.decline(granted);
            return self.rest(rest, None);
        }
        let Some(instance) = &mut self.instance else {
            return self.shared.services.dispatch.decline(granted);
        };
        let messages = self.mailbox.iter().map(|w| &w.message);
        let limits = &self.shared.services.config.limits;
        let now = self.shared.now();
        let Some(episode) = instance.next_episode(messages, now, limits) else {
            return self.shared.services.dispatch.decline(granted);
        };
        let waiting = &self.shared.services.metrics.episode_messages;
        waiting.note(self.mailbox.len() as u64);
        if granted.is_without_tokens && instance.record.pinned.is_none() {
            let before = self.before();
            if let Some(instance) = &mut self.instance {
                instance.pin(&episode);
            }
            let batch = self.shared.turns.borrow().sequence();
            self.pinning = Some(Pinning {
                granted,
                episode,
                batch,
            });
            self.settle(before);
            let key = self.key.clone();
            return self.then(After::Pinned { key, batch });
        }
        self.send_out(granted, episode);
    }

    /// The cut of the episode is durable: it goes out, unless it was fenced meanwhile.
    pub(super) fn pinned(&mut self, batch: u64) {
        if let Some(Pinning {
            granted, episode, ..
        }) = self.pinning.take_if(|p| p.batch == batch)
        {
            self.send_out(granted, episode);
        }
    }

    /// How long the first episode of a generation that follows another has to wait after a restart: a peer without tokens may still answer
    /// the last one's, which was void when the server stopped (S-4.16).
    fn fence_after_restart(&self, granted: &Granted) -> Duration {
        let services = &self.shared.services;
        let is_first = self
            .instance
            .as_ref()
            .is_some_and(|i| i.record.generation > 1 && !i.record.is_started && !i.record.has_run);
        if !is_first || !granted.is_without_tokens {
            return Duration::ZERO;
        }
        services
            .config
            .lease_grace
            .saturating_sub(services.started_at.elapsed())
    }

    /// The stream whose worker has the instance in memory, just as it stands in the store.
    pub(super) fn kept_by(&self) -> Option<StreamId> {
        let (kept, instance) = (self.kept.as_ref()?, self.instance.as_ref()?);
        let record = &instance.record;
        let is_current =
            kept.events == record.history_events && kept.execution_id == record.execution_id;
        is_current.then_some(kept.stream)
    }

    /// Hands an episode to the worker that keeps the instance: its history is neither read nor sent.
    fn send_short(&mut self, granted: Granted, episode: Episode) {
        self.forget_synced();
        let services = std::sync::Arc::clone(&self.shared.services);
        let Some(instance) = &self.instance else {
            return services.dispatch.decline(granted);
        };
        let token = Token::fresh();
        let parts =
            wire::orchestrator_work_item(instance, &[], &episode, false, &token.to_string());
        let item = Outgoing {
            parts,
            kept_events: instance.record.history_events,
        };
        let leased = Leased {
            token,
            episode,
            stream: granted.stream,
            is_streamed: false,
            is_short: true,
            may_be_kept: true,
            collected: None,
        };
        self.lease(granted, leased, item);
    }

    fn lease(&mut self, granted: Granted, leased: Leased, item: Outgoing) {
        if tracing::enabled!(tracing::Level::TRACE) {
            let (events, kept) = (leased.episode.events.len(), item.kept_events);
            self.span()
                .in_scope(|| tracing::trace!(events, kept, "episode dispatched"));
        }
        let token = leased.token;
        self.oversize = None;
        self.lease = Some(leased);
        let dispatch = &self.shared.services.dispatch;
        if !dispatch.lease(&self.key, token, granted, item) {
            self.lease = None;
            self.kept = None;
            self.consider(None);
        }
    }

    fn send_out(&mut self, granted: Granted, episode: Episode) {
        if self.kept_by() == Some(granted.stream) {
            return self.send_short(granted, episode);
        }
        // Whoever has it in memory will be behind.
        self.kept = None;
        let services = std::sync::Arc::clone(&self.shared.services);
        let past = match self.history() {
            Ok(past) => past,
            Err(error) => {
                self.span()
                    .in_scope(|| tracing::error!(%error, "history cannot be read"));
                self.standing.note_damage(error);
                return services.dispatch.decline(granted);
            }
        };
        let Some(instance) = &self.instance else {
            return services.dispatch.decline(granted);
        };
        let limit = services.config.limits.work_item_bytes_max;
        let bytes = |is_streamed| {
            wire::orchestrator_work_item_bytes(instance, &past, &episode, is_streamed)
        };
        let fits_embedded = granted.receives_any_size || bytes(false) <= limit;
        let is_large = instance.record.history_bytes > EMBEDDED_HISTORY_BYTES_MAX;
        let is_streamed =
            granted.can_stream_history && (!fits_embedded || (is_large && !self.must_embed));
        let fits_streamed = is_streamed && bytes(true) <= limit;
        if !(fits_embedded || fits_streamed) {
            let size = if bytes(true) <= limit {
                Size::Streamable
            } else {
                Size::Unlimited
            };
            services.dispatch.decline(granted);
            return self.wait_for_large_stream(size);
        }
        let token = Token::fresh();
        let parts = wire::orchestrator_work_item(
            instance,
            &past,
            &episode,
            is_streamed,
            &token.to_string(),
        );
        // Markers of rewinds are in the store and not in the item (S-9.14). All between its first and last part is history.
        let shown: usize = parts[1..parts.len() - 1].iter().map(Bytes::len).sum();
        let is_shown_whole = match is_streamed {
            true => instance.record.generation == 1,
            false => shown as u64 == instance.record.history_bytes,
        };
        let leased = Leased {
            token,
            episode,
            stream: granted.stream,
            is_streamed,
            is_short: false,
            may_be_kept: granted.keeps_instances && is_shown_whole,
            collected: None,
        };
        self.lease(granted, leased, Outgoing::whole(parts));
    }

    /// Offers the episode to streams that receive larger items; fails the instance if none comes in time (S-13.20).
    fn wait_for_large_stream(&mut self, size: Size) {
        match &mut self.oversize {
            Some(oversize) => oversize.size = size,
            None => self.begin_oversize_wait(size),
        }
        self.consider(None);
    }

    fn begin_oversize_wait(&mut self, size: Size) {
        let number = self.standing.next_wait();
        self.oversize = Some(Oversize { number, size });
        let input = super::Input::OversizeExpired { waiting: number };
        let wait = self.shared.services.config.oversize_wait;
        self.shared.later(&self.key, wait, input);
    }

    pub(super) fn oversize_expired(&mut self, waiting: u64) {
        let Some(oversize) = self.oversize.take_if(|o| o.number == waiting) else {
            return;
        };
        // Suspended or frozen meanwhile: it waits anew when it is its turn.
        let Some(class) = self.standing.queued.clone().filter(|_| self.has_work()) else {
            return;
        };
        let services = &self.shared.services;
        if services.dispatch.is_instance_receivable(&self.key, &class) {
            return self.begin_oversize_wait(oversize.size);
        }
        let limit = services.config.limits.work_item_bytes_max;
        let message = format!(
            "the history of orchestration instance '{}' no longer fits a work item of {limit} bytes, and no connected worker can receive it",
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
        let transition = instance.fail(None, failure, now, &mut RandomIds);
        self.turn(before, transition);
    }

    /// Takes a worker's response. A stale token is answered like success (S-4.4).
    pub(super) fn completed(
        &mut self,
        token: Token,
        is_named: bool,
        over: Option<StreamId>,
        result: EpisodeResult,
        bytes: usize,
        reply: Reply<()>,
    ) {
        // Found by the instance alone, the lease that is out need not be the one that was meant: a worker that lost an
        // earlier episode may answer it now, long after another did (S-4.4, S-4.17).
        if !is_named
            && let Some(instance) = &self.instance
            && instance.has_actions_of(&result)
        {
            self.shared.services.dispatch.answered_late(&self.key);
            return self.shared.answer(move || drop(reply.send(Ok(()))));
        }
        let Some(leased) = self.lease.as_mut().filter(|l| l.token == token) else {
            return self.shared.answer(move || drop(reply.send(Ok(()))));
        };
        let result = match leased.collect(result, bytes) {
            Ok(Collection::Complete(result)) => result,
            Ok(Collection::Partial) => {
                return self.shared.answer(move || drop(reply.send(Ok(()))));
            }
            Ok(Collection::TooLarge) => return self.fail_response(token, reply),
            Err(error) => return self.refuse(token, error, reply),
        };
        if result.requires_history {
            self.must_embed = true;
            let dispatch = &self.shared.services.dispatch;
            match leased.is_short {
                // It no longer keeps the instance, which is nobody's fault: the rest comes at once.
                true => dispatch.lose(token),
                false => dispatch.return_lease(token),
            }
            return self.shared.answer(move || drop(reply.send(Ok(()))));
        }
        // A worker that had all its actions taken, and all its events, knows what is in history now.
        let is_whole = is_named && result.chunk.is_none() && result.events_processed.is_none();
        let keeper = over.filter(|over| leased.may_be_kept && is_whole && *over == leased.stream);
        self.accept(token, keeper, result, reply);
    }

    /// After an accepted answer: whether its worker has the instance as it is now.
    fn note_keeper(&mut self, keeper: Option<StreamId>, generation: u32) {
        self.kept = self
            .instance
            .as_ref()
            .map(|instance| &instance.record)
            .filter(|record| {
                // A suspension that waited for the answer has put its marker behind it (S-9.5).
                record.generation == generation
                    && !record.status.is_terminal()
                    && record.suspension.is_none()
            })
            .zip(keeper)
            .map(|(record, stream)| Kept {
                stream,
                execution_id: record.execution_id.clone(),
                events: record.history_events,
            });
    }

    /// An error ends the lease (S-13.28); the dispatcher tells when the episode may go out again.
    fn refuse(&mut self, token: Token, error: Error, reply: Reply<()>) {
        self.shared.services.dispatch.refuse(token, false);
        self.shared.answer(move || drop(reply.send(Err(error))));
    }

    fn accept(
        &mut self,
        token: Token,
        keeper: Option<StreamId>,
        result: EpisodeResult,
        reply: Reply<()>,
    ) {
        let before = self.before();
        let now = self.now();
        let services = std::sync::Arc::clone(&self.shared.services);
        let (Some(leased), Some(instance)) = (&self.lease, &mut self.instance) else {
            return;
        };
        let generation = instance.record.generation;
        let decided = instance.complete(
            &leased.episode,
            result,
            &services.config.limits,
            now,
            &mut RandomIds,
        );
        match decided {
            Ok(transition) => {
                self.note_keeper(keeper, generation);
                self.accepted(token, before, transition, reply);
            }
            Err(error) => self.refuse(token, error.into(), reply),
        }
    }

    fn accepted(&mut self, token: Token, before: Before, transition: Transition, reply: Reply<()>) {
        self.lease = None;
        self.standing.answered();
        self.must_embed = false;
        self.turn(before, transition);
        self.shared.services.dispatch.answered(token);
        self.shared.answer(move || drop(reply.send(Ok(()))));
        self.consider(None);
    }

    /// A response larger than what is collected fails the instance, or it would come again and again (S-3.31, S-14.4).
    fn fail_response(&mut self, token: Token, reply: Reply<()>) {
        let before = self.before();
        let now = self.now();
        let (Some(leased), Some(instance)) = (&self.lease, &mut self.instance) else {
            return;
        };
        let message = format!("the response has more than {RESPONSE_BYTES_MAX} bytes");
        let transition = instance.fail(
            Some(&leased.episode),
            FailureDetails::new("PayloadTooLarge", &message, true),
            now,
            &mut RandomIds,
        );
        self.accepted(token, before, transition, reply);
    }

    /// The leased episode, if any, is void: its completion will be ignored (S-4.16).
    pub(super) fn fence(&mut self) {
        self.kept = None;
        if let Some(leased) = self.lease.take() {
            self.shared.services.dispatch.fence(&self.key, leased.token);
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
        // Whatever its worker made of the episode, it was not committed.
        self.kept = None;
        self.avoided = avoid.filter(|_| self.early.is_some());
        self.offer_again(avoid, is_given_back);
    }
}

impl Leased {
    /// Adds one response, whole or in chunks (S-3.31, S-3.36).
    fn collect(&mut self, response: EpisodeResult, bytes: usize) -> Result<Collection, Error> {
        let Some(Chunk { index, is_last }) = response.chunk else {
            if bytes > RESPONSE_BYTES_MAX {
                return Ok(Collection::TooLarge);
            }
            let was_collecting = self.collected.take().is_some();
            let events_processed = response.events_processed.filter(|_| !was_collecting);
            return Ok(Collection::Complete(EpisodeResult {
                events_processed,
                ..response
            }));
        };
        let next = self.collected.as_ref().map_or(0, |c| c.next_chunk);
        // A repeated chunk is a client's retry.
        if index < next {
            return Ok(Collection::Partial);
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
        if collected.bytes > RESPONSE_BYTES_MAX {
            return Ok(Collection::TooLarge);
        }
        if is_last {
            return Ok(Collection::Complete(collected.result));
        }
        self.collected = Some(collected);
        Ok(Collection::Partial)
    }
}
