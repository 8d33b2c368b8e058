//! Entities on the wire: what orchestrators ask of them, their batches and what workers answer.

use bytes::Bytes;
use mainspring_proto as proto;
use prost::Message as _;
use proto::operation_action::OperationActionType;
use proto::operation_result::ResultType;

use super::encode::other_field;
use super::request::{failure, timestamp, trace};
use super::writer::Writer;
use crate::entity::{
    Asked, BatchResult, EntityEvent, Operation, OperationAction, OperationOutcome, Sender,
};
use crate::history::{INBOUND_ID, OtherEvent, OtherKind};
use crate::id::InstanceId;
use crate::message::FailureDetails;

// Field numbers of `WorkItem`.
const ENTITY_REQUEST_V2: u32 = 5;
const COMPLETION_TOKEN: u32 = 10;

/// What an event says of an entity; `None` for other kinds, and for bytes that cannot be read.
pub fn entity_event(event: &OtherEvent) -> Option<EntityEvent> {
    let body = event.body.clone();
    Some(match event.kind {
        OtherKind::EntityOperationSignaled => {
            let event = proto::EntityOperationSignaledEvent::decode(body).ok()?;
            EntityEvent::Signaled(Asked {
                target: event.target_instance_id.unwrap_or_default(),
                request_id: event.request_id,
                name: event.operation,
                input: event.input,
                scheduled_at: event.scheduled_time.map(timestamp),
            })
        }
        OtherKind::EntityOperationCalled => {
            let event = proto::EntityOperationCalledEvent::decode(body).ok()?;
            EntityEvent::Called(Asked {
                target: event.target_instance_id.unwrap_or_default(),
                request_id: event.request_id,
                name: event.operation,
                input: event.input,
                scheduled_at: event.scheduled_time.map(timestamp),
            })
        }
        OtherKind::EntityOperationCompleted => EntityEvent::Completed {
            request_id: proto::EntityOperationCompletedEvent::decode(body)
                .ok()?
                .request_id,
        },
        OtherKind::EntityOperationFailed => EntityEvent::Failed {
            request_id: request_id(&body)?,
        },
        OtherKind::EntityLockRequested => {
            let event = proto::EntityLockRequestedEvent::decode(body).ok()?;
            EntityEvent::LockRequested {
                critical_section: event.critical_section_id,
                lock_set: event.lock_set,
            }
        }
        OtherKind::EntityLockGranted => EntityEvent::LockGranted {
            critical_section: proto::EntityLockGrantedEvent::decode(body)
                .ok()?
                .critical_section_id,
        },
        OtherKind::EntityUnlockSent => {
            let event = proto::EntityUnlockSentEvent::decode(body).ok()?;
            EntityEvent::UnlockSent {
                critical_section: event.critical_section_id,
                target: event.target_instance_id.unwrap_or_default(),
            }
        }
        OtherKind::OrchestratorCompleted
        | OtherKind::Generic
        | OtherKind::HistoryState
        | OtherKind::ContinueAsNew => return None,
    })
}

/// Field 1 alone: inner failures may be nested deeper than the ordinary decoding goes.
fn request_id(body: &[u8]) -> Option<String> {
    let mut found = String::new();
    super::reader::each(body, |field, value| {
        if field == 1 {
            found = value.string()?;
        }
        Ok(())
    })
    .ok()?;
    Some(found)
}

/// The event of a call's result.
pub fn operation_completed(request_id: &str, result: Option<&str>) -> OtherEvent {
    let mut writer = Writer::default();
    writer.string(1, request_id);
    writer.text(2, result);
    OtherEvent {
        kind: OtherKind::EntityOperationCompleted,
        body: writer.finish(),
    }
}

/// The event of a call's failure.
pub fn operation_failed(request_id: &str, failure: &FailureDetails) -> OtherEvent {
    let mut writer = Writer::default();
    writer.string(1, request_id);
    writer.body(2, failure.encoded());
    OtherEvent {
        kind: OtherKind::EntityOperationFailed,
        body: writer.finish(),
    }
}

/// The event of a critical section that is entered.
pub fn lock_granted(critical_section: &str) -> OtherEvent {
    let mut writer = Writer::default();
    writer.string(1, critical_section);
    OtherEvent {
        kind: OtherKind::EntityLockGranted,
        body: writer.finish(),
    }
}

/// A batch of operations for an entity (S-12.9). Calls carry their caller; every request id is a GUID.
pub fn entity_work_item<'a>(
    entity: &InstanceId,
    execution_id: &str,
    state: Option<&str>,
    operations: impl Iterator<Item = &'a Operation>,
    token: &str,
) -> Vec<Bytes> {
    let bytes = state.map_or(0, str::len) + token.len() + 256;
    let mut writer = Writer::with_capacity(bytes);
    writer.message(ENTITY_REQUEST_V2, |writer| {
        writer.string(1, entity.as_str());
        writer.string(2, execution_id);
        writer.text(3, state);
        for operation in operations {
            writer.message(4, |writer| write_operation(writer, entity, operation));
        }
    });
    writer.string(COMPLETION_TOKEN, token);
    vec![writer.finish()]
}

/// About how many bytes an operation takes in a work item, and never fewer.
pub fn operation_bytes(entity: &InstanceId, operation: &Operation) -> usize {
    let caller = operation.sender.generation().map_or(0, |generation| {
        generation.instance.as_str().len() + generation.execution_id.as_str().len()
    });
    96 + entity.as_str().len() + 36 + operation.bytes() + caller
}

fn write_operation(writer: &mut Writer, entity: &InstanceId, operation: &Operation) {
    writer.int32(1, INBOUND_ID);
    writer.timestamp(2, operation.at);
    let kind = match operation.sender {
        Sender::Call { .. } => OtherKind::EntityOperationCalled,
        _ => OtherKind::EntityOperationSignaled,
    };
    writer.message(other_field(kind), |writer| {
        writer.string(1, operation.shown_request_id());
        writer.string(2, &operation.name);
        writer.text(4, operation.input.as_deref());
        match &operation.sender {
            Sender::Call { caller, .. } => {
                writer.text(5, Some(caller.instance.as_str()));
                writer.text(6, Some(caller.execution_id.as_str()));
                writer.text(7, Some(entity.as_str()));
            }
            _ => writer.text(5, Some(entity.as_str())),
        }
    });
}

/// A worker's answer. Results without a type count as failures: nobody may wait for ever.
pub fn batch_result(result: proto::EntityBatchResult) -> BatchResult {
    BatchResult {
        outcomes: result.results.into_iter().map(outcome).collect(),
        actions: result.actions.into_iter().filter_map(action).collect(),
        state: result.entity_state,
        failure: result.failure_details.map(failure),
        requires_state: result.requires_state,
    }
}

fn outcome(result: proto::OperationResult) -> OperationOutcome {
    match result.result_type {
        Some(ResultType::Success(success)) => OperationOutcome::Success(success.result),
        Some(ResultType::Failure(failed)) => OperationOutcome::Failure(
            failed
                .failure_details
                .map_or_else(|| unknown("without details"), failure),
        ),
        None => OperationOutcome::Failure(unknown("without a result")),
    }
}

fn unknown(what: &str) -> FailureDetails {
    let message = format!("the worker answered the operation {what}");
    FailureDetails::new("EntityOperationFailed", &message, false)
}

fn action(action: proto::OperationAction) -> Option<OperationAction> {
    Some(match action.operation_action_type? {
        OperationActionType::SendSignal(signal) => OperationAction::SendSignal {
            target: signal.instance_id,
            name: signal.name,
            input: signal.input,
            scheduled_at: signal.scheduled_time.map(timestamp),
        },
        OperationActionType::StartNewOrchestration(start) => OperationAction::StartOrchestration {
            instance: start.instance_id,
            name: start.name,
            version: start.version,
            input: start.input,
            scheduled_at: start.scheduled_time.map(timestamp),
            trace: start.parent_trace_context.map(trace),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proto::history_event::EventType;
    use proto::work_item::Request;

    use super::*;
    use crate::entity::Generation;
    use crate::id::ExecutionId;
    use crate::time::Timestamp;

    fn operation(sender: Sender, input: Option<&str>) -> Operation {
        Operation {
            request_id: "call 1".into(),
            worker_request_id: Some("00000000-0000-0000-0000-000000000001".into()),
            name: "add".into(),
            input: input.map(str::to_owned),
            sender,
            scheduled_at: None,
            at: Timestamp::new(5, 6),
        }
    }

    fn caller() -> Generation {
        Generation {
            instance: InstanceId::from_stored("parent"),
            execution_id: ExecutionId::from_stored("e1"),
        }
    }

    fn entity() -> InstanceId {
        InstanceId::parse_entity("@counter@a").unwrap()
    }

    fn read(parts: Vec<Bytes>) -> (proto::EntityRequest, String) {
        let item = proto::WorkItem::decode(&parts.concat()[..]).unwrap();
        match item.request {
            Some(Request::EntityRequestV2(request)) => (request, item.completion_token),
            other => panic!("{other:?}"),
        }
    }

    /// S-12.9, S-12.51.
    #[test]
    fn a_batch_reads_as_history_events_with_guids_and_callers() {
        let called = operation(
            Sender::Call {
                caller: caller(),
                scheduling: 3,
            },
            Some(""),
        );
        let signaled = operation(Sender::Client, None);
        let parts = entity_work_item(
            &entity(),
            "e9",
            Some("0"),
            [&called, &signaled].into_iter(),
            "t",
        );
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let counted = operation_bytes(&entity(), &called) + operation_bytes(&entity(), &signaled);
        assert!(bytes < counted + 64);
        let (request, token) = read(parts);
        assert_eq!(token, "t");
        assert_eq!(
            (request.instance_id.as_str(), request.execution_id.as_str()),
            ("@counter@a", "e9")
        );
        assert_eq!(request.entity_state.as_deref(), Some("0"));
        let [first, second] = &request.operation_requests[..] else {
            panic!("{request:?}");
        };
        assert_eq!(
            (first.event_id, first.timestamp),
            (
                -1,
                Some(prost_types::Timestamp {
                    seconds: 5,
                    nanos: 6
                })
            )
        );
        let guid = "00000000-0000-0000-0000-000000000001";
        assert_eq!(
            first.event_type,
            Some(EventType::EntityOperationCalled(
                proto::EntityOperationCalledEvent {
                    request_id: guid.into(),
                    operation: "add".into(),
                    scheduled_time: None,
                    input: Some(String::new()),
                    parent_instance_id: Some("parent".into()),
                    parent_execution_id: Some("e1".into()),
                    target_instance_id: Some("@counter@a".into()),
                }
            ))
        );
        assert_eq!(
            second.event_type,
            Some(EventType::EntityOperationSignaled(
                proto::EntityOperationSignaledEvent {
                    request_id: guid.into(),
                    operation: "add".into(),
                    scheduled_time: None,
                    input: None,
                    target_instance_id: Some("@counter@a".into()),
                }
            ))
        );
    }

    /// S-12.6, S-12.9: no state is told from an empty one.
    #[test]
    fn an_unset_state_stays_unset() {
        let item = |state| {
            read(entity_work_item(
                &entity(),
                "e",
                state,
                std::iter::empty(),
                "t",
            ))
            .0
        };
        assert_eq!(item(None).entity_state, None);
        assert_eq!(item(Some("")).entity_state.as_deref(), Some(""));
    }

    /// S-12.13 to S-12.18.
    #[test]
    fn an_answer_is_read_by_position() {
        let success = ResultType::Success(proto::OperationResultSuccess {
            result: Some("5".into()),
            ..Default::default()
        });
        let failed = ResultType::Failure(proto::OperationResultFailure::default());
        let result = proto::EntityBatchResult {
            results: [Some(success), Some(failed), None]
                .map(|result_type| proto::OperationResult { result_type })
                .into(),
            actions: vec![proto::OperationAction::default()],
            entity_state: Some("5".into()),
            ..Default::default()
        };
        let read = batch_result(result);
        assert_eq!(
            read.outcomes[0],
            OperationOutcome::Success(Some("5".into()))
        );
        assert!(matches!(read.outcomes[1], OperationOutcome::Failure(_)));
        assert!(matches!(read.outcomes[2], OperationOutcome::Failure(_)));
        assert_eq!((read.actions.len(), read.state.as_deref()), (0, Some("5")));
    }

    #[test]
    fn events_to_orchestrations_are_read_back() {
        let failure = FailureDetails::new("T", "m", false);
        let request_id = || "r".to_owned();
        assert_eq!(
            entity_event(&operation_completed("r", Some(""))),
            Some(EntityEvent::Completed {
                request_id: request_id()
            })
        );
        assert_eq!(
            entity_event(&operation_failed("r", &failure)),
            Some(EntityEvent::Failed {
                request_id: request_id()
            })
        );
        assert_eq!(
            entity_event(&lock_granted("r")),
            Some(EntityEvent::LockGranted {
                critical_section: request_id()
            })
        );
    }
}
