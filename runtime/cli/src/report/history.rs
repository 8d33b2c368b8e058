//! How a history event is shown.

use std::collections::BTreeMap;

use mainspring_proto::history_event::EventType;
use mainspring_proto::{HistoryEvent, TaskFailureDetails, TraceContext};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::state::{failure_to_json, status_name, to_json as state_to_json};

pub const HEADINGS: [&str; 4] = ["ID", "TIME", "EVENT", "DETAILS"];

/// One line of a history; the details are what the event says beyond its kind.
pub fn to_row(event: &HistoryEvent) -> [String; 4] {
    let (kind, fields) = describe(event);
    let details: Vec<String> = fields
        .0
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    [
        event.event_id.to_string(),
        event
            .timestamp
            .map_or_else(String::new, |time| time.to_string()),
        kind.to_owned(),
        details.join(" "),
    ]
}

/// The event with its kind in `type` and everything that is set, under the protocol's names.
pub fn to_json(event: &HistoryEvent) -> Value {
    let (kind, fields) = describe(event);
    let mut object = Map::from_iter(
        fields
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    object.insert("eventId".to_owned(), json!(event.event_id));
    object.insert("type".to_owned(), json!(kind));
    if let Some(time) = event.timestamp {
        object.insert("timestamp".to_owned(), json!(time.to_string()));
    }
    Value::Object(object)
}

/// Fields in the order in which the protocol numbers them; what is not set is left out.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn text(mut self, name: &'static str, text: &str) -> Self {
        self.0.push((name, json!(text)));
        self
    }

    fn optional(mut self, name: &'static str, text: &Option<String>) -> Self {
        self.0.extend(text.as_ref().map(|text| (name, json!(text))));
        self
    }

    fn number(mut self, name: &'static str, number: i32) -> Self {
        self.0.push((name, json!(number)));
        self
    }

    fn time(mut self, name: &'static str, time: Option<Timestamp>) -> Self {
        self.0
            .extend(time.map(|time| (name, json!(time.to_string()))));
        self
    }

    fn failure(mut self, details: Option<&TaskFailureDetails>) -> Self {
        self.0
            .extend(details.map(|details| ("failureDetails", failure_to_json(details))));
        self
    }

    fn tags(mut self, tags: &BTreeMap<String, String>) -> Self {
        self.0
            .extend((!tags.is_empty()).then(|| ("tags", json!(tags))));
        self
    }

    fn trace(mut self, context: &Option<TraceContext>) -> Self {
        self.0.extend(
            context
                .as_ref()
                .map(|context| ("traceParent", json!(context.trace_parent))),
        );
        self
    }

    fn status(mut self, status: i32) -> Self {
        self.0
            .push(("orchestrationStatus", json!(status_name(status))));
        self
    }
}

fn describe(event: &HistoryEvent) -> (&'static str, Fields) {
    let fields = Fields::default();
    let Some(kind) = &event.event_type else {
        return ("Unknown", fields);
    };
    match kind {
        EventType::ExecutionStarted(started) => {
            let instance = started.orchestration_instance.as_ref();
            let parent = started.parent_instance.as_ref();
            let parent_instance = parent.and_then(|parent| parent.orchestration_instance.as_ref());
            let fields = fields
                .text("name", &started.name)
                .optional("version", &started.version)
                .optional("input", &started.input)
                .optional(
                    "executionId",
                    &instance.and_then(|instance| instance.execution_id.clone()),
                )
                .optional(
                    "parentInstanceId",
                    &parent_instance.map(|parent| parent.instance_id.clone()),
                )
                .time("scheduledStartTimestamp", started.scheduled_start_timestamp)
                .trace(&started.parent_trace_context)
                .tags(&started.tags);
            ("ExecutionStarted", fields)
        }
        EventType::ExecutionCompleted(completed) => (
            "ExecutionCompleted",
            fields
                .status(completed.orchestration_status)
                .optional("result", &completed.result)
                .failure(completed.failure_details.as_ref()),
        ),
        EventType::ExecutionTerminated(terminated) => {
            let mut fields = fields.optional("input", &terminated.input);
            fields.0.push(("recurse", json!(terminated.recurse)));
            ("ExecutionTerminated", fields)
        }
        EventType::TaskScheduled(task) => (
            "TaskScheduled",
            fields
                .text("name", &task.name)
                .optional("version", &task.version)
                .optional("input", &task.input)
                .trace(&task.parent_trace_context)
                .tags(&task.tags),
        ),
        EventType::TaskCompleted(task) => (
            "TaskCompleted",
            fields
                .number("taskScheduledId", task.task_scheduled_id)
                .optional("result", &task.result),
        ),
        EventType::TaskFailed(task) => (
            "TaskFailed",
            fields
                .number("taskScheduledId", task.task_scheduled_id)
                .failure(task.failure_details.as_ref()),
        ),
        EventType::SubOrchestrationInstanceCreated(child) => (
            "SubOrchestrationInstanceCreated",
            fields
                .text("instanceId", &child.instance_id)
                .text("name", &child.name)
                .optional("version", &child.version)
                .optional("input", &child.input)
                .trace(&child.parent_trace_context)
                .tags(&child.tags),
        ),
        EventType::SubOrchestrationInstanceCompleted(child) => (
            "SubOrchestrationInstanceCompleted",
            fields
                .number("taskScheduledId", child.task_scheduled_id)
                .optional("result", &child.result),
        ),
        EventType::SubOrchestrationInstanceFailed(child) => (
            "SubOrchestrationInstanceFailed",
            fields
                .number("taskScheduledId", child.task_scheduled_id)
                .failure(child.failure_details.as_ref()),
        ),
        EventType::TimerCreated(timer) => ("TimerCreated", fields.time("fireAt", timer.fire_at)),
        EventType::TimerFired(timer) => (
            "TimerFired",
            fields
                .time("fireAt", timer.fire_at)
                .number("timerId", timer.timer_id),
        ),
        EventType::OrchestratorStarted(_) => ("OrchestratorStarted", fields),
        EventType::OrchestratorCompleted(_) => ("OrchestratorCompleted", fields),
        EventType::EventSent(sent) => (
            "EventSent",
            fields
                .text("instanceId", &sent.instance_id)
                .text("name", &sent.name)
                .optional("input", &sent.input),
        ),
        EventType::EventRaised(raised) => (
            "EventRaised",
            fields
                .text("name", &raised.name)
                .optional("input", &raised.input),
        ),
        EventType::GenericEvent(generic) => {
            ("GenericEvent", fields.optional("data", &generic.data))
        }
        EventType::HistoryState(history) => {
            let mut fields = fields;
            fields.0.extend(
                history
                    .orchestration_state
                    .as_ref()
                    .map(|state| ("orchestrationState", state_to_json(state))),
            );
            ("HistoryState", fields)
        }
        EventType::ContinueAsNew(next) => ("ContinueAsNew", fields.optional("input", &next.input)),
        EventType::ExecutionSuspended(suspended) => (
            "ExecutionSuspended",
            fields.optional("input", &suspended.input),
        ),
        EventType::ExecutionResumed(resumed) => {
            ("ExecutionResumed", fields.optional("input", &resumed.input))
        }
        EventType::ExecutionRewound(rewound) => (
            "ExecutionRewound",
            fields
                .optional("reason", &rewound.reason)
                .optional("parentExecutionId", &rewound.parent_execution_id)
                .optional("instanceId", &rewound.instance_id),
        ),
        entity => describe_entity_event(entity),
    }
}

/// What an orchestration's history says about entities.
fn describe_entity_event(kind: &EventType) -> (&'static str, Fields) {
    let fields = Fields::default();
    match kind {
        EventType::EntityOperationSignaled(signal) => (
            "EntityOperationSignaled",
            fields
                .text("requestId", &signal.request_id)
                .text("operation", &signal.operation)
                .time("scheduledTime", signal.scheduled_time)
                .optional("input", &signal.input)
                .optional("targetInstanceId", &signal.target_instance_id),
        ),
        EventType::EntityOperationCalled(call) => (
            "EntityOperationCalled",
            fields
                .text("requestId", &call.request_id)
                .text("operation", &call.operation)
                .time("scheduledTime", call.scheduled_time)
                .optional("input", &call.input)
                .optional("targetInstanceId", &call.target_instance_id),
        ),
        EventType::EntityOperationCompleted(completed) => (
            "EntityOperationCompleted",
            fields
                .text("requestId", &completed.request_id)
                .optional("output", &completed.output),
        ),
        EventType::EntityOperationFailed(failed) => (
            "EntityOperationFailed",
            fields
                .text("requestId", &failed.request_id)
                .failure(failed.failure_details.as_ref()),
        ),
        EventType::EntityLockRequested(lock) => {
            let mut fields = fields.text("criticalSectionId", &lock.critical_section_id);
            fields.0.push(("lockSet", json!(lock.lock_set)));
            ("EntityLockRequested", fields)
        }
        EventType::EntityLockGranted(lock) => (
            "EntityLockGranted",
            fields.text("criticalSectionId", &lock.critical_section_id),
        ),
        EventType::EntityUnlockSent(unlock) => (
            "EntityUnlockSent",
            fields
                .text("criticalSectionId", &unlock.critical_section_id)
                .optional("targetInstanceId", &unlock.target_instance_id),
        ),
        _ => ("Unknown", fields),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_proto::{ExecutionCompletedEvent, OrchestrationStatus, TaskScheduledEvent};

    use super::*;

    fn event(id: i32, kind: EventType) -> HistoryEvent {
        HistoryEvent {
            event_id: id,
            timestamp: Some("2030-01-31T12:00:00Z".parse().unwrap()),
            event_type: Some(kind),
        }
    }

    #[test]
    fn a_row_tells_what_the_event_says() {
        let scheduled = event(
            1,
            EventType::TaskScheduled(TaskScheduledEvent {
                name: "charge".to_owned(),
                input: Some("\"17\"".to_owned()),
                ..Default::default()
            }),
        );
        assert_eq!(
            to_row(&scheduled),
            [
                "1",
                "2030-01-31T12:00:00Z",
                "TaskScheduled",
                "name=charge input=\"17\""
            ],
        );
    }

    #[test]
    fn json_names_the_kind_and_leaves_out_what_is_not_set() {
        let completed = event(
            2,
            EventType::ExecutionCompleted(ExecutionCompletedEvent {
                orchestration_status: OrchestrationStatus::Completed.into(),
                ..Default::default()
            }),
        );
        assert_eq!(
            to_json(&completed),
            json!({
                "eventId": 2,
                "timestamp": "2030-01-31T12:00:00Z",
                "type": "ExecutionCompleted",
                "orchestrationStatus": "COMPLETED",
            }),
        );
    }
}
