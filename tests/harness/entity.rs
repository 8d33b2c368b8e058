//! Entities as clients and workers see them: batches of operations, their results, and the calls that clients make.
//!
//! Reading a batch checks what no SDK survives otherwise, so each test does: the form of every operation (S-12.9), and
//! that request ids are GUIDs and calls name their caller, without which .NET ends its stream (S-12.51).

use std::sync::atomic::{AtomicU64, Ordering};

use mainspring_proto::history_event::EventType;
use mainspring_proto::operation_result::ResultType;
use mainspring_proto::work_item::Request as Work;
use mainspring_proto::{
    AbandonEntityTaskRequest, EntityBatchResult, EntityFilter, EntityMetadata,
    EntityOperationCalledEvent, EntityQuery, EntityRequest, GetEntityRequest, GetWorkItemsRequest,
    HistoryEvent, OperationInfo, OperationResult, OperationResultFailure, OperationResultSuccess,
    OrchestrationFilter, OrchestrationInstance, QueryEntitiesRequest, QueryEntitiesResponse,
    SignalEntityRequest, TaskFailureDetails, WorkItemFilters,
};
use tonic::Status;

use crate::{Peer, WorkStream, patiently};

/// An entity work item.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What the worker is asked.
    pub request: EntityRequest,
    /// Its proof of being asked.
    pub token: String,
}

impl Batch {
    /// Reads the operations, and panics where one has not the form that SDKs rely on.
    pub fn operations(&self) -> Vec<Operation> {
        operations(&self.request)
    }

    /// Names of the operations, in order.
    pub fn names(&self) -> Vec<String> {
        let operations = self.operations().into_iter();
        operations.map(|operation| operation.name).collect()
    }

    /// The entity.
    pub fn entity(&self) -> &str {
        &self.request.instance_id
    }

    /// The entity's state, if it has one.
    pub fn state(&self) -> Option<&str> {
        self.request.entity_state.as_deref()
    }

    /// An answer to the first operations, and what the state is after them.
    pub fn result(&self, results: Vec<OperationResult>, state: Option<&str>) -> EntityBatchResult {
        EntityBatchResult {
            completion_token: self.token.clone(),
            ..batch_result(&self.request, results, state)
        }
    }
}

/// Answers the first operations of a request, without its token, in the way of Java and JavaScript: with as many
/// operation infos as results.
pub fn batch_result(
    request: &EntityRequest,
    results: Vec<OperationResult>,
    state: Option<&str>,
) -> EntityBatchResult {
    let infos = operations(request).into_iter().map(|operation| {
        let destination = operation.parent.map(|(instance_id, execution_id)| {
            let execution_id = Some(execution_id);
            OrchestrationInstance {
                instance_id,
                execution_id,
            }
        });
        OperationInfo {
            request_id: operation.request_id,
            response_destination: destination,
        }
    });
    EntityBatchResult {
        operation_infos: infos.take(results.len()).collect(),
        results,
        entity_state: state.map(str::to_owned),
        ..Default::default()
    }
}

/// Reads the operations of a request, and panics where one has not the form that SDKs rely on.
pub fn operations(request: &EntityRequest) -> Vec<Operation> {
    let events = request.operation_requests.iter();
    events
        .map(|event| Operation::read(&request.instance_id, event))
        .collect()
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Names the request; always a GUID.
    pub request_id: String,
    /// Name of the operation.
    pub name: String,
    /// Its input.
    pub input: Option<String>,
    /// Instance and execution that wait for the outcome of a call; a signal has none.
    pub parent: Option<(String, String)>,
}

impl Operation {
    fn read(entity: &str, event: &HistoryEvent) -> Self {
        let (operation, target) = match event.event_type.clone() {
            Some(EventType::EntityOperationSignaled(signal)) => (
                Self {
                    request_id: signal.request_id,
                    name: signal.operation,
                    input: signal.input,
                    parent: None,
                },
                signal.target_instance_id,
            ),
            Some(EventType::EntityOperationCalled(call)) => (
                Self {
                    request_id: call.request_id,
                    name: call.operation,
                    input: call.input,
                    parent: Some((
                        call.parent_instance_id
                            .expect("S-12.51, a call names its caller"),
                        call.parent_execution_id
                            .expect("S-12.9, a call names its caller's execution"),
                    )),
                },
                call.target_instance_id,
            ),
            other => panic!("S-12.9, operations only: {other:?}"),
        };
        assert_eq!(event.event_id, -1, "S-12.9: {event:?}");
        assert!(event.timestamp.is_some(), "S-12.9, a time: {event:?}");
        assert_eq!(target.as_deref(), Some(entity), "S-12.9: {event:?}");
        assert!(
            is_guid(&operation.request_id),
            "S-12.51, a GUID: {operation:?}"
        );
        operation
    }
}

/// The call that an event of a history is about.
pub fn called(event: &HistoryEvent) -> &EntityOperationCalledEvent {
    match &event.event_type {
        Some(EventType::EntityOperationCalled(call)) => call,
        other => panic!("expected EntityOperationCalled, got {other:?}"),
    }
}

/// Request and result of the call that an event says to be completed.
pub fn completed(event: &HistoryEvent) -> (&str, Option<&str>) {
    match &event.event_type {
        Some(EventType::EntityOperationCompleted(done)) => {
            (&done.request_id, done.output.as_deref())
        }
        other => panic!("expected EntityOperationCompleted, got {other:?}"),
    }
}

/// Request and details of the call that an event says to have failed.
pub fn failed(event: &HistoryEvent) -> (&str, &TaskFailureDetails) {
    match &event.event_type {
        Some(EventType::EntityOperationFailed(failed)) => (
            &failed.request_id,
            failed
                .failure_details
                .as_ref()
                .expect("S-12.15, a failure has details"),
        ),
        other => panic!("expected EntityOperationFailed, got {other:?}"),
    }
}

fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && parts
            .concat()
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit())
}

/// A GUID made of a number.
pub fn guid(number: u128) -> String {
    let digits = format!("{number:032x}");
    let (a, b, c, d, e) = (
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// A GUID that this test process has not had before.
pub fn fresh_guid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    guid(0xfeed << 112 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A success with a result.
pub fn success(result: &str) -> OperationResult {
    OperationResult {
        result_type: Some(ResultType::Success(OperationResultSuccess {
            result: Some(result.to_owned()),
            ..Default::default()
        })),
    }
}

/// A failure.
pub fn failure(error_type: &str, message: &str) -> OperationResult {
    failure_with(TaskFailureDetails {
        error_type: error_type.to_owned(),
        error_message: message.to_owned(),
        ..Default::default()
    })
}

/// A failure with any details.
pub fn failure_with(details: TaskFailureDetails) -> OperationResult {
    OperationResult {
        result_type: Some(ResultType::Failure(OperationResultFailure {
            failure_details: Some(details),
            ..Default::default()
        })),
    }
}

/// Asks for work of these orchestrators and entities, and for nothing else.
pub fn taking(orchestrators: &[&str], entities: &[&str]) -> GetWorkItemsRequest {
    let orchestration = |name: &&str| OrchestrationFilter {
        name: (*name).to_owned(),
        versions: Vec::new(),
    };
    let entity = |name: &&str| EntityFilter {
        name: (*name).to_owned(),
    };
    GetWorkItemsRequest {
        work_item_filters: Some(WorkItemFilters {
            orchestrations: orchestrators.iter().map(orchestration).collect(),
            activities: Vec::new(),
            entities: entities.iter().map(entity).collect(),
        }),
        ..Default::default()
    }
}

/// What clients and workers do with entities.
impl Peer {
    /// Signals an entity, and has to succeed.
    pub async fn signal(&self, entity: &str, operation: &str, input: &str) {
        self.try_signal(signal_request(entity, operation, input))
            .await
            .unwrap_or_else(|status| panic!("signal {entity}: {status}"));
    }

    /// Sends any signal.
    pub async fn try_signal(&self, request: SignalEntityRequest) -> Result<(), Status> {
        let call = async { self.client().signal_entity(request).await };
        patiently("SignalEntity", call).await.map(drop)
    }

    /// What a client sees of an entity that exists.
    pub async fn find_entity(&self, entity: &str) -> Option<EntityMetadata> {
        self.try_find_entity(entity, true)
            .await
            .unwrap_or_else(|status| panic!("get {entity}: {status}"))
    }

    /// What a client sees of an entity, with its state or without.
    pub async fn try_find_entity(
        &self,
        entity: &str,
        include_state: bool,
    ) -> Result<Option<EntityMetadata>, Status> {
        let request = GetEntityRequest {
            instance_id: entity.to_owned(),
            include_state,
        };
        let call = async { self.client().get_entity(request).await };
        let response = patiently("GetEntity", call).await?.into_inner();
        assert_eq!(
            response.exists,
            response.entity.is_some(),
            "S-12.38: {response:?}"
        );
        Ok(response.entity)
    }

    /// The state of an entity, if it exists.
    pub async fn entity_state(&self, entity: &str) -> Option<String> {
        let found = self.find_entity(entity).await?;
        Some(
            found
                .serialized_state
                .expect("S-12.38, the state was asked for"),
        )
    }

    /// Who holds the lock of an entity that has a state.
    pub async fn locked_by(&self, entity: &str) -> Option<String> {
        let found = self.find_entity(entity).await;
        found
            .unwrap_or_else(|| panic!("{entity} does not exist"))
            .locked_by
    }

    /// A page of entities.
    pub async fn query_entities(
        &self,
        query: EntityQuery,
    ) -> Result<QueryEntitiesResponse, Status> {
        let request = QueryEntitiesRequest { query: Some(query) };
        let call = async { self.client().query_entities(request).await };
        patiently("QueryEntities", call)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Answers the first operations of a batch, with its token.
    pub async fn settle(&self, batch: &Batch, results: Vec<OperationResult>, state: Option<&str>) {
        self.end_batch(batch.result(results, state))
            .await
            .unwrap_or_else(|status| panic!("completing {}: {status}", batch.entity()));
    }

    /// Sends any answer to a batch.
    pub async fn end_batch(&self, result: EntityBatchResult) -> Result<(), Status> {
        let call = async { self.client().complete_entity_task(result).await };
        patiently("CompleteEntityTask", call).await.map(drop)
    }

    /// Gives a batch back undone.
    pub async fn abandon_batch(&self, token: &str) {
        let request = AbandonEntityTaskRequest {
            completion_token: token.to_owned(),
        };
        let call = async { self.client().abandon_task_entity_work_item(request).await };
        patiently("AbandonTaskEntityWorkItem", call)
            .await
            .unwrap_or_else(|status| panic!("abandoning a batch: {status}"));
    }
}

/// A signal with a request id of its own.
pub fn signal_request(entity: &str, operation: &str, input: &str) -> SignalEntityRequest {
    SignalEntityRequest {
        instance_id: entity.to_owned(),
        name: operation.to_owned(),
        input: Some(input.to_owned()),
        request_id: fresh_guid(),
        ..Default::default()
    }
}

impl WorkStream {
    /// The next work item, which has to be a batch of operations, of the second layout (S-12.8).
    pub async fn batch(&mut self) -> Batch {
        let item = self.item().await;
        match item.request {
            Some(Work::EntityRequestV2(request)) => Batch {
                request,
                token: item.completion_token,
            },
            other => panic!("expected a batch, got {other:?}"),
        }
    }
}
