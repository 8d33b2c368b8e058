//! What clients ask of one instance, and what other instances tell it.

use mainspring_core::effect::Timer;
use mainspring_core::id::{InstanceId, Position};
use mainspring_core::message::{Fence, Message, NewInstance};
use mainspring_core::orchestration::{self, Created, Origin, ReusePolicy, View};
use mainspring_core::time::Timestamp;
use mainspring_core::wire;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{ActivationActor, Family, Outcome, Reply, Waiting};
use crate::api::{HistoryGuard, HistoryStream};
use crate::clock::RandomIds;
use crate::error::{Error, ErrorKind};
use crate::partition::{Until, Waiter};
use crate::resident::Resident;

/// Chunks of a history that is read over the wire stay below this (S-3.27).
const HISTORY_MESSAGE_BYTES_MAX: usize = 1 << 20;

impl ActivationActor {
    /// Answers once all that was decided before is durable.
    fn answer<T: 'static>(&self, reply: Reply<T>, answer: Result<T, Error>) {
        self.shared.answer(move || drop(reply.send(answer)));
    }

    fn missing(&self) -> Error {
        Error::missing_instance(self.key.instance.as_str())
    }

    pub(super) fn create(
        &mut self,
        request: NewInstance,
        policy: ReusePolicy,
        reply: Reply<InstanceId>,
    ) {
        self.create_from(request, Origin::Client(policy), |result, id| {
            drop(reply.send(result.map(|()| id)))
        });
    }

    pub(super) fn restart(&mut self, reply: Reply<()>) {
        let Some(instance) = &self.instance else {
            return self.answer(reply, Err(self.missing()));
        };
        if !instance.record.status.is_terminal() {
            let status = instance.record.status;
            let id = &self.key.instance;
            let message = format!(
                "orchestration instance '{id}' cannot be restarted under its own id while it is {status:?}"
            );
            return self.answer(reply, Err(Error::failed_precondition(message)));
        }
        let request = instance.restart_request(self.key.instance.clone());
        self.create_from(request, Origin::Restart, |result, _| {
            drop(reply.send(result))
        });
    }

    fn create_from(
        &mut self,
        request: NewInstance,
        origin: Origin,
        reply: impl FnOnce(Result<(), Error>, InstanceId) + 'static,
    ) {
        let before = self.before();
        let now = self.now();
        let is_replacement = self.instance.is_some();
        let created =
            orchestration::create(&mut self.instance, request, origin, now, &mut RandomIds);
        let id = self.key.instance.clone();
        match created {
            Ok(Created::Started(transition)) => {
                if is_replacement {
                    self.discard_messages();
                }
                self.turn(before, transition);
                self.shared.answer(move || reply(Ok(()), id));
                self.consider(None);
            }
            // Only a parent is refused without an error, and it asks by a message.
            Ok(Created::Ignored | Created::Refused(_)) => {
                self.shared.answer(move || reply(Ok(()), id));
            }
            Err(error) => self.shared.answer(move || reply(Err(error.into()), id)),
        }
    }

    /// What waits, or is on its way into the mailbox, belonged to the instance that goes (S-8.5, S-10.5).
    fn discard_messages(&mut self) {
        self.outdated = self.arriving;
        self.answer_early();
        let stale: Vec<_> = self.mailbox.drain(..).filter_map(|w| w.position).collect();
        self.shared.decide(|turns| {
            for position in stale {
                turns.batch().remove_message(&self.key, position);
            }
        });
    }

    pub(super) fn view(&mut self, include_payloads: bool, reply: Reply<Option<View>>) {
        let view = self.instance.as_ref().map(|i| i.view(include_payloads));
        self.answer(reply, Ok(view));
    }

    pub(super) fn wait(
        &mut self,
        until: Until,
        include_payloads: bool,
        reply: oneshot::Sender<View>,
    ) {
        let waiter = Waiter {
            until,
            include_payloads,
            reply,
        };
        if self
            .instance
            .as_ref()
            .is_some_and(|i| until.is_met_by(i.record.status))
        {
            self.answer_waiter(waiter);
        } else {
            self.shared
                .waiters
                .borrow_mut()
                .entry(self.key.clone())
                .or_default()
                .push(waiter);
        }
    }

    pub(super) fn raise(&mut self, name: String, input: Option<String>, reply: Reply<()>) {
        let waiting = self.mailbox.len() + self.arriving as usize;
        if waiting >= self.shared.services.config.mailbox_messages_max {
            let id = &self.key.instance;
            let message = format!(
                "orchestration instance '{id}' has {waiting} messages waiting; it takes no more events until it has worked on them"
            );
            return self.answer(reply, Err(Error::new(ErrorKind::Exhausted, message)));
        }
        // Missing and finished instances: dropped, and fine (S-8.4).
        let before = self.before();
        let at = self.now();
        if self.receive_own(Message::EventRaised { name, input, at }) {
            self.settle(before);
        }
        self.answer(reply, Ok(()));
    }

    pub(super) fn activity_done(
        &mut self,
        fence: Fence,
        task_id: i32,
        outcome: Outcome,
        credit: Option<OwnedSemaphorePermit>,
        reply: Reply<()>,
    ) {
        let before = self.before();
        let at = self.now();
        let orphan = fence.clone();
        let ended = &self.shared.services.metrics.activities;
        let message = match outcome {
            Outcome::Completed(result) => {
                ended.completed.add(1);
                Message::ActivityCompleted {
                    fence,
                    task_id,
                    result,
                    at,
                }
            }
            Outcome::Failed(failure) => {
                ended.failed.add(1);
                Message::ActivityFailed {
                    fence,
                    task_id,
                    failure,
                    at,
                }
            }
        };
        if self.can_take_early() && self.instance.as_mut().is_some_and(|i| i.arrive(&message)) {
            // The worker's next answer needs a credit, too: `credit` ends here.
            return self.take_early(message, reply);
        }
        if self.receive_own(message) {
            self.settle(before);
        } else {
            // Of an ended generation: it was kept apart from history, if it was kept.
            self.shared
                .decide(|turns| turns.batch().remove_orphan(&self.key, &orphan));
        }
        self.shared.answer(move || {
            drop(reply.send(Ok(())));
            drop(credit);
        });
    }

    pub(super) fn suspend(&mut self, reason: Option<String>, reply: Reply<()>) {
        self.control(reply, |instance, is_leased, now| {
            instance.suspend(reason, is_leased, now)
        });
    }

    pub(super) fn resume(&mut self, reason: Option<String>, reply: Reply<()>) {
        self.control(reply, |instance, is_leased, now| {
            instance.resume(reason, is_leased, now)
        });
    }

    fn control(
        &mut self,
        reply: Reply<()>,
        decide: impl FnOnce(
            &mut orchestration::Orchestration,
            bool,
            mainspring_core::time::Timestamp,
        ) -> Option<orchestration::Transition>,
    ) {
        let before = self.before();
        let now = self.now();
        let is_leased = self.lease.is_some() || self.pinning.is_some();
        let Some(instance) = &mut self.instance else {
            return self.answer(reply, Err(self.missing()));
        };
        if let Some(transition) = decide(instance, is_leased, now) {
            self.turn(before, transition);
        }
        self.answer(reply, Ok(()));
        self.consider(None);
    }

    pub(super) fn terminate(
        &mut self,
        output: Option<String>,
        is_recursive: bool,
        reply: Reply<()>,
    ) {
        self.begin_termination(output, is_recursive);
        // A recursive one answers when every active descendant is terminated (S-9.8); a missing or finished instance is fine (S-9.9).
        if self
            .instance
            .as_ref()
            .is_some_and(|i| !i.record.status.is_terminal())
        {
            self.terminations.push(reply);
        } else {
            self.answer(reply, Ok(()));
        }
    }

    fn begin_termination(&mut self, output: Option<String>, is_recursive: bool) {
        let before = self.before();
        let now = self.now();
        let Some(instance) = &mut self.instance else {
            return;
        };
        let transition = instance.terminate(output, is_recursive, now, &mut RandomIds);
        if let Some(transition) = transition {
            self.turn(before, transition);
        }
    }

    pub(super) fn skip_graceful(&mut self, reason: Option<String>, reply: Reply<bool>) {
        let is_touched = self
            .instance
            .as_ref()
            .is_some_and(|i| !i.record.status.is_terminal() && !i.has_locks());
        if is_touched {
            self.begin_termination(reason, false);
        }
        self.answer(reply, Ok(is_touched));
    }

    pub(super) fn rewind(&mut self, reason: Option<String>, reply: Reply<()>) {
        let before = self.before();
        let now = self.now();
        let history = match self.history() {
            Ok(history) => history,
            Err(error) => return self.answer(reply, Err(error)),
        };
        let Some(instance) = &mut self.instance else {
            return self.answer(reply, Err(self.missing()));
        };
        let decided = instance.rewind(reason, &history, now, &mut RandomIds);
        match decided {
            Ok(transition) => {
                self.turn(before, transition);
                self.answer(reply, Ok(()));
                self.consider(None);
            }
            Err(error) => self.answer(reply, Err(error.into())),
        }
    }

    pub(super) fn restart_request(&mut self, instance: InstanceId, reply: Reply<NewInstance>) {
        let request = self
            .instance
            .as_ref()
            .map(|i| i.restart_request(instance))
            .ok_or_else(|| self.missing());
        self.answer(reply, request);
    }

    pub(super) fn purge(&mut self, reply: Reply<Option<()>>) {
        let before = self.before();
        let Some(instance) = &self.instance else {
            return self.answer(reply, Ok(None));
        };
        let record = &instance.record;
        // A finished instance that passes a recursive termination on is still needed (S-9.8).
        if !record.status.is_terminal() || record.terminating.is_some() {
            let message = format!(
                "orchestration instance '{}' is {:?}; only finished instances can be purged",
                self.key.instance, record.status
            );
            return self.answer(reply, Err(Error::failed_precondition(message)));
        }
        let (generation, chunks) = (record.generation, record.history_chunks);
        self.instance = None;
        self.unsynced.clear();
        self.shared
            .services
            .cache
            .remove_history(&self.key, generation, chunks);
        self.discard_messages();
        let orphans = self.shared.services.dispatch.purge_activities(&self.key);
        self.shared.decide(|turns| {
            let batch = turns.batch();
            batch.remove_history(&self.key, generation, chunks);
            batch.remove_instance(&self.key);
            for fence in orphans {
                batch.remove_orphan(&self.key, &fence);
            }
        });
        self.settle(before);
        self.answer(reply, Ok(Some(())));
    }

    pub(super) fn family(&mut self, reply: Reply<Option<Family>>) {
        let family = self.instance.as_ref().map(|i| Family {
            is_terminal: i.record.status.is_terminal(),
            execution_id: i.record.execution_id.clone(),
            parent: i.record.parent.clone(),
            children: i.children(),
        });
        self.answer(reply, Ok(family));
    }

    pub(super) fn send_history(
        &mut self,
        execution_id: Option<String>,
        for_worker: bool,
        reply: Reply<HistoryStream>,
    ) {
        let stream = self.read_history(execution_id, for_worker);
        self.answer(reply, stream);
    }

    fn read_history(
        &mut self,
        execution_id: Option<String>,
        for_worker: bool,
    ) -> Result<HistoryStream, Error> {
        let Some(instance) = &self.instance else {
            return Err(self.missing());
        };
        let current = instance.record.execution_id.as_str();
        if let Some(wanted) = execution_id.filter(|wanted| !wanted.is_empty() && wanted != current)
        {
            let message = format!(
                "orchestration instance '{}' has no generation '{wanted}' any more",
                self.key.instance
            );
            return Err(Error::not_found(message));
        }
        let chunks = self.history()?;
        let messages = if for_worker {
            wire::worker_history(&chunks, HISTORY_MESSAGE_BYTES_MAX)?
        } else {
            wire::history_chunks(&chunks, HISTORY_MESSAGE_BYTES_MAX)?
        };
        let guard = self
            .lease
            .as_ref()
            .filter(|lease| for_worker && lease.is_streamed)
            .map(|lease| self.history_guard(lease.token));
        Ok(HistoryStream { messages, guard })
    }

    /// While a worker reads history for the episode it holds, a broken stream fences the lease in the same step (S-3.34).
    fn history_guard(&self, token: crate::dispatch::Token) -> HistoryGuard {
        let services = std::sync::Arc::clone(&self.shared.services);
        HistoryGuard {
            on_broken: Some(Box::new(move || services.dispatch.lose(token))),
        }
    }

    // ── what arrives from elsewhere ──

    /// A message that another instance's commit put into the mailbox.
    pub(super) fn delivered(&mut self, position: Position, message: Message) {
        // Its sender saw to that.
        self.is_marked_busy = true;
        if !message.waits() {
            return self.receive(position, message);
        }
        let before = self.before();
        if position <= self.loaded {
            // It was found in the store already, and waits or was dropped.
            self.mark_busy();
        } else if self.instance.as_mut().is_some_and(|i| i.arrive(&message)) {
            self.mailbox.push_back(Waiting::durable(position, message));
            self.settle(before);
        } else {
            self.shared
                .decide(|turns| turns.batch().remove_message(&self.key, position));
            self.mark_busy();
        }
        self.consider(None);
    }

    fn receive(&mut self, position: Position, message: Message) {
        let before = self.before();
        let now = self.now();
        let history = self.history();
        let mut history = || {
            history
                .clone()
                .map_err(|e| mainspring_core::Error::Corrupt(e.to_string()))
        };
        let id = self.key.instance.clone();
        let decided = orchestration::receive(
            &mut self.instance,
            &id,
            message,
            &mut history,
            now,
            &mut RandomIds,
        );
        self.shared
            .decide(|turns| turns.batch().remove_message(&self.key, position));
        match decided {
            Ok(transition) => self.turn(before, transition),
            Err(error) => {
                self.span().in_scope(
                    || tracing::warn!(%error, "a message could not be applied and was dropped"),
                );
                self.mark_busy();
            }
        }
        self.consider(None);
    }

    /// An own message is durable: it takes its place in the mailbox.
    pub(super) fn arrived(&mut self, position: Position, message: Message) {
        self.arriving = self.arriving.saturating_sub(1);
        let is_outdated = self.outdated > 0;
        self.outdated = self.outdated.saturating_sub(1);
        if !is_outdated && self.instance.as_ref().is_some_and(|i| i.keeps(&message)) {
            self.mailbox.push_back(Waiting::durable(position, message));
            let avoid = self.avoided.take();
            self.consider(avoid);
        } else {
            // Its generation ended in between.
            self.shared
                .decide(|turns| turns.batch().remove_message(&self.key, position));
        }
    }

    pub(super) fn timer_due(&mut self, timer: Timer) {
        let before = self.before();
        let at = self.now();
        let Timer {
            fence,
            timer_id,
            fire_at,
            ..
        } = timer.clone();
        let was_taken = self.receive_own(Message::TimerFired {
            fence,
            timer_id,
            fire_at,
            at,
        });
        // One that nobody waits for goes, too: it would come back with every page.
        self.shared
            .decide(|turns| turns.batch().disarm_timer(&self.key, &timer));
        if was_taken {
            self.settle(before);
        }
    }

    /// A scheduled start has come; the entry goes, and the instance, if it is still waiting for it, is marked busy from now on.
    pub(super) fn start_due(&mut self, at: Timestamp, generation: u32) {
        let before = self.before();
        self.shared
            .decide(|turns| turns.batch().disarm_start(&self.key, at, generation));
        if self
            .instance
            .as_ref()
            .is_some_and(|i| i.record.generation == generation)
        {
            self.settle(before);
        }
        self.consider(None);
    }

    /// After a restart: messages that nobody decided yet are decided, and what was out is handed out again.
    pub(super) fn recover(&mut self, until: u64) {
        for (position, message) in self.undecided_messages(until) {
            self.receive(position, message);
        }
        let open = self
            .instance
            .as_ref()
            .filter(|i| !i.record.status.is_terminal())
            .map(|i| i.open_activities())
            .unwrap_or_default();
        if !open.is_empty() {
            self.requeue_activities(&open);
        }
        self.mark_busy();
        self.consider(None);
    }

    /// Later ones are on their way here.
    fn undecided_messages(&self, until: u64) -> Vec<(Position, Message)> {
        let head = Position::default();
        let read = self.shared.services.store.read();
        let found = mainspring_store::query::mailbox(
            &*read,
            self.shared.partition,
            &self.key,
            head,
            usize::MAX,
        );
        match found {
            Ok(found) => found
                .into_iter()
                .filter(|(position, m)| !m.waits() && position.commit <= until)
                .collect(),
            Err(error) => {
                self.span()
                    .in_scope(|| tracing::error!(%error, "a mailbox cannot be read"));
                Vec::new()
            }
        }
    }

    fn requeue_activities(&mut self, schedulings: &[u32]) {
        let tasks = self.history().and_then(|history| {
            let instance = self.instance.as_ref().ok_or_else(|| self.missing())?;
            Ok(instance.activity_tasks(&history, schedulings)?)
        });
        match tasks {
            Ok(tasks) => {
                for task in tasks {
                    self.shared
                        .services
                        .dispatch
                        .schedule(self.key.clone(), task, true);
                }
            }
            Err(error) => self
                .span()
                .in_scope(|| tracing::error!(%error, "open activities cannot be read")),
        }
    }
}
