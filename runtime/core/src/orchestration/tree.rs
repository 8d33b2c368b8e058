//! Messages that are decided at once: children started, terminated and rewound on behalf of other instances.

use bytes::Bytes;

use crate::Error;
use crate::effect::Effect;
use crate::id::{ExecutionId, FreshIds, InstanceId};
use crate::message::{FailureDetails, Message, NewInstance, Parent};
use crate::time::Timestamp;

use super::reuse::{Created, Origin, create};
use super::{Orchestration, Status, Transition};

/// Decides a message that does not wait, for an instance that may be missing. `history` gives the chunks of its current generation; it is
/// asked for only where a rewind needs it.
///
/// Errors: `Corrupt` when the history cannot be read; nothing has changed then.
pub fn receive(
    existing: &mut Option<Orchestration>,
    id: &InstanceId,
    message: Message,
    history: &mut dyn FnMut() -> Result<Vec<Bytes>, Error>,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> Result<Transition, Error> {
    match message {
        Message::Start(new) => start(existing, *new, Origin::Parent, now, ids),
        Message::StartFromEntity(new) => start(existing, *new, Origin::Entity, now, ids),
        Message::Terminate { output, recurse } => Ok(existing
            .as_mut()
            .and_then(|i| i.terminate(output, recurse, now, ids))
            .unwrap_or_default()),
        Message::TerminateTree {
            output,
            parent,
            parent_execution_id,
        } => match existing {
            Some(instance) if instance.is_child_of(&parent, &parent_execution_id) => {
                Ok(instance.terminate_tree(output, (parent, parent_execution_id), now))
            }
            _ => Ok(Transition {
                effects: vec![tree_terminated(id, (parent, parent_execution_id))],
                ..Transition::default()
            }),
        },
        Message::TreeTerminated {
            child,
            parent_execution_id,
        } => {
            let waiting = existing
                .as_mut()
                .filter(|i| i.record.execution_id == parent_execution_id);
            Ok(waiting
                .map(|i| i.tree_terminated(&child, now))
                .unwrap_or_default())
        }
        Message::RewindChild {
            parent,
            reason,
            again,
        } => rewind_child(existing, parent, reason, *again, history, now, ids),
        Message::EventRaised { .. }
        | Message::ActivityCompleted { .. }
        | Message::ActivityFailed { .. }
        | Message::TimerFired { .. }
        | Message::ChildCompleted { .. }
        | Message::ChildFailed { .. }
        | Message::EntityCompleted { .. }
        | Message::EntityFailed { .. }
        | Message::LocksGranted { .. }
        | Message::Operation(_)
        | Message::Lock(_)
        | Message::Unlock { .. }
        | Message::ReleaseLocks(_) => Ok(Transition::default()),
    }
}

fn start(
    existing: &mut Option<Orchestration>,
    new: NewInstance,
    origin: Origin,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> Result<Transition, Error> {
    match create(existing, new, origin, now, ids)? {
        Created::Started(transition) | Created::Refused(transition) => Ok(transition),
        Created::Ignored => Ok(Transition::default()),
    }
}

fn tree_terminated(
    child: &InstanceId,
    (parent, parent_execution_id): (InstanceId, ExecutionId),
) -> Effect {
    let message = Message::TreeTerminated {
        child: child.clone(),
        parent_execution_id,
    };
    Effect::Send {
        target: parent,
        message,
    }
}

impl Orchestration {
    fn is_child_of(&self, parent: &InstanceId, execution_id: &ExecutionId) -> bool {
        self.record
            .parent
            .as_ref()
            .is_some_and(|p| p.instance == *parent && p.fence.execution_id == *execution_id)
    }

    /// The walk of a recursive termination reached this instance: active ones end when all below have; finished ones pass it on (S-9.8).
    fn terminate_tree(
        &mut self,
        output: Option<String>,
        asked_by: (InstanceId, ExecutionId),
        now: Timestamp,
    ) -> Transition {
        let mut transition = Transition::default();
        if let Some(terminating) = &mut self.record.terminating {
            terminating.answers.push(asked_by);
        } else if !self.children().is_empty() {
            self.freeze(&mut transition, output, vec![asked_by]);
        } else {
            if !self.record.status.is_terminal() {
                self.end_terminated(&mut transition, output, true, now);
                self.touch(now);
            }
            transition.effects.push(tree_terminated(&self.id, asked_by));
        }
        transition
    }

    fn tree_terminated(&mut self, child: &InstanceId, now: Timestamp) -> Transition {
        let mut transition = Transition::default();
        let Some(terminating) = &mut self.record.terminating else {
            return transition;
        };
        terminating.waits_for.remove(child);
        if !terminating.waits_for.is_empty() {
            return transition;
        }
        let output = terminating.output.clone();
        if self.record.status.is_terminal() {
            self.answer_terminations(&mut transition);
        } else {
            self.end_terminated(&mut transition, output, true, now);
            self.touch(now);
        }
        transition
    }

    /// Tells those who asked that nothing below is active any more.
    pub(super) fn answer_terminations(&mut self, transition: &mut Transition) {
        let Some(terminating) = self.record.terminating.take() else {
            return;
        };
        for asked_by in terminating.answers {
            transition.effects.push(tree_terminated(&self.id, asked_by));
        }
    }
}

/// A rewound parent has no outcome of this child: its own turn decides what becomes of it (S-9.13, step 6).
fn rewind_child(
    existing: &mut Option<Orchestration>,
    parent: Parent,
    reason: Option<String>,
    again: NewInstance,
    history: &mut dyn FnMut() -> Result<Vec<Bytes>, Error>,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> Result<Transition, Error> {
    let Some(instance) = existing else {
        let new = NewInstance {
            parent: Some(parent),
            ..again
        };
        return match create(existing, new, Origin::Parent, now, ids)? {
            Created::Started(transition) | Created::Refused(transition) => Ok(transition),
            Created::Ignored => Ok(Transition::default()),
        };
    };
    // `again` holds the link to the parent's former generation: a child of an older one is not this parent's (S-9.13).
    let is_own = instance
        .record
        .parent
        .as_ref()
        .zip(again.parent.as_ref())
        .is_some_and(|(link, former)| {
            link.instance == former.instance
                && link.task_id == former.task_id
                && link.fence.execution_id == former.fence.execution_id
        });
    if !is_own {
        let message = format!(
            "an orchestration instance already exists: '{}' is no sub-orchestration of '{}' any more",
            instance.id, parent.instance
        );
        let failure = FailureDetails::new("OrchestrationAlreadyExists", &message, false);
        return Ok(told(
            &parent,
            Message::ChildFailed {
                fence: parent.fence.clone(),
                task_id: parent.task_id,
                failure,
                at: now,
            },
        ));
    }
    let status = instance.record.status;
    if status == Status::Failed {
        let chunks = history()?;
        let rewound = instance.rewind_for(reason, Some(parent.clone()), &chunks, now, ids);
        if let Ok(transition) = rewound {
            return Ok(transition);
        }
    }
    instance.record.parent = Some(parent.clone());
    if !status.is_terminal() {
        return Ok(Transition::default());
    }
    let record = &instance.record;
    let outcome = instance.outcome_for(
        &parent,
        status,
        &record.output,
        record.failure.as_ref(),
        now,
    );
    Ok(told(&parent, outcome))
}

fn told(parent: &Parent, message: Message) -> Transition {
    Transition {
        effects: vec![Effect::Send {
            target: parent.instance.clone(),
            message,
        }],
        ..Transition::default()
    }
}
