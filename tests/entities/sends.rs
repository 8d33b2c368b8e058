//! What operations send: signals, and orchestrations that they start.

use std::time::{Duration, SystemTime};

use mainspring_proto::history_event::EventType;
use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::{
    EntityBatchResult, OperationAction, OperationResult, OrchestrationStatus,
    QueryInstancesRequest, SendSignalAction, StartNewOrchestrationAction,
};
use mainspring_tests::action::complete;
use mainspring_tests::entity::{failure, success, taking};
use mainspring_tests::{Episode, Peer, WorkStream};
use tokio::time::Instant;

use crate::hands::{ORCHESTRATOR, ends_as, entities, stage, start};

fn act(kind: OperationActionType) -> OperationAction {
    OperationAction {
        id: 0,
        operation_action_type: Some(kind),
    }
}

fn send(entity: &str, operation: &str) -> OperationAction {
    act(OperationActionType::SendSignal(SendSignalAction {
        instance_id: entity.to_owned(),
        name: operation.to_owned(),
        input: Some(format!("\"{operation}\"")),
        ..Default::default()
    }))
}

fn start_new(id: &str, input: &str) -> StartNewOrchestrationAction {
    StartNewOrchestrationAction {
        instance_id: id.to_owned(),
        name: ORCHESTRATOR.to_owned(),
        input: Some(input.to_owned()),
        ..Default::default()
    }
}

/// Has `@counter@a` execute one operation that asks for this.
async fn act_all(peer: &Peer, stream: &mut WorkStream, actions: Vec<OperationAction>) {
    act_after(peer, stream, success(""), actions).await;
}

async fn act_after(
    peer: &Peer,
    stream: &mut WorkStream,
    result: OperationResult,
    actions: Vec<OperationAction>,
) {
    peer.signal("@counter@a", "act", "").await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["act"]);
    let answer = EntityBatchResult {
        actions,
        ..batch.result(vec![result], Some("1"))
    };
    peer.end_batch(answer).await.unwrap();
}

/// Input of an episode that begins a generation.
fn input(episode: &Episode) -> Option<String> {
    let started = episode.request.new_events.iter();
    let mut inputs = started.filter_map(|event| match &event.event_type {
        Some(EventType::ExecutionStarted(started)) => Some(started.input.clone()),
        _ => None,
    });
    inputs.next().expect("the generation begins")
}

#[tokio::test]
async fn signals_of_an_entity_arrive_in_its_order_with_ids_of_the_server() {
    // S-12.48, S-12.11, S-12.18: reading a batch checks that they are GUIDs.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@other@x", "first", "").await;
    let first = stream.batch().await;
    let actions = vec![
        send("@other@x", "1"),
        send("@Other@x", "2"),
        send("@other@x", "1"),
    ];
    act_all(&peer, &mut stream, actions).await;
    act_all(&peer, &mut stream, vec![send("@other@x", "4")]).await;
    peer.settle(&first, vec![success("")], Some("0")).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["1", "2", "1", "4"]);
    let operations = batch.operations();
    let mut ids: Vec<_> = operations.iter().map(|one| &one.request_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert_eq!(operations[1].input.as_deref(), Some("\"2\""));
    assert!(operations.iter().all(|one| one.parent.is_none()));
}

#[tokio::test]
async fn an_entity_signals_itself_behind_what_waits_already() {
    // S-17.2.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "first", "").await;
    let first = stream.batch().await;
    peer.signal("@counter@a", "second", "").await;
    let answer = EntityBatchResult {
        actions: vec![send("@counter@a", "myself")],
        ..first.result(vec![success("")], Some("1"))
    };
    peer.end_batch(answer).await.unwrap();
    let mut names = Vec::new();
    while names.len() < 2 {
        let batch = stream.batch().await;
        assert_eq!(batch.state(), Some("1"));
        let results = batch.names().iter().map(|name| success(name)).collect();
        peer.settle(&batch, results, Some("1")).await;
        names.extend(batch.names());
    }
    assert_eq!(names, ["second", "myself"]);
}

#[tokio::test]
async fn an_entity_starts_an_orchestration() {
    // S-12.48, S-10.7.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let start = StartNewOrchestrationAction {
        version: Some("1.2".to_owned()),
        ..start_new("o", "\"in\"")
    };
    let actions = vec![act(OperationActionType::StartNewOrchestration(start))];
    act_all(&peer, &mut stream, actions).await;
    let episode = orchestrations.episode().await;
    assert_eq!(episode.request.instance_id, "o");
    let Some(EventType::ExecutionStarted(started)) = &episode.request.new_events[1].event_type
    else {
        panic!("expected ExecutionStarted, got {:?}", episode.new_kinds());
    };
    assert_eq!(started.name, ORCHESTRATOR);
    assert_eq!(started.version.as_deref(), Some("1.2"));
    assert_eq!(started.input.as_deref(), Some("\"in\""));
    assert_eq!(started.parent_instance, None);
    peer.answer(&episode, vec![complete(1, "\"out\"")]).await;
    assert_eq!(peer.wait("o").await.output.as_deref(), Some("\"out\""));
}

#[tokio::test]
async fn an_id_is_made_up_where_none_is_given() {
    // S-10.7.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let start = || {
        act(OperationActionType::StartNewOrchestration(start_new(
            "", "1",
        )))
    };
    act_all(&peer, &mut stream, vec![start(), start()]).await;
    let ids = [
        orchestrations.episode().await.request.instance_id,
        orchestrations.episode().await.request.instance_id,
    ];
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| !id.is_empty()));
}

#[tokio::test]
async fn an_active_orchestration_wins_in_silence_and_one_that_has_ended_is_replaced() {
    // S-10.7: scheduled tasks rely on it to avoid overlapping runs.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let start = |input: &str| {
        vec![act(OperationActionType::StartNewOrchestration(start_new(
            "o", input,
        )))]
    };
    act_all(&peer, &mut stream, start("1")).await;
    let first = orchestrations.episode().await;
    assert_eq!(input(&first).as_deref(), Some("1"));
    act_all(&peer, &mut stream, start("2")).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    assert_eq!(peer.get("o").await.input.as_deref(), Some("1"));
    peer.answer(&first, vec![complete(1, "1")]).await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;

    act_all(&peer, &mut stream, start("3")).await;
    let third = orchestrations.episode().await;
    assert_eq!(input(&third).as_deref(), Some("3"));
    assert_ne!(third.execution_id(), first.execution_id());
    peer.answer(&third, vec![complete(1, "3")]).await;
    assert_eq!(peer.wait("o").await.output.as_deref(), Some("3"));
}

#[tokio::test]
async fn two_starts_of_one_id_in_one_answer_make_one_run() {
    // S-10.7, S-12.18: in order.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let start = |input| {
        act(OperationActionType::StartNewOrchestration(start_new(
            "o", input,
        )))
    };
    act_all(&peer, &mut stream, vec![start("1"), start("2")]).await;
    let episode = orchestrations.episode().await;
    assert_eq!(input(&episode).as_deref(), Some("1"));
    peer.answer(&episode, vec![complete(1, "1")]).await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn an_orchestration_may_be_started_for_a_time() {
    // S-6.8, S-6.6.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let delay = Duration::from_millis(700);
    let begun = Instant::now();
    let start = StartNewOrchestrationAction {
        scheduled_time: Some((SystemTime::now() + delay).into()),
        ..start_new("o", "1")
    };
    let actions = vec![act(OperationActionType::StartNewOrchestration(start))];
    act_all(&peer, &mut stream, actions).await;
    let state = peer.get("o").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Pending);
    assert!(state.scheduled_start_timestamp.is_some());
    orchestrations.episode().await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_asked_for_beside_failures_counts() {
    // S-12.18: the SDK took out already what failed operations asked for.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let start = act(OperationActionType::StartNewOrchestration(start_new(
        "o", "1",
    )));
    let actions = vec![send("@other@x", "1"), start];
    act_after(&peer, &mut stream, failure("Boom", "boom"), actions).await;
    assert_eq!(stream.batch().await.entity(), "@other@x");
    assert_eq!(orchestrations.episode().await.request.instance_id, "o");
}

#[tokio::test]
async fn what_is_asked_for_beside_results_of_a_part_of_the_batch_counts_once() {
    // S-12.14, S-12.18.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "first", "").await;
    let first = stream.batch().await;
    for operation in ["1", "2"] {
        peer.signal("@counter@a", operation, "").await;
    }
    peer.settle(&first, vec![success("")], Some("0")).await;
    let mut others = peer.open_with(taking(&[], &["sink"])).await;
    let batch = stream.batch().await;
    let answer = EntityBatchResult {
        actions: vec![send("@sink@x", "1")],
        ..batch.result(vec![success("")], Some("1"))
    };
    peer.end_batch(answer).await.unwrap();
    let rest = stream.batch().await;
    assert_eq!(rest.names(), ["2"]);
    assert_eq!(others.batch().await.names(), ["1"]);
    peer.settle(&rest, vec![success("")], Some("2")).await;
    others.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn illegal_targets_are_dropped_and_never_reject_the_answer() {
    // S-4.18.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let overlong = "i".repeat(101);
    let mut actions = Vec::new();
    for target in ["", "nonsense", "@counter", "@@key", &overlong] {
        actions.push(send(target, "lost"));
    }
    for id in ["@counter@b", &overlong, "a\u{1}b"] {
        let start = start_new(id, "1");
        actions.push(act(OperationActionType::StartNewOrchestration(start)));
    }
    actions.push(act(OperationActionType::StartNewOrchestration(start_new(
        "legal", "1",
    ))));
    actions.push(send("@other@x", "legal"));
    act_all(&peer, &mut stream, actions).await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.entity(), batch.names()),
        ("@other@x", vec!["legal".to_owned()])
    );
    assert_eq!(orchestrations.episode().await.request.instance_id, "legal");
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
    let instances = peer
        .client()
        .query_instances(QueryInstancesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(instances.orchestration_state.len(), 1);
}

#[tokio::test]
async fn what_an_answered_batch_asked_for_is_there_after_a_crash() {
    // S-12.19: all of it or nothing.
    let (mut scheduler, peer, orchestrations, mut stream) = stage().await;
    drop(orchestrations);
    peer.signal("@counter@a", "act", "").await;
    let batch = stream.batch().await;
    let start_o = act(OperationActionType::StartNewOrchestration(start_new(
        "o", "1",
    )));
    let answer = EntityBatchResult {
        actions: vec![start_o, send("@other@x", "1")],
        ..batch.result(vec![success("")], Some("1"))
    };
    peer.end_batch(answer).await.unwrap();
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
    let mut stream = entities(&peer).await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.entity(), batch.names()),
        ("@other@x", vec!["1".to_owned()])
    );
    let mut orchestrations = crate::hands::orchestrations(&peer).await;
    assert_eq!(orchestrations.episode().await.request.instance_id, "o");
    stream.nothing_for(Duration::from_millis(100)).await;
    start(&peer, "p").await;
    assert_eq!(orchestrations.episode().await.request.instance_id, "p");
}
