//! Every kind of event, as domain type and in the ordinary construction of the protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainspring_proto as proto;
use prost::Message as _;
use proto::history_event::EventType;

use super::{proto_timestamp, timestamp};
use crate::history::{
    ChildCreated, EventKind, ExecutionRewound, ExecutionStarted, HistoryEvent, OtherEvent,
    OtherKind, ParentInstance, TaskScheduled,
};
use crate::id::{ExecutionId, InstanceId};
use crate::message::{FailureDetails, TraceContext};
use crate::orchestration::Status;
use crate::time::Timestamp;

/// Every kind of event, with fields unset, empty and set.
pub(super) fn every_event() -> Vec<HistoryEvent> {
    every_pair().into_iter().map(|(event, _)| event).collect()
}

/// A failure with everything in it that the scheduler must hand on (S-4.14).
pub(super) fn deep_failure() -> proto::TaskFailureDetails {
    let reason = prost_types::value::Kind::StringValue("limit".into());
    proto::TaskFailureDetails {
        error_type: "Outer".into(),
        error_message: "it broke".into(),
        stack_trace: Some("at a\nat b".into()),
        inner_failure: Some(Box::new(proto::TaskFailureDetails {
            error_type: "Inner".into(),
            ..Default::default()
        })),
        is_non_retriable: true,
        properties: BTreeMap::from([("reason".into(), prost_types::Value { kind: Some(reason) })]),
    }
}

pub(super) fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("owner".into(), "ä".into()),
        ("empty".into(), String::new()),
        (String::new(), "nameless".into()),
    ])
}

pub(super) fn trace() -> (TraceContext, proto::TraceContext) {
    let trace = TraceContext {
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        span_id: "b7ad6b7169203331".into(),
        trace_state: Some(String::new()),
    };
    let wire = proto::TraceContext {
        trace_parent: trace.trace_parent.clone(),
        span_id: trace.span_id.clone(),
        trace_state: trace.trace_state.clone(),
    };
    (trace, wire)
}

fn parent() -> (ParentInstance, proto::ParentInstanceInfo) {
    let parent = ParentInstance {
        task_id: 3,
        name: Some("Parent".into()),
        version: Some(String::new()),
        instance: InstanceId::from_stored("parent-1"),
        execution_id: Some(ExecutionId::from_stored("e0")),
    };
    let wire = proto::ParentInstanceInfo {
        task_scheduled_id: 3,
        name: Some("Parent".into()),
        version: Some(String::new()),
        orchestration_instance: Some(proto::OrchestrationInstance {
            instance_id: "parent-1".into(),
            execution_id: Some("e0".into()),
        }),
    };
    (parent, wire)
}

/// Ids, times and bodies differ from pair to pair, so that a mix-up shows.
pub(super) fn every_pair() -> Vec<(HistoryEvent, proto::HistoryEvent)> {
    every_kind()
        .into_iter()
        .enumerate()
        .map(|(index, (kind, event_type))| {
            let id = [-1, 0, 7, i32::MAX][index % 4];
            let at = Timestamp::new(1_700_000_000 + index as i64, index as i64);
            let event = HistoryEvent { id, at, kind };
            let wire = proto::HistoryEvent {
                event_id: id,
                timestamp: Some(proto_timestamp(at)),
                event_type: Some(event_type),
            };
            (event, wire)
        })
        .collect()
}

fn every_kind() -> Vec<(EventKind, EventType)> {
    let mut kinds = starts_and_ends();
    kinds.extend(tasks_and_children());
    kinds.extend(timers_and_events());
    kinds.extend(others());
    kinds
}

fn starts_and_ends() -> Vec<(EventKind, EventType)> {
    let failure = FailureDetails::from_encoded(deep_failure().encode_to_vec().into());
    let execution_started = |is_full: bool| {
        let scheduled = prost_types::Timestamp {
            seconds: -5,
            nanos: 999_999_999,
        };
        let (parent, wire_parent) = parent();
        let (trace, wire_trace) = trace();
        let domain = ExecutionStarted {
            name: "Order".into(),
            version: is_full.then(String::new),
            input: is_full.then(|| "\"x\"".repeat(200)),
            instance: InstanceId::from_stored("order-17"),
            execution_id: ExecutionId::from_stored("e1"),
            parent: is_full.then_some(parent),
            scheduled_start_at: is_full.then(|| timestamp(scheduled)),
            trace: is_full.then_some(trace),
            tags: if is_full { tags() } else { BTreeMap::new() },
        };
        let wire = proto::ExecutionStartedEvent {
            name: domain.name.clone(),
            version: domain.version.clone(),
            input: domain.input.clone(),
            orchestration_instance: Some(proto::OrchestrationInstance {
                instance_id: "order-17".into(),
                execution_id: Some("e1".into()),
            }),
            parent_instance: is_full.then_some(wire_parent),
            scheduled_start_timestamp: is_full.then_some(scheduled),
            parent_trace_context: is_full.then_some(wire_trace),
            orchestration_span_id: None,
            tags: domain.tags.clone(),
        };
        (
            EventKind::ExecutionStarted(Box::new(domain)),
            EventType::ExecutionStarted(wire),
        )
    };
    let (rewound_parent, wire_parent) = parent();
    let (rewound_trace, wire_trace) = trace();
    vec![
        (
            EventKind::OrchestratorStarted,
            EventType::OrchestratorStarted(proto::OrchestratorStartedEvent {}),
        ),
        execution_started(true),
        execution_started(false),
        (
            EventKind::ExecutionCompleted {
                status: Status::Completed,
                result: Some(String::new()),
                failure: None,
            },
            EventType::ExecutionCompleted(proto::ExecutionCompletedEvent {
                orchestration_status: 1,
                result: Some(String::new()),
                failure_details: None,
            }),
        ),
        (
            EventKind::ExecutionCompleted {
                status: Status::Failed,
                result: None,
                failure: Some(failure),
            },
            EventType::ExecutionCompleted(proto::ExecutionCompletedEvent {
                orchestration_status: 3,
                result: None,
                failure_details: Some(deep_failure()),
            }),
        ),
        (
            EventKind::ExecutionTerminated {
                input: Some("stop".into()),
                recurse: true,
            },
            EventType::ExecutionTerminated(proto::ExecutionTerminatedEvent {
                input: Some("stop".into()),
                recurse: true,
            }),
        ),
        (
            EventKind::ExecutionSuspended { input: None },
            EventType::ExecutionSuspended(proto::ExecutionSuspendedEvent { input: None }),
        ),
        (
            EventKind::ExecutionResumed {
                input: Some("go on".into()),
            },
            EventType::ExecutionResumed(proto::ExecutionResumedEvent {
                input: Some("go on".into()),
            }),
        ),
        (
            EventKind::ExecutionRewound(Box::new(ExecutionRewound {
                reason: Some("try again".into()),
                parent_execution_id: Some("e9".into()),
                instance: Some("order-17".into()),
                trace: Some(rewound_trace),
                name: Some("Order".into()),
                version: None,
                input: Some(String::new()),
                parent: Some(rewound_parent),
                tags: tags(),
            })),
            EventType::ExecutionRewound(proto::ExecutionRewoundEvent {
                reason: Some("try again".into()),
                parent_execution_id: Some("e9".into()),
                instance_id: Some("order-17".into()),
                parent_trace_context: Some(wire_trace),
                name: Some("Order".into()),
                version: None,
                input: Some(String::new()),
                parent_instance: Some(wire_parent),
                tags: tags(),
            }),
        ),
    ]
}

fn tasks_and_children() -> Vec<(EventKind, EventType)> {
    let failure = || FailureDetails::from_encoded(deep_failure().encode_to_vec().into());
    let (task_trace, wire_trace) = trace();
    let (child_trace, wire_child_trace) = trace();
    vec![
        (
            EventKind::TaskScheduled(Box::new(TaskScheduled {
                name: "Charge".into(),
                version: Some("1.0".into()),
                input: Some("x".repeat(20_000)),
                trace: Some(task_trace),
                tags: tags(),
            })),
            EventType::TaskScheduled(proto::TaskScheduledEvent {
                name: "Charge".into(),
                version: Some("1.0".into()),
                input: Some("x".repeat(20_000)),
                parent_trace_context: Some(wire_trace),
                tags: tags(),
            }),
        ),
        (
            EventKind::TaskCompleted {
                task_id: 1,
                result: Some("\"done\"".into()),
            },
            EventType::TaskCompleted(proto::TaskCompletedEvent {
                task_scheduled_id: 1,
                result: Some("\"done\"".into()),
            }),
        ),
        (
            EventKind::TaskFailed {
                task_id: -2,
                failure: Some(failure()),
            },
            EventType::TaskFailed(proto::TaskFailedEvent {
                task_scheduled_id: -2,
                failure_details: Some(deep_failure()),
            }),
        ),
        (
            EventKind::TaskFailed {
                task_id: 0,
                failure: Some(FailureDetails::from_encoded(Bytes::new())),
            },
            EventType::TaskFailed(proto::TaskFailedEvent {
                task_scheduled_id: 0,
                failure_details: Some(proto::TaskFailureDetails::default()),
            }),
        ),
        (
            EventKind::ChildCreated(Box::new(ChildCreated {
                instance: "@not legal".into(),
                name: "Ship".into(),
                version: None,
                input: None,
                trace: Some(child_trace),
                tags: tags(),
            })),
            EventType::SubOrchestrationInstanceCreated(
                proto::SubOrchestrationInstanceCreatedEvent {
                    instance_id: "@not legal".into(),
                    name: "Ship".into(),
                    version: None,
                    input: None,
                    parent_trace_context: Some(wire_child_trace),
                    tags: tags(),
                },
            ),
        ),
        (
            EventKind::ChildCompleted {
                task_id: 2,
                result: None,
            },
            EventType::SubOrchestrationInstanceCompleted(
                proto::SubOrchestrationInstanceCompletedEvent {
                    task_scheduled_id: 2,
                    result: None,
                },
            ),
        ),
        (
            EventKind::ChildFailed {
                task_id: 2,
                failure: None,
            },
            EventType::SubOrchestrationInstanceFailed(proto::SubOrchestrationInstanceFailedEvent {
                task_scheduled_id: 2,
                failure_details: None,
            }),
        ),
    ]
}

fn timers_and_events() -> Vec<(EventKind, EventType)> {
    let fire_at = Timestamp::new(1_700_000_100, 123_456_789);
    let wire_fire_at = Some(proto_timestamp(fire_at));
    vec![
        (
            EventKind::TimerCreated { fire_at },
            EventType::TimerCreated(proto::TimerCreatedEvent {
                fire_at: wire_fire_at,
            }),
        ),
        (
            EventKind::TimerFired {
                fire_at,
                timer_id: 5,
            },
            EventType::TimerFired(proto::TimerFiredEvent {
                fire_at: wire_fire_at,
                timer_id: 5,
            }),
        ),
        (
            EventKind::EventSent {
                instance: "order-18".into(),
                name: "go".into(),
                input: None,
            },
            EventType::EventSent(proto::EventSentEvent {
                instance_id: "order-18".into(),
                name: "go".into(),
                input: None,
            }),
        ),
        (
            EventKind::EventRaised {
                name: "Approval".into(),
                input: Some("blob:v1:c:n".into()),
            },
            EventType::EventRaised(proto::EventRaisedEvent {
                name: "Approval".into(),
                input: Some("blob:v1:c:n".into()),
            }),
        ),
    ]
}

fn others() -> Vec<(EventKind, EventType)> {
    let (signal, called, request) = (
        proto::EntityOperationSignaledEvent {
            request_id: "r1".into(),
            operation: "add".into(),
            scheduled_time: Some(proto_timestamp(Timestamp::new(9, 9))),
            ..Default::default()
        },
        proto::EntityOperationCalledEvent {
            request_id: "r2".into(),
            target_instance_id: Some("@counter@a".into()),
            ..Default::default()
        },
        proto::EntityLockRequestedEvent {
            critical_section_id: "c".into(),
            lock_set: vec!["@a@1".into(), "@a@2".into()],
            ..Default::default()
        },
    );
    let completed = proto::EntityOperationCompletedEvent {
        request_id: "r2".into(),
        output: Some("1".into()),
    };
    let failed = proto::EntityOperationFailedEvent {
        request_id: "r2".into(),
        failure_details: Some(deep_failure()),
    };
    let granted = proto::EntityLockGrantedEvent {
        critical_section_id: "c".into(),
    };
    let unlock = proto::EntityUnlockSentEvent {
        critical_section_id: "c".into(),
        ..Default::default()
    };
    let generic = proto::GenericEvent {
        data: Some("text".into()),
    };
    let other = |kind, body: Vec<u8>| {
        let body = Bytes::from(body);
        EventKind::Other(OtherEvent { kind, body })
    };
    vec![
        (
            other(OtherKind::OrchestratorCompleted, Vec::new()),
            EventType::OrchestratorCompleted(proto::OrchestratorCompletedEvent {}),
        ),
        (
            other(OtherKind::Generic, generic.encode_to_vec()),
            EventType::GenericEvent(generic),
        ),
        (
            other(OtherKind::HistoryState, Vec::new()),
            EventType::HistoryState(proto::HistoryStateEvent::default()),
        ),
        (
            other(OtherKind::ContinueAsNew, Vec::new()),
            EventType::ContinueAsNew(proto::ContinueAsNewEvent::default()),
        ),
        (
            other(OtherKind::EntityOperationSignaled, signal.encode_to_vec()),
            EventType::EntityOperationSignaled(signal),
        ),
        (
            other(OtherKind::EntityOperationCalled, called.encode_to_vec()),
            EventType::EntityOperationCalled(called),
        ),
        (
            other(
                OtherKind::EntityOperationCompleted,
                completed.encode_to_vec(),
            ),
            EventType::EntityOperationCompleted(completed),
        ),
        (
            other(OtherKind::EntityOperationFailed, failed.encode_to_vec()),
            EventType::EntityOperationFailed(failed),
        ),
        (
            other(OtherKind::EntityLockRequested, request.encode_to_vec()),
            EventType::EntityLockRequested(request),
        ),
        (
            other(OtherKind::EntityLockGranted, granted.encode_to_vec()),
            EventType::EntityLockGranted(granted),
        ),
        (
            other(OtherKind::EntityUnlockSent, unlock.encode_to_vec()),
            EventType::EntityUnlockSent(unlock),
        ),
    ]
}
