//! How a generation ends: completion, failure by the server, continue-as-new.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::action::CarryOver;
use crate::effect::Effect;
use crate::history::EventKind;
use crate::id::{FreshIds, execution_id};
use crate::message::{CarriedEvent, FailureDetails, Message};
use crate::time::Timestamp;

use super::episode::{CLOCK_STEP, RAISED_STEP};
use super::{Episode, OpenWork, Orchestration, Start, Status, Suspension, Transition};

impl Orchestration {
    /// Fails the instance without a worker's word. The events of `episode`, if given, are committed first. One that is finished, or being
    /// terminated, stays as it is.
    pub fn fail(
        &mut self,
        episode: Option<&Episode>,
        failure: FailureDetails,
        now: Timestamp,
        _ids: &mut dyn FreshIds,
    ) -> Transition {
        if self.record.status.is_terminal() || self.record.terminating.is_some() {
            return Transition::default();
        }
        let mut transition = match episode {
            Some(episode) => self.commit_events(episode, None),
            None => Transition::default(),
        };
        self.begin_history(&mut transition, now);
        if !self.open.activities().is_empty() {
            transition.effects.push(Effect::DropActivities {
                execution_id: self.record.execution_id.clone(),
            });
        }
        if episode.is_none() {
            transition.effects.push(Effect::FenceEpisode);
        }
        let id = self.next_event_id();
        self.finish(
            &mut transition,
            id,
            Status::Failed,
            None,
            Some(failure),
            now,
        );
        self.touch(now);
        transition
    }

    /// Id of the last event where no action gives one (S-9.7).
    pub(super) fn next_event_id(&self) -> i32 {
        self.record.event_id_max.saturating_add(1)
    }

    /// A generation that never ran gets its first two events, so that its history can be read (S-3.14).
    pub(super) fn begin_history(&mut self, transition: &mut Transition, now: Timestamp) {
        if self.record.is_started {
            return;
        }
        let clock = self.next_clock(now, None, CLOCK_STEP);
        self.record.clock = Some(clock);
        self.record_inbound(transition, clock, EventKind::OrchestratorStarted);
        let started = self.execution_started();
        self.record_event(transition, started.id, started.at, started.kind);
        self.record.is_started = true;
    }

    /// Enters a terminal status: last event, timers disarmed, parent told (S-4.8).
    pub(super) fn finish(
        &mut self,
        transition: &mut Transition,
        id: i32,
        status: Status,
        result: Option<String>,
        failure: Option<FailureDetails>,
        now: Timestamp,
    ) {
        let failure = failure.filter(|_| status == Status::Failed);
        let event = EventKind::ExecutionCompleted {
            status,
            result: result.clone(),
            failure: failure.clone(),
        };
        self.record_event(transition, id, now, event);
        for timer in self.open_timers() {
            transition.effects.push(Effect::DisarmTimer(timer));
        }
        self.tell_parent(transition, status, &result, failure.as_ref(), now);
        self.release_locks(transition);
        self.open.close();
        let record = &mut self.record;
        record.status = status;
        record.output = result;
        record.failure = failure;
        record.completed_at = Some(record.updated_at.max(now));
        record.suspension = None;
        record.pinned = None;
        record.wants_episode = false;
        record.overtaken.clear();
        self.answer_terminations(transition);
    }

    fn tell_parent(
        &self,
        transition: &mut Transition,
        status: Status,
        result: &Option<String>,
        failure: Option<&FailureDetails>,
        at: Timestamp,
    ) {
        let Some(parent) = &self.record.parent else {
            return;
        };
        let message = self.outcome_for(parent, status, result, failure, at);
        transition.effects.push(Effect::Send {
            target: parent.instance.clone(),
            message,
        });
    }

    /// What a parent is told of this child's end (S-7.4, S-7.10).
    pub(super) fn outcome_for(
        &self,
        parent: &crate::message::Parent,
        status: Status,
        result: &Option<String>,
        failure: Option<&FailureDetails>,
        at: Timestamp,
    ) -> Message {
        let (fence, task_id) = (parent.fence.clone(), parent.task_id);
        let failure = match status {
            Status::Completed => {
                return Message::ChildCompleted {
                    fence,
                    task_id,
                    result: result.clone(),
                    at,
                };
            }
            Status::Failed => failure.cloned().unwrap_or_else(|| {
                let message = format!("sub-orchestration '{}' failed without details", self.id);
                FailureDetails::new("SubOrchestrationFailed", &message, false)
            }),
            _ => {
                let reason = result.as_deref().unwrap_or("no reason was given");
                let message = format!("sub-orchestration '{}' was terminated: {reason}", self.id);
                FailureDetails::new("SubOrchestrationTerminated", &message, false)
            }
        };
        Message::ChildFailed {
            fence,
            task_id,
            failure,
            at,
        }
    }

    /// The history is discarded, and a new generation starts under the same id (S-3.17 to S-3.22).
    #[allow(clippy::too_many_arguments)]
    pub(super) fn continue_as_new(
        &mut self,
        transition: &mut Transition,
        input: Option<String>,
        version: Option<String>,
        to_self: Vec<CarriedEvent>,
        carried: Vec<CarryOver>,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) {
        for timer in self.open_timers() {
            transition.effects.push(Effect::DisarmTimer(timer));
        }
        transition.history.clear();
        // What the former generation carried and has not seen yet comes before the inbox.
        let left = self.start.carried[self.record.carried_taken as usize..].to_vec();
        let carried = distinct([to_self, sorted(carried, now), left], self.record.raised_at);
        let latest = carried.iter().map(|c| c.at).max();
        self.begin_generation(transition, ids);
        let record = &mut self.record;
        record.raised_at = record.raised_at.max(latest);
        record.version = version.or(record.version.take());
        record.inherited_custom_status = record.custom_status.clone();
        record.has_run = true;
        record.suspension = record.suspension.take().map(|_| Suspension::Unmarked);
        record.status = if record.suspension.is_some() {
            Status::Suspended
        } else {
            Status::Running
        };
        self.start = Arc::new(Start {
            input,
            tags: self.start.tags.clone(),
            scheduled_start_at: None,
            trace: self.start.trace.clone(),
            started_at: now,
            carried,
        });
    }

    /// Tells every entity that is locked for this generation, or is to be, that it is over (S-12.32).
    pub(super) fn release_locks(&self, transition: &mut Transition) {
        let releases = self.open.locked().into_iter().map(|target| Effect::Send {
            target,
            message: Message::ReleaseLocks(self.generation()),
        });
        transition.effects.extend(releases);
    }

    /// Numbers a new generation; what belonged to the old one is over.
    pub(super) fn begin_generation(&mut self, transition: &mut Transition, ids: &mut dyn FreshIds) {
        self.release_locks(transition);
        transition.is_new_generation = true;
        transition.old_generation = Some((self.record.generation, self.record.history_chunks));
        self.open = OpenWork::default();
        let record = &mut self.record;
        record.execution_id = execution_id(ids);
        record.generation += 1;
        record.episode_trace = None;
        record.schedulings = 0;
        record.event_id_max = -1;
        record.history_events = 0;
        record.history_chunks = 0;
        record.history_bytes = 0;
        record.is_started = false;
        record.carried_taken = 0;
        record.wants_episode = false;
        record.pinned = None;
        record.terminating = None;
        record.overtaken.clear();
    }
}

/// Carried events in order of their times; those without one get the commit time and keep their place in the list's order (S-3.19).
fn sorted(carried: Vec<CarryOver>, now: Timestamp) -> Vec<CarriedEvent> {
    let unset = |at: &Timestamp| at.seconds() == 0 && at.nanos() == 0;
    let mut events: Vec<CarriedEvent> = carried
        .into_iter()
        .map(|c| CarriedEvent {
            name: c.name,
            input: c.input,
            at: c.at.filter(|at| !unset(at)).unwrap_or(now),
        })
        .collect();
    events.sort_by_key(|e| e.at);
    events
}

/// Makes all times different by the least steps, and rising within each run, so that sorting by time again keeps its order
/// (S-3.11, S-3.19).
fn distinct(runs: [Vec<CarriedEvent>; 3], last: Option<Timestamp>) -> Vec<CarriedEvent> {
    let mut taken: BTreeSet<Timestamp> = last.into_iter().collect();
    let mut events = Vec::with_capacity(runs.iter().map(Vec::len).sum());
    for run in runs {
        let mut before: Option<Timestamp> = None;
        for mut event in run {
            if let Some(before) = before.filter(|before| event.at <= *before) {
                event.at = before.plus(RAISED_STEP);
            }
            while !taken.insert(event.at) {
                event.at = event.at.plus(RAISED_STEP);
            }
            before = Some(event.at);
            events.push(event);
        }
    }
    events
}
