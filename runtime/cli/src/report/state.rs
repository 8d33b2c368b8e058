//! How an instance is shown.

use clap::ValueEnum;
use mainspring_proto::{OrchestrationState, OrchestrationStatus, TaskFailureDetails};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::table;

pub const HEADINGS: [&str; 5] = ["INSTANCE", "NAME", "STATUS", "CREATED", "UPDATED"];

const STATUS_PREFIX: &str = "ORCHESTRATION_STATUS_";

/// A status that an instance can have, as users type it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusName {
    Pending,
    Running,
    Suspended,
    Completed,
    Failed,
    Terminated,
    Canceled,
}

impl StatusName {
    /// The number on the wire.
    pub fn wire(self) -> i32 {
        let status = match self {
            StatusName::Pending => OrchestrationStatus::Pending,
            StatusName::Running => OrchestrationStatus::Running,
            StatusName::Suspended => OrchestrationStatus::Suspended,
            StatusName::Completed => OrchestrationStatus::Completed,
            StatusName::Failed => OrchestrationStatus::Failed,
            StatusName::Terminated => OrchestrationStatus::Terminated,
            StatusName::Canceled => OrchestrationStatus::Canceled,
        };
        i32::from(status)
    }
}

/// The status as it is printed, such as `RUNNING`.
pub fn status_name(status: i32) -> String {
    OrchestrationStatus::try_from(status).map_or_else(
        |_| status.to_string(),
        |status| {
            let name = status.as_str_name();
            name.strip_prefix(STATUS_PREFIX).unwrap_or(name).to_owned()
        },
    )
}

/// Whether an instance with this status has ended.
pub fn is_terminal(status: i32) -> bool {
    use OrchestrationStatus::{Canceled, Completed, Failed, Terminated};
    [Completed, Failed, Canceled, Terminated]
        .map(i32::from)
        .contains(&status)
}

/// One line of a list.
pub fn to_row(state: &OrchestrationState) -> [String; 5] {
    [
        state.instance_id.clone(),
        state.name.clone(),
        status_name(state.orchestration_status),
        seconds(state.created_timestamp.as_ref()),
        seconds(state.last_updated_timestamp.as_ref()),
    ]
}

/// Everything that is set, one field a line.
pub fn print(state: &OrchestrationState) {
    let mut fields = vec![
        ("instance", state.instance_id.clone()),
        ("name", state.name.clone()),
        ("status", status_name(state.orchestration_status)),
    ];
    let mut push = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    push("version", state.version.clone());
    push("generation", state.execution_id.clone());
    push("parent", state.parent_instance_id.clone());
    push(
        "scheduled",
        state.scheduled_start_timestamp.map(|time| time.to_string()),
    );
    push(
        "created",
        state.created_timestamp.map(|time| time.to_string()),
    );
    push(
        "updated",
        state.last_updated_timestamp.map(|time| time.to_string()),
    );
    push(
        "completed",
        state.completed_timestamp.map(|time| time.to_string()),
    );
    let tags: Vec<String> = state
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    push("tags", (!tags.is_empty()).then(|| tags.join(" ")));
    push("input", state.input.clone());
    push("output", state.output.clone());
    push("custom status", state.custom_status.clone());
    let failure = state.failure_details.as_ref();
    push(
        "failure",
        failure.map(|details| format!("{}: {}", details.error_type, details.error_message)),
    );
    table::print_fields(&fields);
}

/// Everything that is set, under the protocol's names.
pub fn to_json(state: &OrchestrationState) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("instanceId", json!(state.instance_id));
    set("name", json!(state.name));
    set(
        "orchestrationStatus",
        json!(status_name(state.orchestration_status)),
    );
    let texts = [
        ("version", &state.version),
        ("executionId", &state.execution_id),
        ("parentInstanceId", &state.parent_instance_id),
        ("input", &state.input),
        ("output", &state.output),
        ("customStatus", &state.custom_status),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            set(name, json!(text));
        }
    }
    let times = [
        ("scheduledStartTimestamp", &state.scheduled_start_timestamp),
        ("createdTimestamp", &state.created_timestamp),
        ("lastUpdatedTimestamp", &state.last_updated_timestamp),
        ("completedTimestamp", &state.completed_timestamp),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            set(name, json!(time.to_string()));
        }
    }
    if !state.tags.is_empty() {
        set("tags", json!(state.tags));
    }
    if let Some(details) = &state.failure_details {
        set("failureDetails", failure_to_json(details));
    }
    Value::Object(fields)
}

/// A failure with the failures that caused it.
pub fn failure_to_json(details: &TaskFailureDetails) -> Value {
    let mut fields = Map::new();
    fields.insert("errorType".to_owned(), json!(details.error_type));
    fields.insert("errorMessage".to_owned(), json!(details.error_message));
    if let Some(trace) = &details.stack_trace {
        fields.insert("stackTrace".to_owned(), json!(trace));
    }
    if details.is_non_retriable {
        fields.insert("isNonRetriable".to_owned(), json!(true));
    }
    if let Some(inner) = &details.inner_failure {
        fields.insert("innerFailure".to_owned(), failure_to_json(inner));
    }
    Value::Object(fields)
}

/// A time without its fraction: lists are read by people.
fn seconds(time: Option<&Timestamp>) -> String {
    time.map_or_else(String::new, |time| {
        Timestamp {
            seconds: time.seconds,
            nanos: 0,
        }
        .to_string()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn failed() -> OrchestrationState {
        OrchestrationState {
            instance_id: "order-17".to_owned(),
            name: "Order".to_owned(),
            orchestration_status: OrchestrationStatus::Failed.into(),
            created_timestamp: Some("2030-01-31T12:00:00.5Z".parse().unwrap()),
            input: Some(String::new()),
            failure_details: Some(TaskFailureDetails {
                error_type: "E".to_owned(),
                error_message: "outer".to_owned(),
                inner_failure: Some(Box::new(TaskFailureDetails {
                    error_message: "inner".to_owned(),
                    ..Default::default()
                })),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn json_holds_what_is_set_and_tells_empty_from_absent() {
        let json = to_json(&failed());
        assert_eq!(json["orchestrationStatus"], "FAILED");
        assert_eq!(json["input"], "");
        assert_eq!(json.get("output"), None);
        assert_eq!(json["createdTimestamp"], "2030-01-31T12:00:00.500Z");
        assert_eq!(
            json["failureDetails"]["innerFailure"]["errorMessage"],
            "inner"
        );
    }

    #[test]
    fn a_row_shows_whole_seconds() {
        let [id, name, status, created, updated] = to_row(&failed());
        assert_eq!(
            (id.as_str(), name.as_str(), status.as_str()),
            ("order-17", "Order", "FAILED")
        );
        assert_eq!(
            (created.as_str(), updated.as_str()),
            ("2030-01-31T12:00:00Z", "")
        );
    }

    #[test]
    fn every_status_has_its_wire_name_and_the_ended_ones_are_known() {
        for status in StatusName::value_variants() {
            let typed = status
                .to_possible_value()
                .unwrap()
                .get_name()
                .to_uppercase();
            assert_eq!(status_name(status.wire()), typed);
        }
        let ended: Vec<String> = (0..8)
            .filter(|n| is_terminal(*n))
            .map(status_name)
            .collect();
        assert_eq!(ended, ["COMPLETED", "FAILED", "CANCELED", "TERMINATED"]);
    }
}
