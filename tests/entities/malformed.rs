//! Damaged answers of workers to batches, and of orchestrators that speak to entities.
//!
//! Verified: none is answered with an error of the kind that means a mistake of the server, the server lives on, every
//! entity goes on when a sound worker comes, no lock stays behind, an entity of another hub is not disturbed, and the
//! store is sound. Not verified: what a damaged answer does, since damage may leave an answer that is right.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::work_item::Request as Work;
use mainspring_proto::{
    EntityBatchResult, EntityMetadata, EntityQuery, EntityRequest, OperationAction,
    OrchestratorAction, OrchestratorRequest, OrchestratorResponse, QueryInstancesRequest,
    SendSignalAction, StartNewOrchestrationAction, WorkItem,
};
use mainspring_tests::action::{call, complete, lock, signal, unlock};
use mainspring_tests::entity::{Batch, batch_result, failure, fresh_guid, operations, success};
use mainspring_tests::{Chance, Conduct, Crew, Episode, PATIENCE, Peer, Scheduler, patiently};
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::damage::damage;
use crate::hands::{store_is_sound, terminate};

const SEED: u64 = 2_027;

const WAVES: usize = 8;

/// Entities and orchestrations in each wave.
const WIDTH: usize = 12;

/// Damaged answers for each item; the first that counts ends it.
const ANSWERS: usize = 4;

/// A sound answer with everything in it that can be damaged.
fn entity_answer(batch: &Batch) -> EntityBatchResult {
    let act = |id, kind| OperationAction {
        id,
        operation_action_type: Some(kind),
    };
    let time = prost_types::Timestamp {
        seconds: 1_900_000_000,
        nanos: 7,
    };
    EntityBatchResult {
        actions: vec![
            act(
                1,
                OperationActionType::SendSignal(SendSignalAction {
                    instance_id: "@other@x".to_owned(),
                    name: "sent".to_owned(),
                    input: Some("1".to_owned()),
                    scheduled_time: Some(time),
                    ..Default::default()
                }),
            ),
            act(
                2,
                OperationActionType::StartNewOrchestration(StartNewOrchestrationAction {
                    instance_id: "started".to_owned(),
                    name: "n".to_owned(),
                    input: Some("1".to_owned()),
                    scheduled_time: Some(time),
                    ..Default::default()
                }),
            ),
        ],
        ..batch.result(vec![success("1"), failure("Boom", "boom")], Some("2"))
    }
}

/// A sound answer that sends entities everything that can be sent.
fn orchestrator_answer(episode: &Episode) -> OrchestratorResponse {
    let id = &episode.request.instance_id;
    let time = prost_types::Timestamp {
        seconds: 1_900_000_000,
        nanos: 7,
    };
    episode.response(vec![
        call(1, &fresh_guid(), "@counter@0", "add", "1"),
        signal(2, &fresh_guid(), "@counter@1", "add", "1", Some(time)),
        lock(3, id, id, &["@counter@2", "@counter@1", "@counter@2"]),
        unlock(4, id, id, "@counter@2"),
    ])
}

/// Sends an answer; only an error that means a mistake of the server's own is one here.
fn is_no_mistake(outcome: Result<(), Status>) {
    if let Err(status) = outcome {
        assert!(
            ![Code::Internal, Code::Unknown, Code::DataLoss].contains(&status.code()),
            "{status}"
        );
    }
}

/// Answers an item with damage.
async fn mangle(peer: &Peer, chance: &mut Chance, item: WorkItem) {
    for _ in 0..ANSWERS {
        match item.request.clone() {
            Some(Work::EntityRequestV2(request)) => {
                let batch = Batch {
                    request,
                    token: item.completion_token.clone(),
                };
                let bytes = damage(chance, &entity_answer(&batch).encode_to_vec());
                if let Ok(answer) = EntityBatchResult::decode(&bytes[..]) {
                    is_no_mistake(peer.end_batch(answer).await);
                }
            }
            Some(Work::OrchestratorRequest(request)) => {
                let episode = Episode {
                    request,
                    token: item.completion_token.clone(),
                };
                let bytes = damage(chance, &orchestrator_answer(&episode).encode_to_vec());
                if let Ok(answer) = OrchestratorResponse::decode(&bytes[..]) {
                    is_no_mistake(peer.respond(answer).await);
                }
            }
            // Damage can make an activity of a call. Whoever asked for it is terminated in the end.
            _ => return,
        }
    }
}

/// An entity of another hub that counts on until it is told to end.
async fn victim(peer: Peer, is_over: Arc<AtomicBool>) -> usize {
    let mut stream = peer.open().await;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        peer.signal("@counter@0", "add", "1").await;
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["add"]);
        let before = (count > 0).then(|| count.to_string());
        assert_eq!(batch.state().map(str::to_owned), before);
        count += 1;
        let state = count.to_string();
        peer.settle(&batch, vec![success("")], Some(&state)).await;
    }
    count
}

/// Answers everything as it should be.
struct Sound;

impl Conduct for Sound {
    fn decide(&self, _request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
        vec![complete(1_000, "1")]
    }

    fn execute(&self, request: &EntityRequest) -> EntityBatchResult {
        let results = operations(request).iter().map(|_| success("1")).collect();
        batch_result(request, results, Some("1"))
    }
}

/// Entities with operations that wait, or with a lock.
async fn left_over(peer: &Peer) -> Vec<EntityMetadata> {
    let mut query = EntityQuery {
        include_transient: true,
        ..Default::default()
    };
    let mut left = Vec::new();
    loop {
        let page = peer.query_entities(query.clone()).await.unwrap();
        let busy = |one: &EntityMetadata| one.backlog_queue_size > 0 || one.locked_by.is_some();
        left.extend(page.entities.into_iter().filter(busy));
        match page.continuation_token {
            Some(token) => query.continuation_token = Some(token),
            None => return left,
        }
    }
}

/// Terminates every orchestration, so that no lock is held by one that nobody continues.
async fn terminate_all(peer: &Peer) {
    let mut request = QueryInstancesRequest {
        query: Some(mainspring_proto::InstanceQuery {
            max_instance_count: 1_000,
            ..Default::default()
        }),
    };
    loop {
        let page = peer
            .client()
            .query_instances(request.clone())
            .await
            .unwrap()
            .into_inner();
        for state in page.orchestration_state {
            terminate(peer, &state.instance_id).await;
        }
        match page.continuation_token {
            Some(token) => request.query.as_mut().unwrap().continuation_token = Some(token),
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_answers_stop_no_entity_and_disturb_no_other() {
    let mut chance = Chance::new(SEED);
    let mut scheduler =
        Scheduler::start(&["--task-hubs", "default,second", "--lease-grace", "200ms"]);
    let second = Peer::connect_as(&scheduler, "", Some("second")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let victim = tokio::spawn(victim(second.clone(), Arc::clone(&is_over)));

    let peer = Peer::connect(&scheduler).await;
    for wave in 0..WAVES {
        let mut stream = peer.open().await;
        for number in 0..WIDTH {
            for entity in [number, WAVES * WIDTH + wave * WIDTH + number] {
                peer.signal(&format!("@counter@{entity}"), "add", "1").await;
                peer.signal(&format!("@counter@{entity}"), "add", "1").await;
            }
            peer.start("n", &format!("o{wave}-{number}")).await;
        }
        // Entities that every wave uses may wait for their back-off; those of this wave and its orchestrations come.
        for _ in 0..2 * WIDTH {
            let item = stream.item().await;
            mangle(&peer, &mut chance, item).await;
        }
    }
    assert!(scheduler.is_running(), "{}", scheduler.log());
    is_over.store(true, Ordering::Relaxed);
    let count = patiently("the victim's end", victim).await.unwrap();
    assert_eq!(
        second.entity_state("@counter@0").await,
        Some(count.to_string())
    );

    let crew = Crew::start(scheduler.address(), Arc::new(Sound), chance.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        crew.check();
        terminate_all(&peer).await;
        let left = left_over(&peer).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "entities stand still: {left:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the victim took {count} steps meanwhile");
    drop(crew);
    store_is_sound(scheduler).await;
}
