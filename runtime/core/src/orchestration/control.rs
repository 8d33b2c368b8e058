//! Suspend, resume, terminate: applied by the server itself, without an episode (S-9.1).

use std::collections::BTreeSet;

use crate::effect::Effect;
use crate::history::EventKind;
use crate::id::{ExecutionId, FreshIds, InstanceId};
use crate::message::Message;
use crate::time::Timestamp;

use super::episode::CLOCK_STEP;
use super::{Orchestration, Status, Suspension, Terminating, Transition};

impl Orchestration {
    /// Suspends an active instance (S-9.2). `None`: nothing changes (S-9.6). `is_leased`: an episode is out, which may still commit; the
    /// marker follows it.
    pub fn suspend(
        &mut self,
        reason: Option<String>,
        is_leased: bool,
        now: Timestamp,
    ) -> Option<Transition> {
        let is_active = matches!(self.record.status, Status::Pending | Status::Running);
        if !is_active || self.record.terminating.is_some() {
            return None;
        }
        let mut transition = Transition::default();
        self.record.status = Status::Suspended;
        self.record.suspension = Some(if is_leased {
            Suspension::Owed(reason)
        } else if self.record.is_started {
            self.record_inbound(
                &mut transition,
                now,
                EventKind::ExecutionSuspended { input: reason },
            );
            Suspension::Marked
        } else {
            Suspension::Unmarked
        });
        self.touch(now);
        Some(transition)
    }

    /// Resumes a suspended instance (S-9.4). `None`: nothing changes, and no marker is written: Python fails on a stray one.
    pub fn resume(
        &mut self,
        reason: Option<String>,
        _is_leased: bool,
        now: Timestamp,
    ) -> Option<Transition> {
        if self.record.status != Status::Suspended || self.record.terminating.is_some() {
            return None;
        }
        let mut transition = Transition::default();
        if self.record.suspension.take() == Some(Suspension::Marked) {
            self.record_inbound(
                &mut transition,
                now,
                EventKind::ExecutionResumed { input: reason },
            );
        }
        self.record.status = if self.record.has_run {
            Status::Running
        } else {
            Status::Pending
        };
        self.touch(now);
        Some(transition)
    }

    /// Terminates an active instance (S-9.7). Recursive: freezes it and sends its children the same; it turns TERMINATED once every active
    /// descendant is (S-9.8). `None`: it is finished, or being terminated already.
    pub fn terminate(
        &mut self,
        output: Option<String>,
        recurse: bool,
        now: Timestamp,
        _ids: &mut dyn FreshIds,
    ) -> Option<Transition> {
        if self.record.status.is_terminal() || self.record.terminating.is_some() {
            return None;
        }
        let mut transition = Transition::default();
        self.begin_termination(&mut transition, output, recurse, now);
        self.touch(now);
        Some(transition)
    }

    /// Ends an active instance, or freezes it until its children have ended.
    pub(super) fn begin_termination(
        &mut self,
        transition: &mut Transition,
        output: Option<String>,
        recurse: bool,
        now: Timestamp,
    ) {
        if recurse && !self.children().is_empty() {
            self.freeze(transition, output, Vec::new());
        } else {
            self.end_terminated(transition, output, recurse, now);
        }
    }

    /// Stores the intent and hands it down.
    pub(super) fn freeze(
        &mut self,
        transition: &mut Transition,
        output: Option<String>,
        answers: Vec<(InstanceId, ExecutionId)>,
    ) {
        let waits_for: BTreeSet<InstanceId> = self.children().into_iter().collect();
        transition.effects.push(Effect::FenceEpisode);
        for child in &waits_for {
            let message = Message::TerminateTree {
                output: output.clone(),
                parent: self.id.clone(),
                parent_execution_id: self.record.execution_id.clone(),
            };
            transition.effects.push(Effect::Send {
                target: child.clone(),
                message,
            });
        }
        self.record.pinned = None;
        self.record.terminating = Some(Terminating {
            output,
            waits_for,
            answers,
        });
    }

    pub(super) fn end_terminated(
        &mut self,
        transition: &mut Transition,
        output: Option<String>,
        recurse: bool,
        now: Timestamp,
    ) {
        transition.effects.push(Effect::FenceEpisode);
        transition.effects.push(Effect::DropActivities {
            execution_id: self.record.execution_id.clone(),
        });
        if self.record.is_started {
            let clock = self.next_clock(now, None, CLOCK_STEP);
            self.record.clock = Some(clock);
            self.record_inbound(transition, clock, EventKind::OrchestratorStarted);
        } else {
            self.begin_history(transition, now);
        }
        self.record_inbound(
            transition,
            now,
            EventKind::ExecutionTerminated {
                input: output.clone(),
                recurse,
            },
        );
        let id = self.next_event_id();
        self.finish(transition, id, Status::Terminated, output, None, now);
    }
}
