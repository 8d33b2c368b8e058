//! One orchestration from its start to its purge, worked on over the wire.

use mainspring_proto as proto;
use mainspring_proto::orchestrator_action::OrchestratorActionType;
use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use mainspring_proto::work_item::Request as Item;
use mainspring_proto::{OrchestrationStatus, WorkItem};
use tonic::Streaming;

use crate::running::Running;

async fn next(items: &mut Streaming<WorkItem>) -> WorkItem {
    items
        .message()
        .await
        .unwrap()
        .expect("streams never end with success")
}

/// S-13.2, S-13.26, S-10.8, S-11.3, S-11.12, S-11.17, S-3.27.
#[tokio::test]
async fn an_orchestration_is_started_worked_on_read_and_purged() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let mut worker = server.client().await;
    let mut items = worker
        .get_work_items(proto::GetWorkItemsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(
        matches!(next(&mut items).await.request, Some(Item::HealthPing(_))),
        "a ping comes first"
    );

    let start = proto::CreateInstanceRequest {
        instance_id: "order-17".to_owned(),
        name: "Order".to_owned(),
        input: Some("\"größe\"".to_owned()),
        ..Default::default()
    };
    client.start_instance(start).await.unwrap();
    let item = next(&mut items).await;
    let Some(Item::OrchestratorRequest(episode)) = item.request else {
        panic!("an episode comes next")
    };
    assert_eq!(episode.instance_id, "order-17");
    let complete = proto::CompleteOrchestrationAction {
        orchestration_status: OrchestrationStatus::Completed as i32,
        result: Some("7".to_owned()),
        ..Default::default()
    };
    let action = proto::OrchestratorAction {
        id: 1,
        orchestrator_action_type: Some(OrchestratorActionType::CompleteOrchestration(complete)),
    };
    let response = proto::OrchestratorResponse {
        instance_id: "order-17".to_owned(),
        actions: vec![action],
        completion_token: item.completion_token,
        ..Default::default()
    };
    worker.complete_orchestrator_task(response).await.unwrap();

    let get = proto::GetInstanceRequest {
        instance_id: "order-17".to_owned(),
        get_inputs_and_outputs: true,
    };
    let waited = client
        .wait_for_instance_completion(get.clone())
        .await
        .unwrap()
        .into_inner();
    let state = waited.orchestration_state.unwrap();
    assert_eq!(
        state.orchestration_status,
        OrchestrationStatus::Completed as i32
    );
    assert_eq!(
        (state.input.as_deref(), state.output.as_deref()),
        (Some("\"größe\""), Some("7"))
    );
    assert!(
        client
            .get_instance(get.clone())
            .await
            .unwrap()
            .into_inner()
            .exists
    );

    let page = client
        .query_instances(proto::QueryInstancesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (page.orchestration_state.len(), page.continuation_token),
        (1, None)
    );
    let list = client
        .list_instance_ids(proto::ListInstanceIdsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.instance_ids, ["order-17"]);
    assert!(list.last_instance_key.unwrap().contains("order-17"));

    let history = proto::StreamInstanceHistoryRequest {
        instance_id: "order-17".to_owned(),
        ..Default::default()
    };
    let mut chunks = client
        .stream_instance_history(history)
        .await
        .unwrap()
        .into_inner();
    let mut events = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        events.extend(chunk.events);
    }
    assert_eq!(events.len(), 3, "{events:?}");

    let purge = proto::PurgeInstancesRequest {
        request: Some(PurgeRequest::InstanceId("order-17".to_owned())),
        ..Default::default()
    };
    let purged = client.purge_instances(purge).await.unwrap().into_inner();
    assert_eq!(
        (purged.deleted_instance_count, purged.is_complete),
        (1, Some(true))
    );
    assert!(!client.get_instance(get).await.unwrap().into_inner().exists);
}
