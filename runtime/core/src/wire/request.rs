//! What clients and workers send, as domain types.
//!
//! Only form is checked here: names that must not be empty, ids, numbers that mean nothing. What
//! a request may do to an instance is decided by the machine.

use bytes::Bytes;
use mainspring_proto as proto;
use prost::Message as _;
use proto::history_event::EventType;
use proto::orchestrator_action::OrchestratorActionType;
use proto::send_entity_message_action::EntityMessageType;

use super::decode::decode;
use crate::action::{Action, CarryOver, Chunk, Completion, End, EpisodeResult};
use crate::error::Error;
use crate::history::{OtherEvent, OtherKind};
use crate::id::{self, ExecutionId, FreshIds, InstanceId};
use crate::message::{EpisodeTrace, FailureDetails, NewInstance, TraceContext};
use crate::orchestration::{LegacyAction, ReusePolicy, Status};
use crate::time::Timestamp;

/// The protocol's number of `CONTINUED_AS_NEW`, a status that only a completion has (S-2.2).
const CONTINUED_AS_NEW: i32 = 2;

/// A time from the wire; out-of-range parts are normalised (S-1.18).
pub fn timestamp(time: prost_types::Timestamp) -> Timestamp {
    Timestamp::new(time.seconds, i64::from(time.nanos))
}

/// A time for the wire.
pub fn proto_timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds(),
        // Below 10^9, so it fits.
        nanos: time.nanos() as i32,
    }
}

/// Failure details from the wire; from here on they stay byte for byte (S-4.14).
pub fn failure(details: proto::TaskFailureDetails) -> FailureDetails {
    FailureDetails::from_encoded(Bytes::from(details.encode_to_vec()))
}

pub(super) fn trace(trace: proto::TraceContext) -> TraceContext {
    TraceContext {
        trace_parent: trace.trace_parent,
        span_id: trace.span_id,
        trace_state: trace.trace_state,
    }
}

/// What a client asks to start, and what may happen to an instance that has the id already.
///
/// An empty id is replaced by a fresh one (S-10.1); a start time that is not after `now` counts as
/// not given (S-6.6). `is_go_client` tells whether the client's `user-agent` contains `grpc-go`
/// (S-10.3).
///
/// Errors: `Invalid` for an empty name, an illegal id, or an unknown reuse action.
pub fn new_instance(
    request: proto::CreateInstanceRequest,
    is_go_client: bool,
    now: Timestamp,
    ids: &mut dyn FreshIds,
) -> Result<(NewInstance, ReusePolicy), Error> {
    if request.name.is_empty() {
        return Err(Error::Invalid("orchestration name is empty".into()));
    }
    let instance = if request.instance_id.is_empty() {
        id::instance_id(ids)
    } else {
        InstanceId::parse(&request.instance_id)?
    };
    let policy = reuse_policy(request.orchestration_id_reuse_policy, is_go_client)?;
    let new = NewInstance {
        instance,
        name: request.name,
        version: request.version,
        input: request.input,
        tags: request.tags,
        scheduled_start_at: request
            .scheduled_start_timestamp
            .map(timestamp)
            .filter(|start| *start > now),
        execution_id: request
            .execution_id
            .filter(|id| !id.is_empty())
            .map(|id| ExecutionId::from_stored(&id)),
        parent: None,
        trace: request.parent_trace_context.map(trace),
    };
    Ok((new, policy))
}

fn reuse_policy(
    policy: Option<proto::OrchestrationIdReusePolicy>,
    is_go_client: bool,
) -> Result<ReusePolicy, Error> {
    let is_given = policy.is_some();
    let policy = policy.unwrap_or_default();
    // Numbers of the older layout's CreateOrchestrationAction (S-10.2).
    let legacy_action = match policy.action {
        0 if is_given && is_go_client => LegacyAction::Error,
        0 => LegacyAction::None,
        1 => LegacyAction::Ignore,
        2 => LegacyAction::Terminate,
        unknown => {
            return Err(Error::Invalid(format!(
                "reuse policy action {unknown} is unknown"
            )));
        }
    };
    Ok(ReusePolicy {
        is_given,
        replaceable: policy.replaceable_status,
        legacy_action,
        is_go_client,
    })
}

/// A worker's response to an episode.
///
/// Errors: `Invalid`, and nothing may be applied, if an action has no type or an unknown one
/// (S-4.3), if a completion has a status that ends nothing, if a rewound history cannot be read,
/// or if counts are negative.
pub fn episode_result(response: proto::OrchestratorResponse) -> Result<EpisodeResult, Error> {
    let chunk = chunk(response.is_partial, response.chunk_index)?;
    let events_processed = match response.num_events_processed {
        // Chunks are applied as one, which consumes every event (S-3.31).
        Some(_) if chunk.is_some() => None,
        Some(count) => Some(
            u32::try_from(count)
                .map_err(|_| Error::Invalid(format!("response processed {count} events")))?,
        ),
        None => None,
    };
    Ok(EpisodeResult {
        actions: response
            .actions
            .into_iter()
            .map(action)
            .collect::<Result<_, _>>()?,
        custom_status: response.custom_status,
        events_processed,
        trace: response.orchestration_trace_context.and_then(episode_trace),
        requires_history: response.requires_history,
        chunk,
    })
}

fn chunk(is_partial: bool, index: Option<i32>) -> Result<Option<Chunk>, Error> {
    match index {
        None if is_partial => Err(Error::Invalid("partial response has no chunk index".into())),
        None => Ok(None),
        Some(index) => {
            let index = u32::try_from(index)
                .map_err(|_| Error::Invalid(format!("chunk index {index} is negative")))?;
            let is_last = !is_partial;
            Ok(Some(Chunk { index, is_last }))
        }
    }
}

/// A message without a span id counts as unset (S-15.3).
fn episode_trace(trace: proto::OrchestrationTraceContext) -> Option<EpisodeTrace> {
    let span_id = trace.span_id.filter(|id| !id.is_empty())?;
    let span_started_at = trace.span_start_time.map(timestamp);
    Some(EpisodeTrace {
        span_id,
        span_started_at,
    })
}

fn action(action: proto::OrchestratorAction) -> Result<Action, Error> {
    let id = action.id;
    let Some(kind) = action.orchestrator_action_type else {
        return Err(Error::Invalid(format!("action {id} has no known type")));
    };
    Ok(match kind {
        OrchestratorActionType::ScheduleTask(task) => Action::ScheduleTask {
            id,
            name: task.name,
            version: task.version,
            input: task.input,
            tags: task.tags,
            trace: task.parent_trace_context.map(trace),
        },
        OrchestratorActionType::CreateSubOrchestration(child) => Action::CreateChild {
            id,
            instance: child.instance_id,
            name: child.name,
            version: child.version,
            input: child.input,
            tags: child.tags,
            trace: child.parent_trace_context.map(trace),
        },
        OrchestratorActionType::CreateTimer(timer) => Action::CreateTimer {
            id,
            fire_at: timer.fire_at.map(timestamp),
        },
        OrchestratorActionType::SendEvent(event) => Action::SendEvent {
            id,
            instance: event.instance.unwrap_or_default().instance_id,
            name: event.name,
            input: event.data,
        },
        OrchestratorActionType::SendEntityMessage(message) => Action::SendEntityMessage {
            id,
            event: entity_message(id, message)?,
        },
        OrchestratorActionType::TerminateOrchestration(terminate) => Action::Terminate {
            id,
            instance: terminate.instance_id,
            reason: terminate.reason,
            recurse: terminate.recurse,
        },
        OrchestratorActionType::CompleteOrchestration(complete) => {
            let end = end(id, complete)?;
            Action::Complete(Box::new(Completion { id, end }))
        }
        OrchestratorActionType::RewindOrchestration(rewind) => Action::Rewind {
            id,
            history: rewind
                .new_history
                .iter()
                .map(|event| decode(&event.encode_to_vec()))
                .collect::<Result<_, _>>()
                .map_err(|error| Error::Invalid(format!("rewind action {id}: {error}")))?,
        },
    })
}

/// The confirming event of an entity action: its message is the action's own (S-4.8).
fn entity_message(id: i32, message: proto::SendEntityMessageAction) -> Result<OtherEvent, Error> {
    let Some(message) = message.entity_message_type else {
        return Err(Error::Invalid(format!(
            "entity action {id} has no known type"
        )));
    };
    let (kind, body) = match message {
        EntityMessageType::EntityOperationSignaled(event) => {
            (OtherKind::EntityOperationSignaled, event.encode_to_vec())
        }
        EntityMessageType::EntityOperationCalled(event) => {
            (OtherKind::EntityOperationCalled, event.encode_to_vec())
        }
        EntityMessageType::EntityLockRequested(event) => {
            (OtherKind::EntityLockRequested, event.encode_to_vec())
        }
        EntityMessageType::EntityUnlockSent(event) => {
            (OtherKind::EntityUnlockSent, event.encode_to_vec())
        }
    };
    let body = Bytes::from(body);
    Ok(OtherEvent { kind, body })
}

fn end(id: i32, complete: proto::CompleteOrchestrationAction) -> Result<End, Error> {
    let number = complete.orchestration_status;
    if number == CONTINUED_AS_NEW {
        return Ok(End::ContinueAsNew {
            input: complete.result,
            version: complete.new_version,
            carried: complete
                .carryover_events
                .into_iter()
                .filter_map(carry_over)
                .collect(),
        });
    }
    let status = Status::from_wire(number)
        .filter(|status| status.is_terminal())
        .ok_or_else(|| {
            Error::Invalid(format!(
                "completion action {id} has status {number}, which ends nothing"
            ))
        })?;
    Ok(End::Finish {
        status,
        result: complete.result,
        failure: complete.failure_details.map(failure),
    })
}

/// Events other than raised ones are ignored; a zero time counts as unset (S-3.19).
fn carry_over(event: proto::HistoryEvent) -> Option<CarryOver> {
    let Some(EventType::EventRaised(raised)) = event.event_type else {
        return None;
    };
    let at = event
        .timestamp
        .filter(|time| *time != prost_types::Timestamp::default())
        .map(timestamp);
    Some(CarryOver {
        name: raised.name,
        input: raised.input,
        at,
    })
}

#[cfg(test)]
mod tests;
