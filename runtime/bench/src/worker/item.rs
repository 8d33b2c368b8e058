//! What the worker reads of a work item: of the protocol's messages only the fields that decide an answer.
//!
//! All else is passed over without being copied. An orchestrator's history is not even kept as events: where a message
//! declares one field and receives it many times, protobuf merges the occurrences. Read as one [`Seen`], a history folds
//! itself into what replay would find out.

use mainspring_proto::{ActivityResponse, OrchestrationInstance};
use prost::Message;

/// `WorkItem`; a health ping has none of the three.
#[derive(Clone, PartialEq, Message)]
pub struct Item {
    #[prost(message, optional, tag = "1")]
    pub turn: Option<Turn>,
    #[prost(message, optional, tag = "2")]
    pub activity: Option<Activity>,
    #[prost(message, optional, tag = "5")]
    pub batch: Option<Batch>,
    #[prost(string, tag = "10")]
    pub completion_token: String,
}

/// `OrchestratorRequest`
#[derive(Clone, PartialEq, Message)]
pub struct Turn {
    #[prost(string, tag = "1")]
    pub instance_id: String,
    /// All of `pastEvents`.
    #[prost(message, required, tag = "3")]
    pub past: Seen,
    /// All of `newEvents`.
    #[prost(message, required, tag = "4")]
    pub new: Seen,
}

/// Any number of `HistoryEvent`s. Each kind of event is a field of its own, of which the repeated ones count.
#[derive(Clone, PartialEq, Message)]
pub struct Seen {
    #[prost(message, optional, tag = "3")]
    pub started: Option<Started>,
    #[prost(message, repeated, tag = "6")]
    pub scheduled: Vec<()>,
    #[prost(message, repeated, tag = "7")]
    pub completed: Vec<Completed>,
    #[prost(message, repeated, tag = "24")]
    pub called: Vec<()>,
    #[prost(message, optional, tag = "25")]
    pub returned: Option<Completed>,
}

/// `ExecutionStartedEvent`
#[derive(Clone, PartialEq, Message)]
pub struct Started {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub input: Option<String>,
}

/// `TaskCompletedEvent` and `EntityOperationCompletedEvent`
#[derive(Clone, PartialEq, Message)]
pub struct Completed {
    #[prost(message, optional, tag = "2")]
    pub result: Option<String>,
}

/// `ActivityRequest`
#[derive(Clone, PartialEq, Message)]
pub struct Activity {
    #[prost(message, optional, tag = "3")]
    pub input: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub orchestration: Option<OrchestrationInstance>,
    #[prost(int32, tag = "5")]
    pub task_id: i32,
}

/// `EntityRequest`
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    #[prost(message, optional, tag = "3")]
    pub state: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub operations: Vec<Operation>,
}

/// One `HistoryEvent` of a batch: a signal or a call.
#[derive(Clone, PartialEq, Message)]
pub struct Operation {
    #[prost(message, optional, tag = "23")]
    pub signal: Option<Signal>,
    #[prost(message, optional, tag = "24")]
    pub call: Option<Call>,
}

/// `EntityOperationSignaledEvent`
#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(message, optional, tag = "4")]
    pub input: Option<String>,
}

/// `EntityOperationCalledEvent`
#[derive(Clone, PartialEq, Message)]
pub struct Call {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(message, optional, tag = "4")]
    pub input: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub caller_instance_id: Option<String>,
    #[prost(message, optional, tag = "6")]
    pub caller_execution_id: Option<String>,
}

impl Activity {
    /// The one activity of all workloads: it returns its input.
    pub fn echo(self, completion_token: String) -> ActivityResponse {
        ActivityResponse {
            instance_id: self
                .orchestration
                .map(|orchestration| orchestration.instance_id)
                .unwrap_or_default(),
            task_id: self.task_id,
            result: self.input,
            completion_token,
            ..Default::default()
        }
    }
}
