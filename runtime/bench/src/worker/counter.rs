//! The entity of W3: a counter with one operation.

use std::sync::atomic::{AtomicU64, Ordering};

use mainspring_proto::operation_result::ResultType;
use mainspring_proto::{
    EntityBatchResult, OperationInfo, OperationResult, OperationResultSuccess,
    OrchestrationInstance,
};

use super::item::{Batch, Operation};

/// Name of the counter.
pub const COUNTER: &str = "counter";

/// Its operation: adds its input and answers with the sum.
pub const ADD: &str = "add";

/// An id that this process has not given to a request before, in the form of a GUID.
pub fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// Does all operations of a batch, in order.
pub fn answer(batch: Batch, completion_token: String) -> EntityBatchResult {
    let mut sum: u64 = number(&batch.state);
    let count = batch.operations.len();
    let (mut results, mut operation_infos) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for operation in batch.operations {
        let (input, info) = taken_apart(operation);
        sum += number(&input);
        results.push(success(sum));
        operation_infos.push(info);
    }
    EntityBatchResult {
        results,
        entity_state: Some(sum.to_string()),
        completion_token,
        operation_infos,
        ..Default::default()
    }
}

fn number(text: &Option<String>) -> u64 {
    text.as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// An operation's input, and where its answer goes.
fn taken_apart(operation: Operation) -> (Option<String>, OperationInfo) {
    if let Some(call) = operation.call {
        let caller = OrchestrationInstance {
            instance_id: call.caller_instance_id.unwrap_or_default(),
            execution_id: call.caller_execution_id,
        };
        let info = OperationInfo {
            request_id: call.request_id,
            response_destination: Some(caller),
        };
        (call.input, info)
    } else {
        let signal = operation.signal.unwrap_or_default();
        let info = OperationInfo {
            request_id: signal.request_id,
            response_destination: None,
        };
        (signal.input, info)
    }
}

fn success(sum: u64) -> OperationResult {
    OperationResult {
        result_type: Some(ResultType::Success(OperationResultSuccess {
            result: Some(sum.to_string()),
            ..Default::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_proto::history_event::EventType;
    use mainspring_proto::work_item::Request;
    use mainspring_proto::{
        EntityOperationCalledEvent, EntityOperationSignaledEvent, EntityRequest, HistoryEvent,
        WorkItem,
    };
    use prost::Message;

    use super::super::item::Item;
    use super::*;

    #[test]
    fn a_batch_is_added_up_in_order_and_calls_say_where_their_answer_goes() {
        let signal = EventType::EntityOperationSignaled(EntityOperationSignaledEvent {
            request_id: "first".to_owned(),
            operation: ADD.to_owned(),
            input: Some("2".to_owned()),
            ..Default::default()
        });
        let call = EventType::EntityOperationCalled(EntityOperationCalledEvent {
            request_id: "second".to_owned(),
            operation: ADD.to_owned(),
            input: Some("3".to_owned()),
            parent_instance_id: Some("caller".to_owned()),
            parent_execution_id: Some("generation".to_owned()),
            ..Default::default()
        });
        let event = |kind| HistoryEvent {
            event_type: Some(kind),
            ..Default::default()
        };
        let sent = WorkItem {
            completion_token: "token".to_owned(),
            request: Some(Request::EntityRequestV2(EntityRequest {
                entity_state: Some("40".to_owned()),
                operation_requests: vec![event(signal), event(call)],
                ..Default::default()
            })),
        };
        let item = Item::decode(sent.encode_to_vec().as_slice()).unwrap();
        let caller = OrchestrationInstance {
            instance_id: "caller".to_owned(),
            execution_id: Some("generation".to_owned()),
        };
        let info = |id: &str, response_destination| OperationInfo {
            request_id: id.to_owned(),
            response_destination,
        };
        let expected = EntityBatchResult {
            results: vec![success(42), success(45)],
            entity_state: Some("45".to_owned()),
            completion_token: "token".to_owned(),
            operation_infos: vec![info("first", None), info("second", Some(caller))],
            ..Default::default()
        };
        assert_eq!(answer(item.batch.unwrap(), item.completion_token), expected);
    }
}
