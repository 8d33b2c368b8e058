//! Rewind: a failed instance goes on from before its failures (S-9.12 to S-9.18). The server rewrites the history itself (S-9.14).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::effect::Effect;
use crate::entity::{EntityEvent, lock_set};
use crate::history::{
    EXECUTION_STARTED_ID, EventKind, ExecutionRewound, HistoryEvent, INBOUND_ID, OtherEvent,
    OtherKind,
};
use crate::id::{ExecutionId, FreshIds};
use crate::message::{CarriedEvent, Fence, Message, Parent};
use crate::time::Timestamp;
use crate::wire;

use super::state::parent_instance;
use super::{Episode, OpenWork, Orchestration, Start, Status, Suspension, Transition};

impl Orchestration {
    /// Rewinds a failed instance. `history`: all chunks of the current generation.
    ///
    /// Errors: `FailedPrecondition` unless it is failed, and if it held locks then (S-9.16); `Corrupt` when the history cannot be read.
    pub fn rewind(
        &mut self,
        reason: Option<String>,
        history: &[Bytes],
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Result<Transition, Error> {
        self.rewind_for(reason, None, history, now, ids)
    }

    /// The same on behalf of a rewound parent, whose new generation the outcome goes to.
    pub(super) fn rewind_for(
        &mut self,
        reason: Option<String>,
        parent: Option<Parent>,
        history: &[Bytes],
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Result<Transition, Error> {
        if self.record.status != Status::Failed {
            let message = format!(
                "precondition failed: orchestration instance '{}' is {:?}; only failed instances can be rewound, others are not allowed",
                self.id, self.record.status
            );
            return Err(Error::FailedPrecondition(message));
        }
        if self.record.terminating.is_some() {
            let message = format!(
                "precondition failed: descendants of orchestration instance '{}' are being terminated",
                self.id
            );
            return Err(Error::FailedPrecondition(message));
        }
        let mut events = Vec::new();
        for chunk in history {
            events.extend(wire::decode_chunk(chunk)?);
        }
        self.check_locks(&events)?;
        let mut transition = Transition::default();
        let former = self.record.execution_id.clone();
        self.begin_generation(&mut transition, ids);
        let parent_execution_id = parent
            .as_ref()
            .map(|p| p.fence.execution_id.as_str().to_owned());
        if parent.is_some() {
            self.record.parent = parent;
        }
        let mut events = without_failures(events);
        events.push(self.rewound(reason, parent_execution_id, now));
        self.take_over(&mut transition, events, Vec::new());
        self.run_on(&mut transition, &former, now, ids);
        Ok(transition)
    }

    /// The locks of a critical section were released when the instance failed: it cannot go on in the middle of one (S-9.16). Sections
    /// do not nest, so the last word on locks tells.
    fn check_locks(&self, events: &[HistoryEvent]) -> Result<(), Error> {
        let last = events.iter().rev().find_map(|e| match &e.kind {
            EventKind::Other(other) => match other.kind {
                OtherKind::EntityLockGranted => Some(true),
                OtherKind::EntityUnlockSent => Some(false),
                _ => None,
            },
            _ => None,
        });
        let mut open = OpenWork::default();
        for event in events {
            open.fold(event, &self.record.overtaken);
        }
        if last != Some(true) && !open.is_in_section() {
            return Ok(());
        }
        Err(Error::FailedPrecondition(format!(
            "precondition failed: orchestration instance '{}' is in a critical section, where a rewind is not allowed",
            self.id
        )))
    }

    /// The marker of a rewind (S-9.13, step 4).
    fn rewound(
        &self,
        reason: Option<String>,
        parent_execution_id: Option<String>,
        at: Timestamp,
    ) -> HistoryEvent {
        let rewound = ExecutionRewound {
            reason,
            parent_execution_id,
            instance: Some(self.id.as_str().to_owned()),
            trace: self.start.trace.clone(),
            ..ExecutionRewound::default()
        };
        HistoryEvent {
            id: INBOUND_ID,
            at,
            kind: EventKind::ExecutionRewound(Box::new(rewound)),
        }
    }

    /// Accepts a history that a worker has rewritten (S-9.15).
    pub(super) fn adopt_history(
        &mut self,
        mut events: Vec<HistoryEvent>,
        episode: &Episode,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Result<Transition, Error> {
        let started: Vec<ExecutionId> = events
            .iter()
            .filter_map(|e| match &e.kind {
                EventKind::ExecutionStarted(started) => Some(started.execution_id.clone()),
                _ => None,
            })
            .collect();
        let is_finished = events
            .iter()
            .any(|e| matches!(e.kind, EventKind::ExecutionCompleted { .. }));
        let [execution_id] = &started[..] else {
            return Err(Error::Invalid(format!(
                "the rewritten history of '{}' has {} ExecutionStarted events, not one",
                self.id,
                started.len()
            )));
        };
        if is_finished {
            return Err(Error::Invalid(format!(
                "the rewritten history of '{}' holds ExecutionCompleted",
                self.id
            )));
        }
        self.check_locks(&events)?;
        let former = self.record.execution_id.clone();
        let committed = self.commit_events(episode, None);
        let mut transition = Transition {
            messages_taken: committed.messages_taken,
            ..Transition::default()
        };
        for timer in self.open_timers() {
            transition.effects.push(Effect::DisarmTimer(timer));
        }
        transition.effects.push(Effect::DropActivities {
            execution_id: former.clone(),
        });
        let left = self.start.carried[self.record.carried_taken as usize..].to_vec();
        self.begin_generation(&mut transition, ids);
        // The worker's id is taken if it tells this generation from the former one (S-0.3).
        if !execution_id.as_str().is_empty() && *execution_id != former {
            self.record.execution_id = execution_id.clone();
        }
        if !matches!(events.last(), Some(e) if matches!(e.kind, EventKind::ExecutionRewound(_))) {
            events.push(self.rewound(None, None, now));
        }
        let suspension = self.record.suspension.take();
        self.take_over(&mut transition, events, left);
        self.run_on(&mut transition, &former, now, ids);
        if suspension.is_some() {
            self.record.status = Status::Suspended;
            self.record.suspension = Some(Suspension::Unmarked);
        }
        Ok(transition)
    }

    /// Makes the events the history of the new generation; `left` is still to be carried into it.
    fn take_over(
        &mut self,
        transition: &mut Transition,
        events: Vec<HistoryEvent>,
        left: Vec<CarriedEvent>,
    ) {
        for mut event in events {
            if let EventKind::ExecutionStarted(started) = &mut event.kind {
                event.id = EXECUTION_STARTED_ID;
                started.execution_id = self.record.execution_id.clone();
                started.parent = self.record.parent.as_ref().map(parent_instance);
            }
            self.record_event(transition, event.id, event.at, event.kind);
        }
        self.record.is_started = true;
        self.record.inherited_custom_status = self.record.custom_status.clone();
        self.start = Arc::new(Start {
            carried: left,
            ..Start::clone(&self.start)
        });
    }

    /// Active again; nothing waits for ever: what has no outcome is asked for anew (S-9.13, step 6).
    fn run_on(
        &mut self,
        transition: &mut Transition,
        former: &ExecutionId,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) {
        let record = &mut self.record;
        record.status = Status::Running;
        record.output = None;
        record.failure = None;
        record.completed_at = None;
        record.suspension = None;
        record.wants_episode = true;
        record.has_run = true;
        self.touch(now);
        let chunk = wire::frame_past(&transition.history);
        let schedulings = self.open.activities();
        let tasks = self
            .activity_tasks(std::slice::from_ref(&chunk), &schedulings)
            .unwrap_or_default();
        for task in tasks {
            transition.effects.push(Effect::RunActivity {
                task,
                outlives: false,
            });
        }
        for timer in self.open_timers() {
            transition.effects.push(Effect::ArmTimer(timer));
        }
        self.ask_children(transition, &chunk, former, now);
        self.ask_entities(transition, &chunk, now, ids);
    }

    /// Calls without an answer and lock requests without a grant are sent again, in the name of the new generation.
    fn ask_entities(
        &self,
        transition: &mut Transition,
        chunk: &Bytes,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) {
        let open: BTreeSet<u32> = self.open.asked_of_entities().into_iter().collect();
        let events = wire::decode_chunk(chunk).unwrap_or_default();
        let scheduled = events.iter().filter(|e| OpenWork::is_scheduling(e));
        for (scheduling, event) in (0..).zip(scheduled) {
            if open.contains(&scheduling)
                && let EventKind::Other(other) = &event.kind
                && let Some(asked) = wire::entity_event(other)
            {
                self.ask_entity(transition, asked, scheduling, now, ids);
            }
        }
    }

    /// Asks the children without an outcome, each with the link it should have had so far and the one it gets.
    fn ask_children(
        &self,
        transition: &mut Transition,
        chunk: &Bytes,
        former: &ExecutionId,
        now: Timestamp,
    ) {
        let open = self.open.open_children();
        let created = wire::decode_chunk(chunk).unwrap_or_default();
        let reason = created.iter().rev().find_map(|e| match &e.kind {
            EventKind::ExecutionRewound(rewound) => rewound.reason.clone(),
            _ => None,
        });
        for (scheduling, task_id, target) in open {
            let found = created.iter().find_map(|e| match &e.kind {
                EventKind::ChildCreated(c) if e.id == task_id && c.instance == target.as_str() => {
                    Some(c.as_ref().clone())
                }
                _ => None,
            });
            let Some(created) = found else {
                continue;
            };
            let fence = |execution_id: &ExecutionId| Fence {
                execution_id: execution_id.clone(),
                scheduling,
            };
            let instance = match self.child_target(&created) {
                Ok(instance) => instance,
                // What could not be created then cannot be now: its failure, which is gone from history, comes again.
                Err(failure) => {
                    transition.own_messages.push(Message::ChildFailed {
                        fence: fence(&self.record.execution_id),
                        task_id,
                        failure,
                        at: now,
                    });
                    continue;
                }
            };
            let again = self.child(instance.clone(), task_id, fence(former), created);
            let Some(parent) = again.parent.clone().map(|p| Parent {
                fence: fence(&self.record.execution_id),
                ..p
            }) else {
                continue;
            };
            let message = Message::RewindChild {
                parent,
                reason: reason.clone(),
                again: Box::new(again),
            };
            transition.effects.push(Effect::Send {
                target: instance,
                message,
            });
        }
    }
}

/// The history before its failures: failed tasks with their schedulings, failed children's outcomes, the completion and an unpaired
/// suspension are left out.
fn without_failures(events: Vec<HistoryEvent>) -> Vec<HistoryEvent> {
    let mut kept: Vec<Option<HistoryEvent>> = Vec::with_capacity(events.len());
    let mut scheduled: Vec<(i32, usize)> = Vec::new();
    let mut suspended: Option<usize> = None;
    for event in events {
        match &event.kind {
            EventKind::TaskScheduled(_) => scheduled.push((event.id, kept.len())),
            EventKind::TaskCompleted { task_id, .. } => {
                take_oldest(&mut scheduled, *task_id);
            }
            EventKind::TaskFailed { task_id, .. } => {
                if let Some(place) = take_oldest(&mut scheduled, *task_id) {
                    kept[place] = None;
                }
                continue;
            }
            EventKind::ChildFailed { .. } | EventKind::ExecutionCompleted { .. } => continue,
            EventKind::Other(other) if is_illegal_request(other) => continue,
            EventKind::ExecutionSuspended { .. } => suspended = Some(kept.len()),
            EventKind::ExecutionResumed { .. } => suspended = None,
            _ => {}
        }
        kept.push(Some(event));
    }
    if let Some(place) = suspended {
        kept[place] = None;
    }
    kept.into_iter().flatten().collect()
}

/// A request for locks that failed the instance: its orchestrator asks again.
fn is_illegal_request(event: &OtherEvent) -> bool {
    matches!(wire::entity_event(event), Some(EntityEvent::LockRequested { lock_set: listed, .. }) if lock_set(&listed).is_err())
}

fn take_oldest(scheduled: &mut Vec<(i32, usize)>, task_id: i32) -> Option<usize> {
    let at = scheduled.iter().position(|(id, _)| *id == task_id)?;
    Some(scheduled.remove(at).1)
}
