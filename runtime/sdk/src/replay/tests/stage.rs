//! A scheduler of a few lines: it writes down what the code asks for, and answers what a test tells it to.

use std::sync::Arc;

use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::*;
use prost_types::Timestamp;
use serde::Serialize;

use crate::convert::{Payload, Payloads};
use crate::error::Failure;
use crate::handler::Orchestration;
use crate::registry::Registry;
use crate::replay::{Answer, Instance, Trouble};

/// One orchestration and its history.
pub(super) struct Stage {
    registry: Arc<Registry>,
    pub(super) history: Vec<HistoryEvent>,
    kept: Instance,
    /// What the next episode begins with.
    due: Vec<EventType>,
    seconds: i64,
    pub(super) answer: Option<Answer>,
}

impl Stage {
    /// Starts it and runs its first episode.
    pub(super) fn start<F, I, O>(orchestration: F, input: I) -> Self
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let mut stage = Self::waiting(orchestration, input);
        stage.go();
        stage
    }

    /// Starts it, and leaves its first episode to the test.
    pub(super) fn waiting<F, I, O>(orchestration: F, input: I) -> Self
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let mut registry = Registry::default();
        let name = orchestration.name().into_owned();
        registry.add_orchestration(orchestration);
        let registry = Arc::new(registry);
        let started = ExecutionStartedEvent {
            name,
            input: Payloads::default().encode(&input).unwrap(),
            orchestration_instance: Some(OrchestrationInstance {
                instance_id: "one".to_owned(),
                execution_id: Some("generation".to_owned()),
            }),
            ..Default::default()
        };
        Self {
            kept: instance(&registry),
            registry,
            history: Vec::new(),
            due: vec![EventType::ExecutionStarted(started)],
            seconds: 1_000,
            answer: None,
        }
    }

    /// The same history with other code, as after a deployment.
    pub(super) fn redeployed<F, I, O>(&self, orchestration: F) -> Self
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let mut registry = Registry::default();
        registry.add_orchestration(orchestration);
        let registry = Arc::new(registry);
        Self {
            kept: instance(&registry),
            registry,
            history: self.history.clone(),
            due: Vec::new(),
            seconds: self.seconds,
            answer: None,
        }
    }

    pub(super) fn task_completed(mut self, id: i32, result: impl Serialize) -> Self {
        self.due.push(EventType::TaskCompleted(TaskCompletedEvent {
            task_scheduled_id: id,
            result: Payloads::default().encode(&result).unwrap(),
        }));
        self
    }

    pub(super) fn task_failed(mut self, id: i32, failure: Failure) -> Self {
        self.due.push(EventType::TaskFailed(TaskFailedEvent {
            task_scheduled_id: id,
            failure_details: Some(failure.into_details()),
        }));
        self
    }

    pub(super) fn timer_fired(mut self, id: i32) -> Self {
        self.due.push(EventType::TimerFired(TimerFiredEvent {
            fire_at: None,
            timer_id: id,
        }));
        self
    }

    pub(super) fn raised(mut self, name: &str, payload: impl Serialize) -> Self {
        self.due.push(EventType::EventRaised(EventRaisedEvent {
            name: name.to_owned(),
            input: Payloads::default().encode(&payload).unwrap(),
        }));
        self
    }

    /// Answers the call whose action has this id.
    pub(super) fn operation_completed(mut self, id: i32, output: impl Serialize) -> Self {
        let request_id = self
            .history
            .iter()
            .find_map(|event| match &event.event_type {
                Some(EventType::EntityOperationCalled(call)) if event.event_id == id => {
                    Some(call.request_id.clone())
                }
                _ => None,
            });
        self.due.push(EventType::EntityOperationCompleted(
            EntityOperationCompletedEvent {
                request_id: request_id.expect("the call was made"),
                output: Payloads::default().encode(&output).unwrap(),
            },
        ));
        self
    }

    /// Grants the lock whose action has this id.
    pub(super) fn granted(mut self, id: i32) -> Self {
        let section = self
            .history
            .iter()
            .find_map(|event| match &event.event_type {
                Some(EventType::EntityLockRequested(lock)) if event.event_id == id => {
                    Some(lock.critical_section_id.clone())
                }
                _ => None,
            });
        self.due
            .push(EventType::EntityLockGranted(EntityLockGrantedEvent {
                critical_section_id: section.expect("the lock was asked for"),
            }));
        self
    }

    /// Runs an episode with everything that is due, each second one more.
    pub(super) fn go(&mut self) {
        self.try_to_go().expect("the code fits its history");
    }

    pub(super) fn then(mut self) -> Self {
        self.go();
        self
    }

    /// The same for code that may differ from its history.
    pub(super) fn try_to_go(&mut self) -> Result<(), Trouble> {
        self.seconds += 10;
        let started = EventType::OrchestratorStarted(OrchestratorStartedEvent {});
        let new: Vec<HistoryEvent> = std::iter::once(started)
            .chain(self.due.drain(..))
            .map(|kind| event(-1, self.seconds, kind))
            .collect();
        let rest = self.history.get(self.kept.seen()..).unwrap_or_default();
        let kept = self
            .kept
            .replay(rest)
            .and_then(|()| self.kept.episode(&new));
        let mut fresh = instance(&self.registry);
        let replayed = fresh
            .replay(&self.history)
            .and_then(|()| fresh.episode(&new));
        let (kept, replayed) = (kept?, replayed?);
        assert_eq!(kept.actions, replayed.actions, "kept against replayed");
        assert_eq!(kept.custom_status, replayed.custom_status);
        self.history.extend(new);
        for action in &kept.actions {
            if let Some(kind) = confirmation(action) {
                self.history.push(event(action.id, self.seconds, kind));
            }
        }
        self.answer = Some(kept);
        Ok(())
    }

    /// What the last episode asked for, one word each.
    pub(super) fn asked(&self) -> Vec<String> {
        let answer = self.answer.as_ref().expect("an episode was run");
        answer.actions.iter().map(word).collect()
    }

    pub(super) fn completion(&self) -> CompleteOrchestrationAction {
        let answer = self.answer.as_ref().expect("an episode was run");
        answer
            .actions
            .iter()
            .find_map(|action| match &action.orchestrator_action_type {
                Some(ActionType::CompleteOrchestration(completion)) => Some(completion.clone()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("it goes on: {:?}", self.asked()))
    }

    /// The output as JSON, once it completed.
    pub(super) fn output(&self) -> String {
        let completion = self.completion();
        assert_eq!(
            completion.orchestration_status(),
            OrchestrationStatus::Completed,
            "{completion:?}"
        );
        completion.result.unwrap_or_default()
    }

    /// Why it failed.
    pub(super) fn failure(&self) -> TaskFailureDetails {
        self.completion().failure_details.expect("it failed")
    }
}

fn instance(registry: &Arc<Registry>) -> Instance {
    Instance::new(Arc::clone(registry), Payloads::default())
}

fn event(id: i32, seconds: i64, kind: EventType) -> HistoryEvent {
    HistoryEvent {
        event_id: match kind {
            EventType::ExecutionStarted(_) => 0,
            _ => id,
        },
        timestamp: Some(Timestamp { seconds, nanos: 0 }),
        event_type: Some(kind),
    }
}

fn confirmation(action: &OrchestratorAction) -> Option<EventType> {
    Some(match action.orchestrator_action_type.clone()? {
        ActionType::ScheduleTask(a) => EventType::TaskScheduled(TaskScheduledEvent {
            name: a.name,
            input: a.input,
            ..Default::default()
        }),
        ActionType::CreateSubOrchestration(a) => {
            EventType::SubOrchestrationInstanceCreated(SubOrchestrationInstanceCreatedEvent {
                name: a.name,
                instance_id: a.instance_id,
                ..Default::default()
            })
        }
        ActionType::CreateTimer(a) => {
            EventType::TimerCreated(TimerCreatedEvent { fire_at: a.fire_at })
        }
        ActionType::SendEvent(a) => EventType::EventSent(EventSentEvent {
            instance_id: a.instance.unwrap().instance_id,
            name: a.name,
            input: a.data,
        }),
        ActionType::SendEntityMessage(a) => match a.entity_message_type? {
            EntityMessageType::EntityOperationSignaled(e) => EventType::EntityOperationSignaled(e),
            EntityMessageType::EntityOperationCalled(e) => EventType::EntityOperationCalled(e),
            EntityMessageType::EntityLockRequested(e) => EventType::EntityLockRequested(e),
            EntityMessageType::EntityUnlockSent(e) => EventType::EntityUnlockSent(e),
        },
        _ => return None,
    })
}

fn word(action: &OrchestratorAction) -> String {
    let id = action.id;
    match action.orchestrator_action_type.as_ref().unwrap() {
        ActionType::ScheduleTask(a) => format!("{id} activity {}", a.name),
        ActionType::CreateSubOrchestration(a) => format!("{id} child {}", a.name),
        ActionType::CreateTimer(a) => {
            format!("{id} timer {}", a.fire_at.as_ref().unwrap().seconds)
        }
        ActionType::SendEvent(a) => format!("{id} event {}", a.name),
        ActionType::SendEntityMessage(a) => match a.entity_message_type.as_ref().unwrap() {
            EntityMessageType::EntityOperationSignaled(e) => format!("{id} signal {}", e.operation),
            EntityMessageType::EntityOperationCalled(e) => format!("{id} call {}", e.operation),
            EntityMessageType::EntityLockRequested(e) => {
                format!("{id} lock {}", e.lock_set.join(" "))
            }
            EntityMessageType::EntityUnlockSent(e) => {
                format!("{id} unlock {}", e.target_instance_id.as_deref().unwrap())
            }
        },
        ActionType::CompleteOrchestration(a) => format!("{id} end {:?}", a.orchestration_status()),
        other => panic!("{other:?}"),
    }
}
