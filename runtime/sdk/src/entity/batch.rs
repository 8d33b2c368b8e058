//! A batch of operations, one after the other; what fails leaves no trace.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use mainspring_proto::history_event::EventType;
use mainspring_proto::operation_result::ResultType;
use mainspring_proto::{
    EntityBatchResult, EntityRequest, HistoryEvent, OperationInfo, OperationResult,
    OperationResultFailure, OperationResultSuccess, OrchestrationInstance,
};

use super::{Entity, EntityContext, EntityId, Operations};
use crate::convert::Payloads;
use crate::error::{Failure, Result};
use crate::handler::BoxFuture;
use crate::registry::AnyEntity;
use crate::replay::panic_text;
use crate::time::timestamp;

/// Asked for without being listed, it deletes the state, as in the other SDKs.
const DELETE: &str = "delete";

/// Runs operations of entities of type `E`.
pub(crate) struct EntityHost<E> {
    operations: Arc<Operations<E>>,
}

impl<E: Entity> EntityHost<E> {
    pub(crate) fn new() -> Self {
        Self {
            operations: Arc::new(Operations::of_entity()),
        }
    }
}

impl<E: Entity> AnyEntity for EntityHost<E> {
    fn run(&self, request: EntityRequest, payloads: Payloads) -> BoxFuture<EntityBatchResult> {
        let operations = Arc::clone(&self.operations);
        Box::pin(async move { run(&operations, request, payloads).await })
    }
}

/// One operation as it was asked for.
struct Asked {
    request_id: String,
    operation: String,
    input: Option<String>,
    caller: Option<OrchestrationInstance>,
}

impl Asked {
    fn new(event: HistoryEvent) -> Option<Self> {
        match event.event_type? {
            EventType::EntityOperationSignaled(signal) => Some(Self {
                request_id: signal.request_id,
                operation: signal.operation,
                input: signal.input,
                caller: None,
            }),
            EventType::EntityOperationCalled(call) => Some(Self {
                request_id: call.request_id,
                operation: call.operation,
                input: call.input,
                caller: call
                    .parent_instance_id
                    .map(|instance_id| OrchestrationInstance {
                        instance_id,
                        execution_id: call.parent_execution_id,
                    }),
            }),
            _ => None,
        }
    }
}

async fn run<E: Entity>(
    operations: &Operations<E>,
    request: EntityRequest,
    payloads: Payloads,
) -> EntityBatchResult {
    // The scheduler sends no other ids.
    let id: EntityId = match request.instance_id.parse() {
        Ok(id) => id,
        Err(error) => return refused(&Failure::from(error)),
    };
    let ctx = EntityContext::new(id, payloads.clone());
    // What is on disk: the state as of the last success.
    let mut stored = request.entity_state;
    let mut state: Option<Result<E>> = None;
    let (mut results, mut infos) = (Vec::new(), Vec::new());
    for asked in request
        .operation_requests
        .into_iter()
        .filter_map(Asked::new)
    {
        infos.push(OperationInfo {
            request_id: asked.request_id.clone(),
            response_destination: asked.caller.clone(),
        });
        let began = SystemTime::now();
        let sent = ctx.effects().actions.len();
        let entity = state
            .take()
            .unwrap_or_else(|| read(&payloads, stored.as_deref()));
        let outcome = match entity {
            Err(failure) => Err(failure),
            Ok(entity) => one(operations, entity, asked, &ctx).await,
        };
        let outcome = outcome.and_then(|(entity, output)| {
            let is_deleted = std::mem::take(&mut ctx.effects().is_deleted);
            let written = match is_deleted {
                true => None,
                false => payloads.write("state", &entity)?,
            };
            state = (!is_deleted).then_some(Ok(entity));
            stored = written;
            Ok(output)
        });
        if outcome.is_err() {
            let mut effects = ctx.effects();
            effects.actions.truncate(sent);
            effects.is_deleted = false;
        }
        results.push(told(outcome, began));
    }
    EntityBatchResult {
        results,
        actions: std::mem::take(&mut ctx.effects().actions),
        entity_state: stored,
        operation_infos: infos,
        ..Default::default()
    }
}

fn read<E: Entity>(payloads: &Payloads, stored: Option<&str>) -> Result<E> {
    match stored {
        None => Ok(E::default()),
        Some(text) => payloads.read("state", Some(text)),
    }
}

async fn one<E: Entity>(
    operations: &Operations<E>,
    mut entity: E,
    asked: Asked,
    ctx: &EntityContext,
) -> Result<(E, Option<String>)> {
    let Some(apply) = operations.find(&asked.operation) else {
        if asked.operation.eq_ignore_ascii_case(DELETE) {
            ctx.delete();
            return Ok((entity, None));
        }
        let message = format!(
            "entity '{}' has no operation '{}'",
            ctx.id(),
            asked.operation
        );
        return Err(Failure::new("OperationNotFound", message).non_retriable());
    };
    let applied = AssertUnwindSafe(apply(asked.input, &mut entity, ctx))
        .catch_unwind()
        .await;
    match applied {
        Ok(output) => output.map(|output| (entity, output)),
        Err(panic) => Err(Failure::new("Panic", panic_text(&*panic))),
    }
}

fn told(outcome: Result<Option<String>>, began: SystemTime) -> OperationResult {
    let (start_time_utc, end_time_utc) =
        (Some(timestamp(began)), Some(timestamp(SystemTime::now())));
    let result = match outcome {
        Ok(result) => ResultType::Success(OperationResultSuccess {
            result,
            start_time_utc,
            end_time_utc,
        }),
        Err(failure) => ResultType::Failure(OperationResultFailure {
            failure_details: Some(failure.into_details()),
            start_time_utc,
            end_time_utc,
        }),
    };
    OperationResult {
        result_type: Some(result),
    }
}

/// Nothing is consumed; the batch comes again.
pub(crate) fn refused(failure: &Failure) -> EntityBatchResult {
    EntityBatchResult {
        failure_details: Some(failure.clone().into_details()),
        ..Default::default()
    }
}
