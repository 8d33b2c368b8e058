//! Events, and the scheduler's own failures, as the protocol's bytes.

use bytes::Bytes;

use super::writer::Writer;
use crate::history::{
    ChildCreated, EncodedEvent, EventKind, ExecutionRewound, ExecutionStarted, HistoryEvent,
    OtherKind, ParentInstance, TaskScheduled,
};
use crate::message::FailureDetails;
use crate::orchestration::Status;

/// Numbers of the `eventType` fields in `HistoryEvent`.
pub(super) mod field {
    pub(in crate::wire) const EXECUTION_STARTED: u32 = 3;
    pub(in crate::wire) const EXECUTION_COMPLETED: u32 = 4;
    pub(in crate::wire) const EXECUTION_TERMINATED: u32 = 5;
    pub(in crate::wire) const TASK_SCHEDULED: u32 = 6;
    pub(in crate::wire) const TASK_COMPLETED: u32 = 7;
    pub(in crate::wire) const TASK_FAILED: u32 = 8;
    pub(in crate::wire) const CHILD_CREATED: u32 = 9;
    pub(in crate::wire) const CHILD_COMPLETED: u32 = 10;
    pub(in crate::wire) const CHILD_FAILED: u32 = 11;
    pub(in crate::wire) const TIMER_CREATED: u32 = 12;
    pub(in crate::wire) const TIMER_FIRED: u32 = 13;
    pub(in crate::wire) const ORCHESTRATOR_STARTED: u32 = 14;
    pub(in crate::wire) const EVENT_SENT: u32 = 16;
    pub(in crate::wire) const EVENT_RAISED: u32 = 17;
    pub(in crate::wire) const EXECUTION_SUSPENDED: u32 = 21;
    pub(in crate::wire) const EXECUTION_RESUMED: u32 = 22;
    pub(in crate::wire) const EXECUTION_REWOUND: u32 = 30;
}

pub(super) fn other_field(kind: OtherKind) -> u32 {
    match kind {
        OtherKind::OrchestratorCompleted => 15,
        OtherKind::Generic => 18,
        OtherKind::HistoryState => 19,
        OtherKind::ContinueAsNew => 20,
        OtherKind::EntityOperationSignaled => 23,
        OtherKind::EntityOperationCalled => 24,
        OtherKind::EntityOperationCompleted => 25,
        OtherKind::EntityOperationFailed => 26,
        OtherKind::EntityLockRequested => 27,
        OtherKind::EntityLockGranted => 28,
        OtherKind::EntityUnlockSent => 29,
    }
}

/// The protocol's number of a status (S-2.1).
pub(super) fn status_number(status: Status) -> i32 {
    match status {
        Status::Running => 0,
        Status::Completed => 1,
        Status::Failed => 3,
        Status::Canceled => 4,
        Status::Terminated => 5,
        Status::Pending => 6,
        Status::Suspended => 7,
    }
}

/// Encodes an event, byte for byte as the ordinary encoding does. Its time is always written.
pub fn encode(event: &HistoryEvent) -> EncodedEvent {
    let mut writer = Writer::with_capacity(128);
    writer.int32(1, event.id);
    writer.timestamp(2, event.at);
    write_kind(&mut writer, &event.kind);
    EncodedEvent::from_encoded(writer.finish())
}

fn write_kind(writer: &mut Writer, kind: &EventKind) {
    match kind {
        EventKind::OrchestratorStarted => writer.message(field::ORCHESTRATOR_STARTED, |_| {}),
        EventKind::ExecutionStarted(started) => writer
            .message(field::EXECUTION_STARTED, |writer| {
                execution_started(writer, started)
            }),
        EventKind::ExecutionCompleted {
            status,
            result,
            failure,
        } => writer.message(field::EXECUTION_COMPLETED, |writer| {
            writer.int32(1, status_number(*status));
            writer.text(2, result.as_deref());
            write_failure(writer, 3, failure.as_ref());
        }),
        EventKind::ExecutionTerminated { input, recurse } => {
            writer.message(field::EXECUTION_TERMINATED, |writer| {
                writer.text(1, input.as_deref());
                writer.bool(2, *recurse);
            })
        }
        EventKind::ExecutionSuspended { input } => writer
            .message(field::EXECUTION_SUSPENDED, |writer| {
                writer.text(1, input.as_deref())
            }),
        EventKind::ExecutionResumed { input } => writer
            .message(field::EXECUTION_RESUMED, |writer| {
                writer.text(1, input.as_deref())
            }),
        EventKind::ExecutionRewound(rewound) => writer
            .message(field::EXECUTION_REWOUND, |writer| {
                execution_rewound(writer, rewound)
            }),
        EventKind::TaskScheduled(task) => {
            writer.message(field::TASK_SCHEDULED, |writer| task_scheduled(writer, task))
        }
        EventKind::TaskCompleted { task_id, result } => {
            completed(writer, field::TASK_COMPLETED, *task_id, result.as_deref());
        }
        EventKind::TaskFailed { task_id, failure } => {
            failed(writer, field::TASK_FAILED, *task_id, failure.as_ref());
        }
        EventKind::ChildCreated(child) => {
            writer.message(field::CHILD_CREATED, |writer| child_created(writer, child))
        }
        EventKind::ChildCompleted { task_id, result } => {
            completed(writer, field::CHILD_COMPLETED, *task_id, result.as_deref());
        }
        EventKind::ChildFailed { task_id, failure } => {
            failed(writer, field::CHILD_FAILED, *task_id, failure.as_ref());
        }
        EventKind::TimerCreated { fire_at } => {
            writer.message(field::TIMER_CREATED, |writer| writer.timestamp(1, *fire_at));
        }
        EventKind::TimerFired { fire_at, timer_id } => {
            writer.message(field::TIMER_FIRED, |writer| {
                writer.timestamp(1, *fire_at);
                writer.int32(2, *timer_id);
            })
        }
        EventKind::EventSent {
            instance,
            name,
            input,
        } => writer.message(field::EVENT_SENT, |writer| {
            writer.string(1, instance);
            writer.string(2, name);
            writer.text(3, input.as_deref());
        }),
        EventKind::EventRaised { name, input } => writer.message(field::EVENT_RAISED, |writer| {
            writer.string(1, name);
            writer.text(2, input.as_deref());
        }),
        EventKind::Other(other) => writer.body(other_field(other.kind), &other.body),
    }
}

fn completed(writer: &mut Writer, field: u32, task_id: i32, result: Option<&str>) {
    writer.message(field, |writer| {
        writer.int32(1, task_id);
        writer.text(2, result);
    });
}

fn failed(writer: &mut Writer, field: u32, task_id: i32, failure: Option<&FailureDetails>) {
    writer.message(field, |writer| {
        writer.int32(1, task_id);
        write_failure(writer, 2, failure);
    });
}

fn write_failure(writer: &mut Writer, field: u32, failure: Option<&FailureDetails>) {
    if let Some(failure) = failure {
        writer.body(field, failure.encoded());
    }
}

fn execution_started(writer: &mut Writer, started: &ExecutionStarted) {
    writer.string(1, &started.name);
    writer.text(2, started.version.as_deref());
    writer.text(3, started.input.as_deref());
    let execution_id = Some(started.execution_id.as_str());
    writer.instance(4, started.instance.as_str(), execution_id);
    parent(writer, 5, started.parent.as_ref());
    if let Some(time) = started.scheduled_start_at {
        writer.timestamp(6, time);
    }
    writer.trace(7, started.trace.as_ref());
    // Field 8, orchestrationSpanID, belongs to an older scheme and stays unset (S-15.5).
    writer.tags(9, &started.tags);
}

fn parent(writer: &mut Writer, field: u32, parent: Option<&ParentInstance>) {
    let Some(parent) = parent else { return };
    writer.message(field, |writer| {
        writer.int32(1, parent.task_id);
        writer.text(2, parent.name.as_deref());
        writer.text(3, parent.version.as_deref());
        let execution_id = parent.execution_id.as_ref().map(|id| id.as_str());
        writer.instance(4, parent.instance.as_str(), execution_id);
    });
}

fn execution_rewound(writer: &mut Writer, rewound: &ExecutionRewound) {
    writer.text(1, rewound.reason.as_deref());
    writer.text(2, rewound.parent_execution_id.as_deref());
    writer.text(3, rewound.instance.as_deref());
    writer.trace(4, rewound.trace.as_ref());
    writer.text(5, rewound.name.as_deref());
    writer.text(6, rewound.version.as_deref());
    writer.text(7, rewound.input.as_deref());
    parent(writer, 8, rewound.parent.as_ref());
    writer.tags(9, &rewound.tags);
}

fn task_scheduled(writer: &mut Writer, task: &TaskScheduled) {
    writer.string(1, &task.name);
    writer.text(2, task.version.as_deref());
    writer.text(3, task.input.as_deref());
    writer.trace(4, task.trace.as_ref());
    writer.tags(5, &task.tags);
}

fn child_created(writer: &mut Writer, child: &ChildCreated) {
    writer.string(1, &child.instance);
    writer.string(2, &child.name);
    writer.text(3, child.version.as_deref());
    writer.text(4, child.input.as_deref());
    writer.trace(5, child.trace.as_ref());
    writer.tags(6, &child.tags);
}

/// Encodes a `TaskFailureDetails` without stack trace, inner failure or properties.
pub fn failure_details(error_type: &str, message: &str, is_non_retriable: bool) -> Bytes {
    let mut writer = Writer::with_capacity(error_type.len() + message.len() + 16);
    writer.string(1, error_type);
    writer.string(2, message);
    writer.bool(5, is_non_retriable);
    writer.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message as _;

    use super::*;
    use crate::time::Timestamp;
    use crate::wire::fixtures::every_pair;

    /// The protocol's own encoding is the measure, byte for byte.
    #[test]
    fn every_event_is_encoded_as_the_protocol_encodes_it() {
        for (event, wire) in every_pair() {
            let encoded = encode(&event);
            assert!(
                encoded.bytes() == &wire.encode_to_vec(),
                "{event:?}\n{encoded:?}\n{wire:?}"
            );
            assert_eq!(encoded.len(), wire.encoded_len());
        }
    }

    /// The wire-contract's list of event types, so that none is missing here.
    #[test]
    fn every_event_type_of_the_protocol_is_covered() {
        let mut fields: Vec<u32> = every_pair()
            .iter()
            .map(|(event, _)| crate::wire::decode::body_field(encode(event).bytes()).unwrap())
            .collect();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields, (3..=30).collect::<Vec<u32>>());
    }

    /// S-3.10: an unset time crashes .NET, and the epoch's fields are all zero.
    #[test]
    fn the_time_of_an_event_is_written_even_at_the_epoch() {
        let event = HistoryEvent {
            id: -1,
            at: Timestamp::new(0, 0),
            kind: EventKind::OrchestratorStarted,
        };
        let wire = mainspring_proto::HistoryEvent::decode(encode(&event).bytes().clone()).unwrap();
        assert_eq!(wire.timestamp, Some(prost_types::Timestamp::default()));
        assert_eq!(wire.event_id, -1);
    }

    /// S-4.14: bytes that are not even protobuf are handed on.
    #[test]
    fn failure_details_are_embedded_byte_for_byte() {
        let odd = Bytes::from_static(b"\xff\xff not protobuf");
        let event = HistoryEvent {
            id: -1,
            at: Timestamp::MIN,
            kind: EventKind::ChildFailed {
                task_id: 1,
                failure: Some(FailureDetails::from_encoded(odd.clone())),
            },
        };
        let encoded = encode(&event);
        assert!(encoded.bytes().ends_with(&odd));
        assert_eq!(crate::wire::decode(encoded.bytes()).unwrap(), event);
    }

    /// S-7.10.
    #[test]
    fn own_failures_are_ordinary_failure_details() {
        let wire = mainspring_proto::TaskFailureDetails {
            error_type: "PayloadTooLarge".into(),
            error_message: "2 of 1 bytes".into(),
            is_non_retriable: true,
            ..Default::default()
        };
        let own = failure_details("PayloadTooLarge", "2 of 1 bytes", true);
        assert_eq!(own, wire.encode_to_vec());
        assert!(failure_details("", "", false).is_empty());
    }
}
