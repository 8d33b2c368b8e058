//! The orchestrators. Each decides from what its history says so far, and needs no more than counts and the last result.

use mainspring_proto::orchestrator_action::OrchestratorActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    CompleteOrchestrationAction, EntityOperationCalledEvent, OrchestrationStatus,
    OrchestratorAction, OrchestratorResponse, ScheduleTaskAction, SendEntityMessageAction,
};

use super::counter::{ADD, request_id};
use super::item::Turn;

/// Orchestrator of W1: this many activities, one after the other.
pub const CHAIN: &str = "chain";

/// Length of a chain.
pub const CHAIN_STEPS: usize = 5;

/// Orchestrator of W2: as many activities at once as its input says.
pub const FAN: &str = "fan";

/// Orchestrator of W3: adds one to the counter that its input names, and returns the counter's answer.
pub const ADD_BY_CALL: &str = "add";

/// The actions of a turn.
pub fn answer(turn: Turn, completion_token: String) -> OrchestratorResponse {
    let progress = Progress::of(&turn);
    let actions = match progress.name {
        CHAIN => chain(&progress),
        FAN => fan(&progress),
        ADD_BY_CALL => add_by_call(&progress),
        _ => vec![complete(1, "")],
    };
    OrchestratorResponse {
        actions,
        instance_id: turn.instance_id,
        completion_token,
        ..Default::default()
    }
}

/// What a history says so far.
struct Progress<'a> {
    name: &'a str,
    input: &'a str,
    scheduled: usize,
    completed: usize,
    last_result: &'a str,
    called: bool,
    answer: Option<&'a str>,
}

impl<'a> Progress<'a> {
    fn of(turn: &'a Turn) -> Self {
        let (past, new) = (&turn.past, &turn.new);
        let started = past.started.as_ref().or(new.started.as_ref());
        let last = new.completed.last().or(past.completed.last());
        let returned = past.returned.as_ref().or(new.returned.as_ref());
        Self {
            name: started.map_or("", |started| &started.name),
            input: started.map_or("", |started| text(&started.input)),
            scheduled: past.scheduled.len() + new.scheduled.len(),
            completed: past.completed.len() + new.completed.len(),
            last_result: last.map_or("", |completed| text(&completed.result)),
            called: !past.called.is_empty(),
            answer: returned.map(|completed| text(&completed.result)),
        }
    }
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn chain(progress: &Progress<'_>) -> Vec<OrchestratorAction> {
    let next = progress.scheduled + 1;
    if progress.completed == CHAIN_STEPS {
        vec![complete(next, progress.last_result)]
    } else if progress.completed < progress.scheduled {
        Vec::new()
    } else if progress.completed == 0 {
        vec![schedule(next, progress.input)]
    } else {
        vec![schedule(next, progress.last_result)]
    }
}

fn fan(progress: &Progress<'_>) -> Vec<OrchestratorAction> {
    let width = progress.input.parse().unwrap_or(0);
    if progress.completed == width {
        vec![complete(width + 1, progress.input)]
    } else if progress.scheduled == 0 {
        (1..=width)
            .map(|id| schedule(id, &format!("{{\"id\":{id}}}")))
            .collect()
    } else {
        Vec::new()
    }
}

fn add_by_call(progress: &Progress<'_>) -> Vec<OrchestratorAction> {
    match progress.answer {
        Some(answer) => vec![complete(2, answer)],
        None if progress.called => Vec::new(),
        None => vec![call(1, progress.input)],
    }
}

fn schedule(id: usize, input: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::ScheduleTask(ScheduleTaskAction {
            name: "echo".to_owned(),
            input: Some(input.to_owned()),
            ..Default::default()
        }),
    )
}

fn call(id: usize, counter: &str) -> OrchestratorAction {
    let called = EntityOperationCalledEvent {
        request_id: request_id(),
        operation: ADD.to_owned(),
        input: Some("1".to_owned()),
        target_instance_id: Some(counter.to_owned()),
        ..Default::default()
    };
    action(
        id,
        OrchestratorActionType::SendEntityMessage(SendEntityMessageAction {
            entity_message_type: Some(EntityMessageType::EntityOperationCalled(called)),
        }),
    )
}

fn complete(id: usize, result: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::CompleteOrchestration(CompleteOrchestrationAction {
            orchestration_status: OrchestrationStatus::Completed.into(),
            result: Some(result.to_owned()),
            ..Default::default()
        }),
    )
}

fn action(id: usize, kind: OrchestratorActionType) -> OrchestratorAction {
    OrchestratorAction {
        id: i32::try_from(id).unwrap_or(i32::MAX),
        orchestrator_action_type: Some(kind),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_proto::history_event::EventType;
    use mainspring_proto::work_item::Request;
    use mainspring_proto::{
        ExecutionStartedEvent, HistoryEvent, OrchestratorRequest, OrchestratorStartedEvent,
        TaskCompletedEvent, TaskScheduledEvent, WorkItem,
    };
    use prost::Message;

    use super::super::item::Item;
    use super::*;

    /// What `answer` says to an orchestrator's item as a server encodes it.
    fn check(past: &[EventType], new: &[EventType], expected: &[OrchestratorAction]) {
        let events = |kinds: &[EventType]| {
            let event = |kind: &EventType| HistoryEvent {
                event_id: -1,
                event_type: Some(kind.clone()),
                ..Default::default()
            };
            kinds.iter().map(event).collect()
        };
        let sent = WorkItem {
            completion_token: "token".to_owned(),
            request: Some(Request::OrchestratorRequest(OrchestratorRequest {
                instance_id: "one".to_owned(),
                past_events: events(past),
                new_events: events(new),
                ..Default::default()
            })),
        };
        let item = Item::decode(sent.encode_to_vec().as_slice()).unwrap();
        let response = answer(item.turn.unwrap(), item.completion_token);
        assert_eq!(response.actions, expected);
        assert_eq!(
            (&*response.instance_id, &*response.completion_token),
            ("one", "token")
        );
    }

    fn started(name: &str, input: &str) -> Vec<EventType> {
        vec![
            EventType::OrchestratorStarted(OrchestratorStartedEvent {}),
            EventType::ExecutionStarted(ExecutionStartedEvent {
                name: name.to_owned(),
                input: Some(input.to_owned()),
                ..Default::default()
            }),
        ]
    }

    fn scheduled() -> EventType {
        EventType::TaskScheduled(TaskScheduledEvent::default())
    }

    fn completed(result: &str) -> EventType {
        EventType::TaskCompleted(TaskCompletedEvent {
            result: Some(result.to_owned()),
            ..Default::default()
        })
    }

    #[test]
    fn a_chain_passes_each_result_on_and_returns_the_last() {
        let mut history = started(CHAIN, "0");
        check(&[], &history, &[schedule(1, "0")]);
        for step in 1..=CHAIN_STEPS {
            history.push(scheduled());
            check(&history, &[], &[]);
            let result = step.to_string();
            let next = if step < CHAIN_STEPS {
                schedule(step + 1, &result)
            } else {
                complete(step + 1, &result)
            };
            check(&history, &[completed(&result)], &[next]);
            history.push(completed(&result));
        }
    }

    #[test]
    fn a_fan_ends_when_every_activity_has_whatever_the_turns() {
        let mut history = started(FAN, "3");
        let all: Vec<_> = (1..=3)
            .map(|id| schedule(id, &format!("{{\"id\":{id}}}")))
            .collect();
        check(&[], &history, &all);
        history.extend([scheduled(), scheduled(), scheduled(), completed("a")]);
        check(&history, &[completed("b")], &[]);
        check(
            &history,
            &[completed("b"), completed("c")],
            &[complete(4, "3")],
        );
    }
}
