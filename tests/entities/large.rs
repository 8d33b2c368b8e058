//! States, inputs and results that are too large, for the limit or for the worker's channel (S-14.4, S-1.11).

use std::time::Duration;

use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::{
    EntityBatchResult, EntityQuery, OperationAction, OrchestrationStatus, SendSignalAction,
    StartNewOrchestrationAction, TaskFailureDetails,
};
use mainspring_tests::action::{call, complete};
use mainspring_tests::entity::{
    Batch, completed, failed, fresh_guid, signal_request, success, taking,
};
use mainspring_tests::{Peer, Scheduler, WorkStream};
use prost::Message;
use tonic::Code;

use crate::hands::{entities, orchestrations, stage, start};

/// The default limit of a payload (S-14.2).
const LIMIT: usize = 1 << 20;

/// A channel without a limit of its own, as JavaScript's.
const UNLIMITED: &str = "grpc-node-js/1.14.0";

/// Far more than what other channels receive.
const HUGE: usize = 15 << 20;

/// More than what other channels receive.
const WIDE: usize = 5 << 20;

/// The failure says which limit was passed, and by what.
fn is_too_large(details: &TaskFailureDetails, numbers: &[usize]) {
    assert_eq!(
        (details.error_type.as_str(), details.is_non_retriable),
        ("PayloadTooLarge", true),
        "{details:?}"
    );
    for number in numbers {
        let number = number.to_string();
        assert!(details.error_message.contains(&number), "{details:?}");
    }
}

fn send(entity: &str, input: &str) -> OperationAction {
    OperationAction {
        id: 0,
        operation_action_type: Some(OperationActionType::SendSignal(SendSignalAction {
            instance_id: entity.to_owned(),
            name: "sent".to_owned(),
            input: Some(input.to_owned()),
            ..Default::default()
        })),
    }
}

#[tokio::test]
async fn a_batch_with_too_large_a_state_comes_again_one_by_one_and_only_the_culprit_fails() {
    // S-14.4: without its state and what it asked for.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let ids = [fresh_guid(), fresh_guid(), fresh_guid()];
    let names = ["one", "two", "three"];
    let calls = (0..3).map(|at| call(at as i32 + 1, &ids[at], "@counter@a", names[at], ""));
    peer.answer(&first, calls.collect()).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), names);
    let too_large = "s".repeat(LIMIT + 1);
    let results = names.map(success).to_vec();
    peer.settle(&batch, results, Some(&too_large)).await;

    let one = stream.batch().await;
    assert_eq!((one.names(), one.state()), (vec!["one".to_owned()], None));
    peer.settle(&one, vec![success("one")], Some("1")).await;
    let two = stream.batch().await;
    assert_eq!(
        (two.names(), two.state()),
        (vec!["two".to_owned()], Some("1"))
    );
    let answer = EntityBatchResult {
        actions: vec![send("@other@x", "")],
        ..two.result(vec![success("two")], Some(&too_large))
    };
    peer.end_batch(answer).await.unwrap();
    let three = stream.batch().await;
    assert_eq!(
        (three.entity(), three.names(), three.state()),
        ("@counter@a", vec!["three".to_owned()], Some("1"))
    );
    peer.settle(&three, vec![success("three")], Some("3")).await;

    let mut outcomes = Vec::new();
    while outcomes.len() < 3 {
        let episode = orchestrations.episode().await;
        outcomes.extend(episode.request.new_events[1..].to_vec());
        peer.answer(&episode, Vec::new()).await;
    }
    assert_eq!(completed(&outcomes[0]), (ids[0].as_str(), Some("one")));
    let (id, details) = failed(&outcomes[1]);
    assert_eq!(id, ids[1]);
    is_too_large(details, &[LIMIT, LIMIT + 1]);
    assert_eq!(completed(&outcomes[2]), (ids[2].as_str(), Some("three")));
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_state_of_the_limit_is_kept() {
    // S-14.2: bytes are counted, not characters.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let longest = "ü".repeat(LIMIT / 2);
    peer.signal("@counter@a", "grow", "").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("")], Some(&longest)).await;
    assert_eq!(peer.entity_state("@counter@a").await, Some(longest.clone()));
    peer.signal("@counter@a", "grow", "").await;
    let batch = stream.batch().await;
    assert_eq!(batch.state(), Some(longest.as_str()));
    let longer = format!("{longest}x");
    peer.settle(&batch, vec![success("")], Some(&longer)).await;
    // The signal failed, which nobody is told; the entity goes on from where it was.
    peer.signal("@counter@a", "shrink", "").await;
    let batch = loop {
        let batch = stream.batch().await;
        if batch.names() == ["shrink"] {
            break batch;
        }
        assert_eq!(batch.names()[0], "grow");
        let only = vec![success("")];
        peer.settle(&batch, only, Some(&longer)).await;
    };
    assert_eq!(batch.state(), Some(longest.as_str()));
    peer.settle(&batch, vec![success("")], Some("1")).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
}

/// Has an orchestration call `@counter@a` once, answers until the call is answered, and expects it to fail.
async fn fails(
    peer: &Peer,
    orchestrations: &mut WorkStream,
    stream: &mut WorkStream,
    id: &str,
    answer: impl Fn(&Batch) -> EntityBatchResult,
) -> TaskFailureDetails {
    start(peer, id).await;
    let first = orchestrations.episode().await;
    peer.answer(
        &first,
        vec![call(1, &fresh_guid(), "@counter@a", "grow", "")],
    )
    .await;
    let second = loop {
        tokio::select! {
            episode = orchestrations.episode() => break episode,
            batch = stream.batch() => peer.end_batch(answer(&batch)).await.unwrap(),
        }
    };
    let details = failed(&second.request.new_events[1]).1.clone();
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait(id).await;
    details
}

#[tokio::test]
async fn results_and_actions_over_the_limit_fail_their_operation() {
    // S-14.4.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "set", "").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("")], Some("0")).await;
    let text = "x".repeat(LIMIT + 1);
    let start_new = OperationAction {
        id: 0,
        operation_action_type: Some(OperationActionType::StartNewOrchestration(
            StartNewOrchestrationAction {
                instance_id: "never".to_owned(),
                name: "n".to_owned(),
                input: Some(text.clone()),
                ..Default::default()
            },
        )),
    };
    let with = |actions: &[OperationAction], batch: &Batch| EntityBatchResult {
        actions: actions.to_vec(),
        ..batch.result(vec![success("")], Some("lost"))
    };
    let sends = [send("@other@x", ""), send("@other@x", &text)];
    let details = fails(&peer, &mut orchestrations, &mut stream, "result", |batch| {
        batch.result(vec![success(&text)], Some("lost"))
    })
    .await;
    is_too_large(&details, &[LIMIT, LIMIT + 1]);
    let details = fails(&peer, &mut orchestrations, &mut stream, "signal", |batch| {
        with(&sends, batch)
    })
    .await;
    is_too_large(&details, &[LIMIT, LIMIT + 1]);
    let details = fails(&peer, &mut orchestrations, &mut stream, "start", |batch| {
        with(std::slice::from_ref(&start_new), batch)
    })
    .await;
    is_too_large(&details, &[LIMIT, LIMIT + 1]);

    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("0"));
    assert_eq!(peer.find("never").await, None);
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn clients_and_orchestrations_send_no_input_over_the_limit() {
    // S-14.3, S-14.4.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let longest = "i".repeat(LIMIT);
    peer.signal("@counter@a", "add", &longest).await;
    let batch = stream.batch().await;
    assert_eq!(batch.operations()[0].input.as_ref(), Some(&longest));
    let longer = format!("{longest}i");
    let refused = peer
        .try_signal(signal_request("@counter@a", "add", &longer))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for number in [LIMIT, LIMIT + 1] {
        assert!(refused.message().contains(&number.to_string()), "{refused}");
    }

    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let action = call(1, &fresh_guid(), "@counter@a", "add", &longer);
    peer.answer(&first, vec![action]).await;
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    is_too_large(&state.failure_details.unwrap(), &[]);
}

fn raised() -> Scheduler {
    Scheduler::start(&["--payload-bytes-max", "16MiB", "--lease-grace", "500ms"])
}

#[tokio::test]
async fn fifteen_megabytes_of_state_work_over_a_channel_that_accepts_them() {
    // S-1.11: JavaScript's channels have no limit.
    let scheduler = raised();
    let peer = Peer::connect_as(&scheduler, UNLIMITED, None).await;
    let mut stream = entities(&peer).await;
    let state = "s".repeat(HUGE);
    peer.signal("@counter@a", "grow", "").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("")], Some(&state)).await;
    assert_eq!(
        peer.entity_state("@counter@a").await.map(|s| s.len()),
        Some(HUGE)
    );
    for _ in 0..2 {
        peer.signal("@counter@a", "touch", "").await;
        let batch = stream.batch().await;
        assert!(batch.state() == Some(state.as_str()), "the state is whole");
        peer.settle(&batch, vec![success("")], Some(&state)).await;
    }
    peer.signal("@counter@a", "shrink", "").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("")], Some("1")).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_state_that_the_workers_own_channel_cannot_carry_fails_its_operation() {
    // S-14.4, S-1.11: it would never come back to that worker.
    let scheduler = raised();
    for agent in ["", "grpc-python/1.78.0", "app grpc-dotnet/2.67.0"] {
        let peer = Peer::connect_as(&scheduler, agent, None).await;
        let mut orchestrations = orchestrations(&peer).await;
        let mut stream = entities(&peer).await;
        peer.signal("@counter@a", "set", "").await;
        let batch = stream.batch().await;
        peer.settle(&batch, vec![success("")], Some("0")).await;
        let state = "s".repeat(WIDE);
        let id = format!("o {agent}");
        let details = fails(&peer, &mut orchestrations, &mut stream, &id, |batch| {
            batch.result(vec![success("")], Some(&state))
        })
        .await;
        is_too_large(&details, &[WIDE]);
        peer.signal("@counter@a", "after", "").await;
        let batch = stream.batch().await;
        assert_eq!(
            (batch.names(), batch.state()),
            (vec!["after".to_owned()], Some("0"))
        );
        peer.settle(&batch, vec![success("")], Some("1")).await;
    }
}

#[tokio::test]
async fn a_state_that_a_channel_cannot_carry_is_never_sent_there() {
    // S-13.20, S-1.11: it would break the worker's stream again and again. Other entities are not held back.
    let scheduler = raised();
    let unlimited = Peer::connect_as(&scheduler, UNLIMITED, None).await;
    let mut stream = entities(&unlimited).await;
    let state = "s".repeat(WIDE);
    unlimited.signal("@counter@wide", "grow", "").await;
    let batch = stream.batch().await;
    unlimited
        .settle(&batch, vec![success("")], Some(&state))
        .await;
    drop(stream);

    let mut others = unlimited.open_with(taking(&[], &["other"])).await;
    let peer = Peer::connect_as(&scheduler, "grpc-python/1.78.0", None).await;
    let mut limited = entities(&peer).await;
    unlimited.signal("@counter@wide", "touch", "").await;
    unlimited.signal("@counter@narrow", "touch", "").await;
    let narrow = limited.batch().await;
    assert_eq!(narrow.entity(), "@counter@narrow");
    peer.settle(&narrow, vec![success("")], Some("1")).await;
    // Longer than the grace, in case the item was given to the stream that is gone.
    limited.nothing_for(Duration::from_millis(900)).await;
    others.nothing_for(Duration::from_millis(10)).await;
    let mut stream = entities(&unlimited).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["touch"]);
    assert!(batch.state() == Some(state.as_str()), "the state is whole");
}

#[tokio::test]
async fn operations_of_a_state_that_no_connected_worker_can_receive_fail_after_their_wait() {
    // S-13.20, S-14.4: the state stays for a worker that can.
    let scheduler = Scheduler::start(&[
        "--payload-bytes-max",
        "16MiB",
        "--lease-grace",
        "100ms",
        "--oversize-wait",
        "300ms",
    ]);
    let unlimited = Peer::connect_as(&scheduler, UNLIMITED, None).await;
    let mut stream = entities(&unlimited).await;
    let state = "s".repeat(WIDE);
    unlimited.signal("@counter@a", "grow", "").await;
    let batch = stream.batch().await;
    unlimited
        .settle(&batch, vec![success("")], Some(&state))
        .await;
    drop(stream);

    let peer = Peer::connect(&scheduler).await;
    let mut orchestrations = orchestrations(&peer).await;
    let mut limited = entities(&peer).await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let id = fresh_guid();
    peer.answer(&first, vec![call(1, &id, "@counter@a", "touch", "")])
        .await;
    let second = orchestrations.episode().await;
    let (failed_id, details) = failed(&second.request.new_events[1]);
    assert_eq!(failed_id, id);
    is_too_large(details, &[WIDE]);
    peer.answer(&second, vec![complete(2, "1")]).await;
    limited.nothing_for(Duration::from_millis(50)).await;
    let mut stream = entities(&unlimited).await;
    unlimited.signal("@counter@a", "shrink", "").await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["shrink"]);
    assert!(batch.state() == Some(state.as_str()), "the state is whole");
}

#[tokio::test]
async fn a_page_of_states_keeps_within_what_a_client_can_receive() {
    // S-12.39, S-11.10.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let state = "s".repeat(1_000_000);
    for key in 0..9 {
        peer.signal(&format!("@counter@{key}"), "grow", "").await;
        let batch = stream.batch().await;
        peer.settle(&batch, vec![success("")], Some(&state)).await;
    }
    let mut query = EntityQuery {
        include_state: true,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = peer.query_entities(query.clone()).await.unwrap();
        let size = page.encoded_len();
        assert!(size <= 4_000_000, "{size} bytes");
        found.extend(page.entities.into_iter().map(|entity| entity.instance_id));
        match page.continuation_token {
            Some(token) => query.continuation_token = Some(token),
            None => break,
        }
    }
    let wanted: Vec<_> = (0..9).map(|key| format!("@counter@{key}")).collect();
    assert_eq!(found, wanted);
}
