//! A worker's response becomes history, messages, timers and activities.

use crate::Error;
use crate::action::{Action, Completion, End, EpisodeResult};
use crate::effect::{ActivityTask, Effect, Timer};
use crate::history::{ChildCreated, EventKind, TaskScheduled};
use crate::id::{ExecutionId, FreshIds, InstanceId, instance_id};
use crate::message::{CarriedEvent, FailureDetails, Fence, Message, NewInstance, Parent};
use crate::time::Timestamp;

use super::state::Suspension;
use super::{Episode, Limits, Orchestration, Status, Transition};

/// Messages that one response may send: half of what one commit can carry, since a response is never spread over two.
const MESSAGES_MAX: usize = 30_000;

/// One response being applied.
pub(super) struct Turn {
    pub(super) transition: Transition,
    pub(super) now: Timestamp,
    /// The generation ends with this response.
    ends: bool,
    /// It goes on as a new one.
    continues: bool,
    /// Events that the instance sent to itself (S-3.18).
    to_self: Vec<CarriedEvent>,
}

impl Orchestration {
    /// Accepts a worker's response to an episode (S-3.12, S-4.1).
    ///
    /// What the response cannot have (a payload over the limit, an entity) fails the instance instead of the call: an error would only
    /// bring the same response again. Errors: `Invalid` for a rewritten history that is none; the state is unchanged then.
    pub fn complete(
        &mut self,
        episode: &Episode,
        result: EpisodeResult,
        limits: &Limits,
        now: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Result<Transition, Error> {
        if let Some(failure) = refusal(&result, limits) {
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
        let has_children = !self.children().is_empty()
            || actions
                .iter()
                .any(|a| matches!(a, Action::CreateChild { .. }));
        let Closing {
            completion,
            own_termination,
            actions,
        } = closing(actions, &self.id, has_children);
        let confirming = actions
            .iter()
            .filter(|a| !matches!(a, Action::Terminate { .. }))
            .count();
        let events = self.record.history_events as usize + episode.events.len() + confirming;
        if completion.is_none()
            && let Some(most) = limits
                .history_events_max
                .filter(|most| events > *most as usize)
        {
            return Ok(self.fail(Some(episode), too_long(most), now, ids));
        }
        let mut turn = Turn {
            transition: self.commit_events(episode, events_processed),
            now,
            ends: completion.is_some(),
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
        match completion {
            Some(completion) => self.end(&mut turn, completion, ids),
            None => self.go_on(&mut turn),
        }
        if let Some(output) = own_termination {
            self.freeze(&mut turn.transition, output, Vec::new());
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
            // Entities fail the response as a whole; completions and rewinds were taken out before.
            Action::SendEntityMessage { .. } | Action::Complete(_) | Action::Rewind { .. } => {}
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

fn fails(completion: &Completion) -> bool {
    matches!(
        completion.end,
        End::Finish {
            status: Status::Failed,
            ..
        }
    )
}

/// A response's actions, apart from those that end something.
struct Closing {
    completion: Option<Completion>,
    /// The instance terminates itself and its children, with this output (S-9.8). Excludes a completion.
    own_termination: Option<Option<String>>,
    actions: Vec<Action>,
}

/// Takes the completion out of the actions: the one with the smallest id counts (S-4.2). A worker that terminates its own instance
/// completes it, unless it has children to be terminated first.
fn closing(actions: Vec<Action>, own: &InstanceId, has_children: bool) -> Closing {
    let mut completion: Option<(Completion, bool)> = None;
    let mut rest = Vec::with_capacity(actions.len());
    for action in actions {
        let (found, recurses) = match action {
            Action::Complete(found) => (*found, false),
            Action::Terminate {
                id,
                instance,
                reason,
                recurse,
            } if instance == own.as_str() => {
                let end = End::Finish {
                    status: Status::Terminated,
                    result: reason,
                    failure: None,
                };
                (Completion { id, end }, recurse && has_children)
            }
            action => {
                rest.push(action);
                continue;
            }
        };
        if completion.as_ref().is_none_or(|(c, _)| found.id < c.id) {
            completion = Some((found, recurses));
        }
    }
    let (completion, own_termination) = match completion {
        Some((
            Completion {
                end: End::Finish { result, .. },
                ..
            },
            true,
        )) => (None, Some(result)),
        other => (other.map(|(completion, _)| completion), None),
    };
    Closing {
        completion,
        own_termination,
        actions: rest,
    }
}

/// Why a response cannot be taken as it is (S-14.4, S-12.50).
fn refusal(result: &EpisodeResult, limits: &Limits) -> Option<FailureDetails> {
    let entity = result.actions.iter().any(|action| match action {
        Action::SendEntityMessage { .. } => true,
        Action::SendEvent { instance, .. } => instance.starts_with('@'),
        _ => false,
    });
    if entity {
        let message = "entities are not supported by this version of the server; the orchestration sent a message to one";
        return Some(FailureDetails::new("EntitiesNotSupported", message, true));
    }
    let messages = result.actions.iter().filter(|a| is_message(a)).count();
    if messages > MESSAGES_MAX {
        let message = format!(
            "the response sends {messages} messages to other instances; at most {MESSAGES_MAX} are allowed"
        );
        return Some(FailureDetails::new("TooManyMessages", &message, true));
    }
    let limit = limits.payload_bytes_max;
    let (what, bytes) = payloads(result).find(|(_, bytes)| *bytes > limit)?;
    let message = format!("the {what} has {bytes} bytes; at most {limit} are allowed");
    Some(FailureDetails::new("PayloadTooLarge", &message, true))
}

fn is_message(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateChild { .. } | Action::SendEvent { .. } | Action::Terminate { .. }
    )
}

fn payloads(result: &EpisodeResult) -> impl Iterator<Item = (&'static str, usize)> + '_ {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let of_action = move |action: &Action| match action {
        Action::ScheduleTask { input, .. } => ("activity input", length(input)),
        Action::CreateChild { input, .. } => ("sub-orchestration input", length(input)),
        Action::SendEvent { input, .. } => ("event data", length(input)),
        Action::Terminate { reason, .. } => ("termination reason", length(reason)),
        Action::Complete(completion) => match &completion.end {
            End::Finish { result, .. } => ("orchestration output", length(result)),
            End::ContinueAsNew { input, carried, .. } => {
                let largest = carried.iter().map(|c| length(&c.input)).max().unwrap_or(0);
                ("orchestration input", length(input).max(largest))
            }
        },
        Action::CreateTimer { .. } | Action::SendEntityMessage { .. } | Action::Rewind { .. } => {
            ("timer", 0)
        }
    };
    std::iter::once(("custom status", length(&result.custom_status)))
        .chain(result.actions.iter().map(of_action))
}

fn too_long(most: u32) -> FailureDetails {
    let message = format!("the history has more than {most} events; continue as new before that");
    FailureDetails::new("HistoryTooLong", &message, true)
}

/// `{executionId}:{action id, 4 hex digits}`, the parent's; a GUID where that is over the limit (S-7.3).
fn generated_child_id(execution_id: &ExecutionId, id: i32, ids: &mut dyn FreshIds) -> String {
    let generated = format!("{execution_id}:{id:04x}");
    match InstanceId::parse(&generated) {
        Ok(_) => generated,
        Err(_) => instance_id(ids).as_str().to_owned(),
    }
}
