//! What an orchestrator answers with.

use mainspring_proto::orchestrator_action::OrchestratorActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    CompleteOrchestrationAction, CreateSubOrchestrationAction, CreateTimerAction,
    EntityLockRequestedEvent, EntityOperationCalledEvent, EntityOperationSignaledEvent,
    EntityUnlockSentEvent, OrchestrationInstance, OrchestrationStatus, OrchestratorAction,
    ScheduleTaskAction, SendEntityMessageAction, SendEventAction, TaskFailureDetails,
};
use prost_types::Timestamp;

/// An action of any kind.
pub fn action(id: i32, kind: OrchestratorActionType) -> OrchestratorAction {
    OrchestratorAction {
        id,
        orchestrator_action_type: Some(kind),
    }
}

/// Schedules an activity.
pub fn schedule(id: i32, name: &str, input: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::ScheduleTask(ScheduleTaskAction {
            name: name.to_owned(),
            input: Some(input.to_owned()),
            ..Default::default()
        }),
    )
}

/// Completes the orchestration with a result.
pub fn complete(id: i32, result: &str) -> OrchestratorAction {
    ends(id, OrchestrationStatus::Completed, Some(result), None)
}

/// Fails the orchestration.
pub fn fail(id: i32, message: &str) -> OrchestratorAction {
    let details = TaskFailureDetails {
        error_type: "TestFailure".to_owned(),
        error_message: message.to_owned(),
        ..Default::default()
    };
    ends(id, OrchestrationStatus::Failed, None, Some(details))
}

/// Ends this generation and begins another with `input`.
pub fn continue_as_new(id: i32, input: &str) -> OrchestratorAction {
    ends(id, OrchestrationStatus::ContinuedAsNew, Some(input), None)
}

/// Completes the orchestration with any status.
pub fn ends(
    id: i32,
    status: OrchestrationStatus,
    result: Option<&str>,
    failure_details: Option<TaskFailureDetails>,
) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::CompleteOrchestration(CompleteOrchestrationAction {
            orchestration_status: status.into(),
            result: result.map(str::to_owned),
            failure_details,
            ..Default::default()
        }),
    )
}

/// Creates a child; with an empty instance id the server makes one up.
pub fn child(id: i32, instance_id: &str, name: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::CreateSubOrchestration(CreateSubOrchestrationAction {
            instance_id: instance_id.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        }),
    )
}

/// Creates a timer.
pub fn timer(id: i32, fire_at: Timestamp) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::CreateTimer(CreateTimerAction {
            fire_at: Some(fire_at),
        }),
    )
}

/// Sends an event to an instance.
pub fn send_event(id: i32, instance_id: &str, name: &str, data: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::SendEvent(SendEventAction {
            instance: Some(OrchestrationInstance {
                instance_id: instance_id.to_owned(),
                execution_id: None,
            }),
            name: name.to_owned(),
            data: Some(data.to_owned()),
        }),
    )
}

/// Calls an operation of an entity. Who calls is left for the server to say, in which .NET trusts.
pub fn call(
    id: i32,
    request_id: &str,
    entity: &str,
    operation: &str,
    input: &str,
) -> OrchestratorAction {
    entity_message(
        id,
        EntityMessageType::EntityOperationCalled(EntityOperationCalledEvent {
            request_id: request_id.to_owned(),
            operation: operation.to_owned(),
            input: Some(input.to_owned()),
            target_instance_id: Some(entity.to_owned()),
            ..Default::default()
        }),
    )
}

/// Signals an entity, at once or at a time.
pub fn signal(
    id: i32,
    request_id: &str,
    entity: &str,
    operation: &str,
    input: &str,
    scheduled_time: Option<Timestamp>,
) -> OrchestratorAction {
    entity_message(
        id,
        EntityMessageType::EntityOperationSignaled(EntityOperationSignaledEvent {
            request_id: request_id.to_owned(),
            operation: operation.to_owned(),
            scheduled_time,
            input: Some(input.to_owned()),
            target_instance_id: Some(entity.to_owned()),
        }),
    )
}

/// Asks for the locks of all these entities.
pub fn lock(id: i32, parent: &str, critical_section: &str, set: &[&str]) -> OrchestratorAction {
    entity_message(
        id,
        EntityMessageType::EntityLockRequested(EntityLockRequestedEvent {
            critical_section_id: critical_section.to_owned(),
            lock_set: set.iter().map(|entity| (*entity).to_owned()).collect(),
            position: 0,
            parent_instance_id: Some(parent.to_owned()),
        }),
    )
}

/// Gives back the lock of one entity.
pub fn unlock(id: i32, parent: &str, critical_section: &str, entity: &str) -> OrchestratorAction {
    entity_message(
        id,
        EntityMessageType::EntityUnlockSent(EntityUnlockSentEvent {
            critical_section_id: critical_section.to_owned(),
            parent_instance_id: Some(parent.to_owned()),
            target_instance_id: Some(entity.to_owned()),
        }),
    )
}

/// Sends an entity anything.
pub fn entity_message(id: i32, message: EntityMessageType) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::SendEntityMessage(SendEntityMessageAction {
            entity_message_type: Some(message),
        }),
    )
}
