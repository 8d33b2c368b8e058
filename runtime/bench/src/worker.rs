//! The lean worker: one stream, answers as unary calls, as the published SDKs do.
//!
//! It keeps nothing between episodes; what an orchestrator would find out by replay is counted from the history.

use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType;
use mainspring_proto::work_item::Request;
use mainspring_proto::{
    ActivityRequest, ActivityResponse, CompleteOrchestrationAction, GetWorkItemsRequest,
    OrchestrationStatus, OrchestratorAction, OrchestratorRequest, OrchestratorResponse,
    ScheduleTaskAction, WorkItem,
};

use crate::driver::{Client, connect};

/// Orchestrator of W1: this many activities, one after the other.
pub const CHAIN: &str = "chain";

/// Length of a chain.
pub const CHAIN_STEPS: usize = 5;

/// Orchestrator of W2: as many activities at once as its input says.
pub const FAN: &str = "fan";

/// Items of each kind that may be in hand: more than any workload has outstanding.
const ITEMS_MAX: i32 = 2_000;

const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// Serves until it is killed.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    loop {
        if let Ok(client) = connect(address).await {
            // A stream that ended is opened again: the server may have been restarted.
            let _ended = serve_stream(client).await;
        }
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn serve_stream(mut client: Client) -> Result<(), tonic::Status> {
    let request = GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: ITEMS_MAX,
        max_concurrent_activity_work_items: ITEMS_MAX,
        ..Default::default()
    };
    let mut items = client.get_work_items(request).await?.into_inner();
    while let Some(item) = items.message().await? {
        let client = client.clone();
        tokio::spawn(async move {
            if let Err(status) = answer(client, item).await {
                eprintln!("completion: {}: {}", status.code(), status.message());
            }
        });
    }
    Ok(())
}

async fn answer(mut client: Client, item: WorkItem) -> Result<(), tonic::Status> {
    let completion_token = item.completion_token;
    match item.request {
        Some(Request::OrchestratorRequest(request)) => {
            let response = OrchestratorResponse {
                actions: decide(&request),
                instance_id: request.instance_id,
                completion_token,
                ..Default::default()
            };
            client.complete_orchestrator_task(response).await.map(drop)
        }
        Some(Request::ActivityRequest(request)) => client
            .complete_activity_task(echo(request, completion_token))
            .await
            .map(drop),
        _ => Ok(()),
    }
}

fn echo(request: ActivityRequest, completion_token: String) -> ActivityResponse {
    ActivityResponse {
        instance_id: request
            .orchestration_instance
            .map(|instance| instance.instance_id)
            .unwrap_or_default(),
        task_id: request.task_id,
        result: request.input,
        completion_token,
        ..Default::default()
    }
}

/// What a history says so far.
#[derive(Default)]
struct Progress<'a> {
    name: &'a str,
    input: &'a str,
    scheduled: usize,
    completed: usize,
    last_result: &'a str,
}

impl<'a> Progress<'a> {
    fn of(request: &'a OrchestratorRequest) -> Self {
        let mut progress = Self::default();
        for event in request.past_events.iter().chain(&request.new_events) {
            match &event.event_type {
                Some(EventType::ExecutionStarted(started)) => {
                    progress.name = &started.name;
                    progress.input = started.input.as_deref().unwrap_or_default();
                }
                Some(EventType::TaskScheduled(_)) => progress.scheduled += 1,
                Some(EventType::TaskCompleted(task)) => {
                    progress.completed += 1;
                    progress.last_result = task.result.as_deref().unwrap_or_default();
                }
                _ => {}
            }
        }
        progress
    }
}

fn decide(request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
    let progress = Progress::of(request);
    match progress.name {
        CHAIN => chain(&progress),
        FAN => fan(&progress),
        _ => vec![complete(1, "")],
    }
}

fn chain(progress: &Progress<'_>) -> Vec<OrchestratorAction> {
    let next = progress.scheduled + 1;
    if progress.completed == CHAIN_STEPS {
        vec![complete(next, progress.last_result)]
    } else if progress.completed < progress.scheduled {
        Vec::new()
    } else if progress.completed == 0 {
        vec![schedule(next, progress.input)]
    } else {
        vec![schedule(next, progress.last_result)]
    }
}

fn fan(progress: &Progress<'_>) -> Vec<OrchestratorAction> {
    let width = progress.input.parse().unwrap_or(0);
    if progress.completed == width {
        vec![complete(width + 1, progress.input)]
    } else if progress.scheduled == 0 {
        (1..=width)
            .map(|id| schedule(id, &format!("{{\"id\":{id}}}")))
            .collect()
    } else {
        Vec::new()
    }
}

fn schedule(id: usize, input: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::ScheduleTask(ScheduleTaskAction {
            name: "echo".to_owned(),
            input: Some(input.to_owned()),
            ..Default::default()
        }),
    )
}

fn complete(id: usize, result: &str) -> OrchestratorAction {
    action(
        id,
        OrchestratorActionType::CompleteOrchestration(CompleteOrchestrationAction {
            orchestration_status: OrchestrationStatus::Completed.into(),
            result: Some(result.to_owned()),
            ..Default::default()
        }),
    )
}

fn action(id: usize, kind: OrchestratorActionType) -> OrchestratorAction {
    OrchestratorAction {
        id: i32::try_from(id).unwrap_or(i32::MAX),
        orchestrator_action_type: Some(kind),
    }
}
