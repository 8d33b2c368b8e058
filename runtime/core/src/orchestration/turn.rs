//! A worker's response becomes history, messages, timers and activities.

use crate::Error;
use crate::action::{Action, Completion, End, EpisodeResult};
use crate::effect::{ActivityTask, Effect, Timer};
use crate::history::{ChildCreated, EventKind, TaskScheduled};
use crate::id::{ExecutionId, FreshIds, InstanceId, instance_id};
use crate::message::{CarriedEvent, FailureDetails, Fence, Message, NewInstance, Parent};
use crate::time::Timestamp;

use super::response::{Closing, closing, fails, refusal, too_long, unsupported};
use super::state::Suspension;
use super::{Episode, Limits, Orchestration, Status, Transition};

/// One response being applied.
pub(super) struct Turn {
    pub(super) transition: Transition,
    pub(super) now: Timestamp,
    /// The generation ends with this response.
    pub(super) ends: bool,
    /// It goes on as a new one.
    continues: bool,
    /// Events that the instance sent to itself (S-3.18).
    to_self: Vec<CarriedEvent>,
}

impl Orchestration {
    /// Whether a response asks for something that this generation's history has already: then it answers an earlier episode. Only for
    /// responses without a token, whose SDKs number their actions upwards from 0 and use no number twice; others do (S-3.8).
    pub fn has_actions_of(&self, result: &EpisodeResult) -> bool {
        let record = &self.record;
        result.actions.iter().any(|action| match action {
            Action::ScheduleTask { id, .. }
            | Action::CreateChild { id, .. }
            | Action::CreateTimer { id, .. }
            | Action::SendEvent { id, .. }
            | Action::SendEntityMessage { id, .. } => match *id {
                // `ExecutionStarted` has this one, too.
                0 => record.schedulings > 0,
                id => id > 0 && id <= record.event_id_max,
            },
            Action::Terminate { .. } | Action::Complete(_) | Action::Rewind { .. } => false,
        })
    }

    /// Accepts a worker's response to an episode (S-3.12, S-4.1).
    ///
    /// What the response cannot have (a payload over the limit, an illegal lock set) fails the instance instead of the call: an error would only
    /// bring the same response again. Errors, with the state unchanged: `Invalid` for a rewritten history that is none,
    /// `FailedPrecondition` when the instance is finished or being terminated, so that the episode is void (S-4.16).
    pub fn complete(
        &mut self,
        episode: &Episode,
        result: EpisodeResult,
        limits: &Limits,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Result<Transition, Error> {
        if self.record.status.is_terminal() || self.record.terminating.is_some() {
            let message = format!("the episode of instance '{}' is void", self.id);
            return Err(Error::FailedPrecondition(message));
        }
        if let Some(failure) = refusal(&result, self.open.locked_len(), limits) {
            return Ok(self.fail(Some(episode), failure, now, ids));
        }
        let EpisodeResult {
            actions,
            custom_status,
            events_processed,
            trace,
            ..
        } = result;
        let (rewinds, actions): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|a| matches!(a, Action::Rewind { .. }));
        if let Some(Action::Rewind { history, .. }) = rewinds.into_iter().next() {
            return self.adopt_history(history, episode, now, ids);
        }
        let is_lone_failure = matches!(&actions[..], [Action::Complete(c)] if fails(c));
        let unsupported = unsupported(&actions);
        let has_children = !self.children().is_empty()
            || actions
                .iter()
                .any(|a| matches!(a, Action::CreateChild { .. }));
        let Closing {
            completion,
            own_termination,
            actions,
        } = closing(actions, &self.id, has_children);
        let (completion, own_termination) = match unsupported {
            None => (completion, own_termination),
            Some(_) => (None, None),
        };
        let confirming = actions
            .iter()
            .filter(|a| !matches!(a, Action::Terminate { .. }))
            .count();
        let events = self.record.history_events as usize + episode.events.len() + confirming;
        if completion.is_none()
            && unsupported.is_none()
            && let Some(most) = limits
                .history_events_max
                .filter(|most| events > *most as usize)
        {
            return Ok(self.fail(Some(episode), too_long(most), now, ids));
        }
        let mut turn = Turn {
            transition: self.commit_events(episode, events_processed),
            now,
            ends: completion.is_some() || unsupported.is_some(),
            continues: completion
                .as_ref()
                .is_some_and(|c| matches!(c.end, End::ContinueAsNew { .. })),
            to_self: Vec::new(),
        };
        self.set_custom_status(custom_status, is_lone_failure);
        if trace.is_some() {
            self.record.episode_trace = trace;
        }
        if turn.ends {
            self.release_activities(&mut turn, completion.as_ref());
        }
        for action in actions {
            self.act(&mut turn, action, ids);
        }
        match (unsupported, completion) {
            (Some(failure), _) => {
                let id = self.next_event_id();
                let transition = &mut turn.transition;
                self.finish(transition, id, Status::Failed, None, Some(failure), now);
            }
            (None, Some(completion)) => self.end(&mut turn, completion, ids),
            (None, None) => self.go_on(&mut turn),
        }
        if let Some(output) = own_termination {
            self.begin_termination(&mut turn.transition, output, true, now);
        }
        self.touch(now);
        Ok(turn.transition)
    }

    /// The episode's events enter history as they were dispatched; messages and carried events behind them leave their places (S-3.30).
    pub(super) fn commit_events(
        &mut self,
        episode: &Episode,
        processed: Option<u32>,
    ) -> Transition {
        let head = 1 + usize::from(episode.begins);
        let count = processed.map_or(episode.events.len(), |n| {
            (n as usize).clamp(head, episode.events.len())
        });
        let carried = episode.carried.min(count - head);
        let messages = count - head - carried;
        for answered in episode.answers[..messages].iter().flatten() {
            let overtaken = self.open.take(*answered);
            self.record.overtaken.remove(answered);
            self.record.overtaken.extend(overtaken);
        }
        let mut raised = episode
            .answers
            .iter()
            .zip(&episode.times)
            .take(messages)
            .filter(|(a, _)| a.is_none())
            .map(|(_, at)| *at);
        let record = &mut self.record;
        record.raised_at = raised.next_back().or(record.raised_at);
        record.carried_taken += carried as u32;
        record.clock = Some(episode.clock);
        record.is_started = true;
        record.has_run = true;
        record.wants_episode = self.start.carried.len() > record.carried_taken as usize;
        record.pinned = None;
        record.event_id_max = record.event_id_max.max(if episode.begins { 0 } else { -1 });
        record.history_events += count as u32;
        Transition {
            history: episode.events[..count].to_vec(),
            messages_taken: messages,
            ..Transition::default()
        }
    }

    /// S-3.23 to S-3.25: set, cleared, or what it was at the end of the previous generation.
    fn set_custom_status(&mut self, custom_status: Option<String>, is_lone_failure: bool) {
        if custom_status.is_none() && is_lone_failure {
            return;
        }
        self.record.custom_status = match custom_status {
            Some(text) if text.is_empty() => None,
            None => self.record.inherited_custom_status.clone(),
            text => text,
        };
    }

    /// Without a completion the instance waits for what comes (S-2.3).
    fn go_on(&mut self, turn: &mut Turn) {
        if self.record.status == Status::Pending {
            self.record.status = Status::Running;
        }
        if let Some(Suspension::Owed(reason)) = &self.record.suspension {
            let input = reason.clone();
            self.record.suspension = Some(Suspension::Marked);
            self.record_inbound(
                &mut turn.transition,
                turn.now,
                EventKind::ExecutionSuspended { input },
            );
        }
    }

    fn act(&mut self, turn: &mut Turn, action: Action, ids: &mut dyn FreshIds) {
        match action {
            Action::ScheduleTask {
                id,
                name,
                version,
                input,
                tags,
                trace,
            } => {
                self.schedule_task(
                    turn,
                    id,
                    TaskScheduled {
                        name,
                        version,
                        input,
                        trace,
                        tags,
                    },
                );
            }
            Action::CreateTimer { id, fire_at } => self.create_timer(turn, id, fire_at),
            Action::CreateChild {
                id,
                instance,
                name,
                version,
                input,
                tags,
                trace,
            } => {
                self.create_child(
                    turn,
                    id,
                    ChildCreated {
                        instance,
                        name,
                        version,
                        input,
                        trace,
                        tags,
                    },
                    ids,
                );
            }
            Action::SendEvent {
                id,
                instance,
                name,
                input,
            } => self.send_event(turn, id, instance, name, input),
            Action::Terminate {
                instance,
                reason,
                recurse,
                ..
            } => {
                // An illegal target is nobody (S-4.18).
                if let Ok(target) = InstanceId::parse(&instance)
                    && target != self.id
                {
                    let message = Message::Terminate {
                        output: reason,
                        recurse,
                    };
                    turn.transition
                        .effects
                        .push(Effect::Send { target, message });
                }
            }
            Action::SendEntityMessage { id, event } => self.send_to_entity(turn, id, event, ids),
            // Completions and rewinds were taken out before.
            Action::Complete(_) | Action::Rewind { .. } => {}
        }
    }

    fn schedule_task(&mut self, turn: &mut Turn, id: i32, scheduled: TaskScheduled) {
        self.record_event(
            &mut turn.transition,
            id,
            turn.now,
            EventKind::TaskScheduled(Box::new(scheduled.clone())),
        );
        let TaskScheduled {
            name,
            version,
            input,
            trace,
            tags,
        } = scheduled;
        let task = ActivityTask {
            fence: self.latest_fence(),
            task_id: id,
            name,
            version,
            input,
            tags,
            trace,
            orchestration_version: self.record.version.clone(),
        };
        turn.transition.effects.push(Effect::RunActivity {
            task,
            outlives: turn.ends,
        });
    }

    fn latest_fence(&self) -> Fence {
        Fence {
            execution_id: self.record.execution_id.clone(),
            scheduling: self.open.latest(),
        }
    }

    /// An unset time is now (S-4.12). Timers of a generation that ends here need not be armed (S-3.20).
    fn create_timer(&mut self, turn: &mut Turn, id: i32, fire_at: Option<Timestamp>) {
        let fire_at = fire_at.unwrap_or(turn.now);
        self.record_event(
            &mut turn.transition,
            id,
            turn.now,
            EventKind::TimerCreated { fire_at },
        );
        if !turn.ends {
            let timer = Timer {
                generation: self.record.generation,
                fence: self.latest_fence(),
                timer_id: id,
                fire_at,
            };
            turn.transition.effects.push(Effect::ArmTimer(timer));
        }
    }

    fn create_child(
        &mut self,
        turn: &mut Turn,
        id: i32,
        mut created: ChildCreated,
        ids: &mut dyn FreshIds,
    ) {
        if created.instance.is_empty() {
            created.instance = generated_child_id(&self.record.execution_id, id, ids);
        }
        self.record_event(
            &mut turn.transition,
            id,
            turn.now,
            EventKind::ChildCreated(Box::new(created.clone())),
        );
        let fence = self.latest_fence();
        match self.child_target(&created) {
            Ok(target) => {
                let child = self.child(target.clone(), id, fence, created);
                turn.transition.effects.push(Effect::Send {
                    target,
                    message: Message::Start(Box::new(child)),
                });
            }
            Err(failure) => turn.transition.own_messages.push(Message::ChildFailed {
                fence,
                task_id: id,
                failure,
                at: turn.now,
            }),
        }
    }

    /// The instance that a child is to become, or why it cannot (S-4.18, S-7.6).
    pub(super) fn child_target(
        &self,
        created: &ChildCreated,
    ) -> Result<InstanceId, FailureDetails> {
        let ChildCreated { instance, name, .. } = created;
        let invalid = |reason: &dyn std::fmt::Display| {
            let message = format!("sub-orchestration '{name}' cannot be created: {reason}");
            FailureDetails::new("InvalidArgument", &message, true)
        };
        let target = InstanceId::parse(instance).map_err(|error| invalid(&error))?;
        if name.is_empty() {
            return Err(invalid(&"its name is empty"));
        }
        if target == self.id {
            let message = format!(
                "an orchestration instance already exists: '{target}' cannot be its own child"
            );
            return Err(FailureDetails::new(
                "OrchestrationAlreadyExists",
                &message,
                false,
            ));
        }
        Ok(target)
    }

    /// What a child is started with (S-7.1, S-7.2).
    pub(super) fn child(
        &self,
        instance: InstanceId,
        task_id: i32,
        fence: Fence,
        created: ChildCreated,
    ) -> NewInstance {
        let ChildCreated {
            name,
            version,
            input,
            trace,
            tags,
            ..
        } = created;
        let parent = Parent {
            instance: self.id.clone(),
            fence,
            task_id,
            name: self.record.name.clone(),
            version: self.record.version.clone(),
        };
        NewInstance {
            instance,
            name,
            version,
            input,
            tags,
            scheduled_start_at: None,
            execution_id: None,
            parent: Some(parent),
            trace,
        }
    }

    fn send_event(
        &mut self,
        turn: &mut Turn,
        id: i32,
        instance: String,
        name: String,
        input: Option<String>,
    ) {
        let sent = EventKind::EventSent {
            instance: instance.clone(),
            name: name.clone(),
            input: input.clone(),
        };
        self.record_event(&mut turn.transition, id, turn.now, sent);
        // An event without a name or to an illegal target reaches nobody (S-4.18).
        let Some(target) = InstanceId::parse(&instance)
            .ok()
            .filter(|_| !name.is_empty())
        else {
            return;
        };
        let at = turn.now;
        if target != self.id {
            turn.transition.effects.push(Effect::Send {
                target,
                message: Message::EventRaised { name, input, at },
            });
        } else if turn.continues {
            turn.to_self.push(CarriedEvent { name, input, at });
        } else if !turn.ends {
            turn.transition
                .own_messages
                .push(Message::EventRaised { name, input, at });
        }
    }

    /// What the generation leaves behind: after a normal completion and a continue-as-new its activities go on (S-3.20), otherwise those that
    /// were not handed out are dropped (S-5.7). Before the response's own activities, which always run.
    fn release_activities(&mut self, turn: &mut Turn, completion: Option<&Completion>) {
        let execution_id = self.record.execution_id.clone();
        let goes_on = completion.is_some_and(|c| match &c.end {
            End::Finish { status, .. } => *status == Status::Completed,
            End::ContinueAsNew { .. } => true,
        });
        let effect = match self.open.activities() {
            open if open.is_empty() => return,
            schedulings if goes_on => Effect::ReleaseActivities {
                execution_id,
                schedulings,
            },
            _ => Effect::DropActivities { execution_id },
        };
        turn.transition.effects.push(effect);
    }

    fn end(&mut self, turn: &mut Turn, completion: Completion, ids: &mut dyn FreshIds) {
        let Completion { id, end } = completion;
        match end {
            End::Finish {
                status,
                result,
                failure,
            } => self.finish(&mut turn.transition, id, status, result, failure, turn.now),
            End::ContinueAsNew {
                input,
                version,
                carried,
            } => {
                let to_self = std::mem::take(&mut turn.to_self);
                self.continue_as_new(
                    &mut turn.transition,
                    input,
                    version,
                    to_self,
                    carried,
                    turn.now,
                    ids,
                );
            }
        }
    }
}

/// `{executionId}:{action id, 4 hex digits}`, the parent's; a GUID where that is over the limit (S-7.3).
fn generated_child_id(execution_id: &ExecutionId, id: i32, ids: &mut dyn FreshIds) -> String {
    let generated = format!("{execution_id}:{id:04x}");
    match InstanceId::parse(&generated) {
        Ok(_) => generated,
        Err(_) => instance_id(ids).as_str().to_owned(),
    }
}
