//! From a decision to a batch: what one turn writes, and what is performed once it is durable.

use mainspring_core::effect::{ActivityTask, Effect};
use mainspring_core::id::{ExecutionId, InstanceKey};
use mainspring_core::message::Message;
use mainspring_core::orchestration::{Orchestration, Status, Transition};
use mainspring_core::time::Timestamp;
use mainspring_core::wire;
use mainspring_store::query::Due;

use super::ActivationActor;
use super::episode::has_carried;
use crate::error::Error;
use crate::partition::Waiter;
use crate::resident::Resident;
use crate::turns::After;

/// What is known of the instance before a turn, and needed after it.
pub(super) struct Before {
    /// As the indexes have it.
    indexed: Option<(Timestamp, Status, Option<Timestamp>)>,
    version: Option<String>,
    /// A start that lies ahead, with its generation: it stands among the timers.
    ahead: Option<(Timestamp, u32)>,
}

impl Before {
    /// There was an instance, and it had not ended.
    fn is_active(&self) -> bool {
        self.indexed
            .is_some_and(|(_, status, _)| !status.is_terminal())
    }
}

impl ActivationActor {
    pub(super) fn before(&self) -> Before {
        let indexed = self
            .instance
            .as_ref()
            .map(|i| (i.record.created_at, i.record.status, i.record.completed_at));
        let version = self
            .instance
            .as_ref()
            .and_then(|i| i.record.version.clone());
        Before {
            indexed,
            version,
            ahead: self.start_ahead(),
        }
    }

    fn start_ahead(&self) -> Option<(Timestamp, u32)> {
        let instance = self.instance.as_ref()?;
        let is_waiting = !instance.record.is_started && !instance.record.status.is_terminal();
        let at = instance.start.scheduled_start_at.filter(|_| is_waiting)?;
        Some((at, instance.record.generation))
    }

    /// A start that will not come any more leaves the timers with its instance (S-11.24).
    fn disarm_start(&self, before: &Before) {
        if let Some((at, generation)) = before.ahead
            && self.start_ahead() != before.ahead
        {
            self.write(|batch, key| batch.disarm_start(key, at, generation));
        }
    }

    /// Writes a turn into the open batch: mailbox, history, effects, indexes, state. The machine has changed `self.instance` already.
    pub(super) fn turn(&mut self, before: Before, transition: Transition) {
        let Transition {
            history,
            is_new_generation,
            old_generation,
            messages_taken,
            effects,
            own_messages,
        } = transition;
        // Activities that outlive their generation are read from its history before that goes.
        let outliving = self.outliving(&effects, old_generation, &before);
        if let Some((generation, chunks)) = old_generation {
            self.write(|batch, key| batch.remove_history(key, generation, chunks));
            self.shared
                .services
                .cache
                .remove_history(&self.key, generation, chunks);
            self.unsynced.clear();
        }
        self.take_messages(messages_taken);
        if is_new_generation && let Some(instance) = &self.instance {
            self.note_start(instance, &before);
            let start = std::sync::Arc::clone(&instance.start);
            self.write(|batch, key| batch.put_start(key, &start));
            // What the old one owes does not hold up the new one.
            self.standing.begin_anew();
            self.oversize = None;
            self.answer_terminations();
        }
        self.append(&history);
        for task in outliving {
            self.write(|batch, key| batch.put_orphan(key, &task));
        }
        for effect in effects {
            self.effect(effect);
        }
        for message in own_messages {
            self.receive_own(message);
        }
        self.drop_stale_messages();
        self.settle(before);
    }

    /// Writes the record and all that follows from it; the last step of every turn.
    pub(super) fn settle(&mut self, before: Before) {
        self.draw_completed_at(&before);
        self.note_end(&before);
        self.index(&before);
        self.disarm_start(&before);
        if let Some(instance) = &self.instance {
            let record = instance.record.clone();
            self.write(|batch, key| batch.put_record(key, &record));
        }
        self.mark_busy();
        self.wake_waiters();
        self.last_turn = Some(self.shared.turns.borrow().sequence());
        self.log(&before);
        self.withdraw_unless_due();
    }

    fn write(&self, change: impl FnOnce(&mut mainspring_store::Batch, &InstanceKey)) {
        self.shared.decide(|turns| change(turns.batch(), &self.key));
    }

    pub(super) fn then(&self, after: After) {
        self.shared.decide(|turns| turns.then(after));
    }

    fn outliving(
        &self,
        effects: &[Effect],
        old_generation: Option<(u32, u32)>,
        before: &Before,
    ) -> Vec<ActivityTask> {
        let released = effects.iter().find_map(|e| match e {
            Effect::ReleaseActivities {
                execution_id,
                schedulings,
            } if !schedulings.is_empty() => Some((execution_id, schedulings)),
            _ => None,
        });
        let Some((execution_id, schedulings)) = released else {
            return Vec::new();
        };
        match self.released_tasks(execution_id, schedulings, old_generation, before) {
            Ok(tasks) => tasks,
            Err(error) => {
                self.span().in_scope(
                    || tracing::error!(%error, "activities of an ended generation cannot be read"),
                );
                Vec::new()
            }
        }
    }

    fn released_tasks(
        &self,
        execution_id: &ExecutionId,
        schedulings: &[u32],
        old: Option<(u32, u32)>,
        before: &Before,
    ) -> Result<Vec<ActivityTask>, Error> {
        let Some(instance) = &self.instance else {
            return Ok(Vec::new());
        };
        let (generation, chunks) =
            old.unwrap_or((instance.record.generation, instance.record.history_chunks));
        let history = self.chunks(generation, chunks)?;
        Ok(Orchestration::tasks_in(
            &history,
            execution_id,
            before.version.clone(),
            schedulings,
        )?)
    }

    fn take_messages(&mut self, count: usize) {
        for waiting in self.mailbox.drain(..count).collect::<Vec<_>>() {
            let Some(position) = waiting.position else {
                self.answer_early();
                continue;
            };
            self.write(|batch, key| batch.remove_message(key, position));
            if let Some(instance) = &mut self.instance {
                instance.record.mailbox_head = position;
            }
        }
    }

    /// After a turn that ended a generation, messages that belonged to it go with it (S-8.5, S-8.6, S-3.20).
    fn drop_stale_messages(&mut self) {
        let instance = self.instance.as_ref();
        let (kept, stale): (Vec<_>, Vec<_>) = std::mem::take(&mut self.mailbox)
            .into_iter()
            .partition(|w| instance.is_some_and(|i| i.keeps(&w.message)));
        self.mailbox = kept.into();
        for waiting in stale {
            match waiting.position {
                Some(position) => self.write(|batch, key| batch.remove_message(key, position)),
                None => self.answer_early(),
            }
        }
    }

    fn append(&mut self, history: &[mainspring_core::history::EncodedEvent]) {
        let Some(instance) = self.instance.as_mut().filter(|_| !history.is_empty()) else {
            return;
        };
        let chunk = wire::frame_past(history);
        let (generation, number) = (instance.record.generation, instance.record.history_chunks);
        instance.record.history_chunks += 1;
        instance.record.history_bytes += chunk.len() as u64;
        let sequence = self.shared.turns.borrow().sequence();
        self.unsynced.push_back((sequence, chunk.clone()));
        self.shared
            .services
            .cache
            .put_history(&self.key, generation, number, chunk.clone());
        self.write(|batch, key| batch.append_history(key, generation, number, chunk));
    }

    /// The chunks of a generation, those on their way to disk included.
    pub(super) fn chunks(&self, generation: u32, count: u32) -> Result<Vec<bytes::Bytes>, Error> {
        let turns = self.shared.turns.borrow();
        let mut unsynced: Vec<_> = self
            .unsynced
            .iter()
            .filter(|(n, _)| !turns.is_durable(*n))
            .map(|(_, chunk)| chunk.clone())
            .collect();
        let stored = count.saturating_sub(unsynced.len() as u32);
        let services = &self.shared.services;
        let mut chunks = services.cache.history(
            || services.store.read(),
            self.shared.partition,
            &self.key,
            generation,
            stored,
        )?;
        chunks.append(&mut unsynced);
        Ok(chunks)
    }

    /// History of the current generation.
    pub(super) fn history(&mut self) -> Result<Vec<bytes::Bytes>, Error> {
        self.forget_synced();
        match &self.instance {
            Some(instance) => {
                self.chunks(instance.record.generation, instance.record.history_chunks)
            }
            None => Ok(Vec::new()),
        }
    }

    /// What is durable can be had from the store.
    pub(super) fn forget_synced(&mut self) {
        let turns = self.shared.turns.borrow();
        while self
            .unsynced
            .front()
            .is_some_and(|(n, _)| turns.is_durable(*n))
        {
            self.unsynced.pop_front();
        }
    }

    fn effect(&mut self, effect: Effect) {
        let key = self.key.clone();
        match effect {
            Effect::RunActivity { task, outlives } => {
                if outlives {
                    self.write(|batch, key| batch.put_orphan(key, &task));
                }
                self.then(After::Schedule { key, task });
            }
            Effect::ArmTimer(timer) => {
                self.write(|batch, key| batch.arm_timer(key, &timer));
                self.then(After::Arm {
                    key,
                    due: timer.fire_at,
                    what: Due::Timer(timer),
                });
            }
            Effect::DisarmTimer(timer) => self.write(|batch, key| batch.disarm_timer(key, &timer)),
            Effect::Send { target, message } => self.shared.send(key.hub, target, message),
            Effect::DropActivities { execution_id } => {
                self.then(After::DropActivities { key, execution_id })
            }
            Effect::ReleaseActivities { .. } => {}
            Effect::StartAt(at) => {
                let generation = self.instance.as_ref().map_or(0, |i| i.record.generation);
                self.write(|batch, key| batch.arm_start(key, at, generation));
                self.then(After::Arm {
                    key,
                    due: at,
                    what: Due::Start { generation },
                });
            }
            Effect::FenceEpisode => self.fence(),
        }
    }

    /// Puts a waiting message into the own mailbox; it takes its place there once it is durable. False: it does not fit, and is dropped.
    pub(super) fn receive_own(&mut self, message: Message) -> bool {
        if !self.instance.as_mut().is_some_and(|i| i.arrive(&message)) {
            return false;
        }
        self.arriving += 1;
        self.shared.receive_own(&self.key, message);
        true
    }

    fn draw_completed_at(&mut self, before: &Before) {
        let was_terminal = before
            .indexed
            .is_some_and(|(.., completed)| completed.is_some());
        if let Some(instance) = &mut self.instance
            && instance.record.status.is_terminal()
            && let Some(at) = instance.record.completed_at
            && !(was_terminal
                && before
                    .indexed
                    .is_some_and(|(.., completed)| completed == Some(at)))
        {
            instance.record.completed_at =
                Some(self.shared.services.completed.draw(self.key.hub, at));
        }
    }

    fn note_start(&self, instance: &Orchestration, before: &Before) {
        let metrics = &self.shared.services.metrics;
        let was_active = before.is_active();
        if was_active && instance.record.has_run {
            return metrics.continued.add(1);
        }
        if was_active {
            // Another start took its place.
            metrics.end(Status::Terminated);
        }
        metrics.started.add(1);
    }

    fn note_end(&self, before: &Before) {
        let status = self.instance.as_ref().map(|i| i.record.status);
        if let Some(status) = status.filter(|status| status.is_terminal() && before.is_active()) {
            self.shared.services.metrics.end(status);
        }
    }

    /// Brings the indexes from what they said before the turn to what is true after it.
    fn index(&mut self, before: &Before) {
        let after = self.before().indexed;
        let created = |indexed: Option<(Timestamp, Status, Option<Timestamp>)>| {
            indexed.map(|(at, status, _)| (at, status))
        };
        let completed = |indexed: Option<(Timestamp, Status, Option<Timestamp>)>| {
            indexed.and_then(|(_, status, at)| Some((at?, status)))
        };
        if created(before.indexed) != created(after) {
            if let Some((at, _)) = created(before.indexed)
                && created(after).is_none_or(|(now, _)| now != at)
            {
                self.write(|batch, key| batch.unindex_created(key, at));
            }
            if let Some((at, status)) = created(after) {
                self.write(|batch, key| batch.index_created(key, at, status));
            }
        }
        if completed(before.indexed) != completed(after) {
            if let Some((at, _)) = completed(before.indexed) {
                self.write(|batch, key| batch.unindex_completed(key, at));
            }
            if let Some((at, status)) = completed(after) {
                self.write(|batch, key| batch.index_completed(key, at, status));
            }
        }
    }

    /// Keeps the store's list of instances to look at after a restart: those with an episode to run or activities to hand out.
    pub(super) fn mark_busy(&mut self) {
        let is_busy = self.instance.as_ref().is_some_and(|i| {
            !i.record.status.is_terminal()
                && (self.arriving > 0
                    || !self.mailbox.is_empty()
                    || i.record.wants_episode
                    || has_carried(i)
                    || (!i.record.is_started
                        && i.start.scheduled_start_at.is_none_or(|at| at <= self.now()))
                    || !i.open_activities().is_empty())
        });
        if is_busy != self.is_marked_busy {
            self.is_marked_busy = is_busy;
            self.write(|batch, key| {
                if is_busy {
                    batch.mark_busy(key)
                } else {
                    batch.clear_busy(key)
                }
            });
        }
    }

    fn wake_waiters(&mut self) {
        let Some(status) = self.instance.as_ref().map(|i| i.record.status) else {
            return;
        };
        if status == Status::Pending {
            return;
        }
        let waiting = self
            .shared
            .waiters
            .borrow_mut()
            .remove(&self.key)
            .unwrap_or_default();
        let (met, unmet): (Vec<Waiter>, Vec<_>) =
            waiting.into_iter().partition(|w| w.until.is_met_by(status));
        if !unmet.is_empty() {
            self.shared
                .waiters
                .borrow_mut()
                .insert(self.key.clone(), unmet);
        }
        for waiter in met {
            self.answer_waiter(waiter);
        }
        if status.is_terminal() {
            self.answer_terminations();
        }
    }

    pub(super) fn answer_waiter(&self, waiter: Waiter) {
        if let Some(instance) = &self.instance {
            let view = instance.view(waiter.include_payloads);
            self.shared.answer(move || drop(waiter.reply.send(view)));
        }
    }

    fn answer_terminations(&mut self) {
        for reply in std::mem::take(&mut self.terminations) {
            self.shared.answer(move || drop(reply.send(Ok(()))));
        }
    }

    fn log(&self, before: &Before) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let _span = self.span().entered();
        let Some(instance) = &self.instance else {
            tracing::debug!("instance removed");
            return;
        };
        let record = &instance.record;
        if before
            .indexed
            .is_none_or(|(_, status, _)| status != record.status)
        {
            tracing::debug!(name = record.name, status = ?record.status, "status changed");
        }
    }
}
