//! What is sent to entities, what scripted workers answer, and what orchestrations are told.

use mainspring_core::entity::{
    BatchResult, Generation, LockRequest, OperationAction, OperationOutcome, lock_set,
};
use mainspring_core::id::{ExecutionId, InstanceId};
use mainspring_core::message::{FailureDetails, Message};

pub(super) fn entity(id: &str) -> InstanceId {
    InstanceId::parse_entity(id).unwrap()
}

pub(super) fn generation(instance: &str, execution: &str) -> Generation {
    Generation {
        instance: InstanceId::parse(instance).unwrap(),
        execution_id: ExecutionId::from_stored(execution),
    }
}

/// A request for locks at its first entity; its scheduling is 8.
pub(super) fn lock_request(
    holder: &Generation,
    critical_section: &str,
    listed: &[&str],
) -> (InstanceId, Message) {
    let listed: Vec<String> = listed.iter().map(|id| (*id).to_owned()).collect();
    let lock_set = lock_set(&listed).unwrap();
    let target = lock_set[0].clone();
    let request = LockRequest {
        critical_section: critical_section.to_owned(),
        lock_set,
        position: 0,
        holder: holder.clone(),
        scheduling: 8,
    };
    (target, Message::Lock(Box::new(request)))
}

pub(super) fn unlock(holder: &Generation, critical_section: &str) -> Message {
    Message::Unlock {
        critical_section: critical_section.to_owned(),
        holder: holder.instance.clone(),
    }
}

/// An answer: a result for each operation done, and the state after them.
pub(super) fn done(results: &[&str], state: Option<&str>) -> BatchResult {
    BatchResult {
        outcomes: results.iter().map(|r| success(r)).collect(),
        state: state.map(str::to_owned),
        ..BatchResult::default()
    }
}

pub(super) fn success(result: &str) -> OperationOutcome {
    OperationOutcome::Success(Some(result.to_owned()))
}

pub(super) fn failure(error_type: &str) -> FailureDetails {
    FailureDetails::new(error_type, "it broke", false)
}

pub(super) fn sends(target: &str, name: &str) -> OperationAction {
    OperationAction::SendSignal {
        target: target.to_owned(),
        name: name.to_owned(),
        input: None,
        scheduled_at: None,
    }
}

pub(super) fn starts(instance: &str, name: &str) -> OperationAction {
    OperationAction::StartOrchestration {
        instance: instance.to_owned(),
        name: name.to_owned(),
        version: None,
        input: None,
        scheduled_at: None,
        trace: None,
    }
}

/// Who was told what: instance, kind, and the request or section it is about.
pub(super) fn said(told: &[(InstanceId, Message)]) -> Vec<String> {
    told.iter()
        .map(|(target, message)| match message {
            Message::EntityCompleted {
                request_id, result, ..
            } => format!(
                "{target}: {request_id} = {}",
                result.as_deref().unwrap_or("nothing")
            ),
            Message::EntityFailed {
                request_id,
                failure,
                ..
            } => format!(
                "{target}: {request_id} ! {}",
                failure.error_type_and_message().0
            ),
            Message::LocksGranted {
                critical_section, ..
            } => format!("{target}: granted {critical_section}"),
            Message::StartFromEntity(new) => format!("{target}: starts {}", new.name),
            other => panic!("{target} is told {other:?}"),
        })
        .collect()
}
