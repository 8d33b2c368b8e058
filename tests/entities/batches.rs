//! Batches: what is in one, and what an answer to one does.

use std::time::Duration;

use mainspring_proto::{EntityBatchResult, OperationInfo, TaskFailureDetails};
use mainspring_tests::action::{call, complete, lock, unlock};
use mainspring_tests::entity::{Batch, completed, fresh_guid, success};
use mainspring_tests::{Episode, Peer, WorkStream};
use prost::Message;
use tokio::time::Instant;

use crate::hands::{entities, stage, stage_without_entities, start};

/// Signals `@counter@a` with the operations `1`, `2` and so on.
async fn signal_all(peer: &Peer, count: usize) {
    for number in 1..=count {
        peer.signal("@counter@a", &number.to_string(), "").await;
    }
}

/// The numbers from `first` on, so many.
fn numbers(first: usize, count: usize) -> Vec<String> {
    (first..first + count)
        .map(|number| number.to_string())
        .collect()
}

/// A result for each operation.
async fn settle_all(peer: &Peer, batch: &Batch, state: &str) {
    let results = batch.names().iter().map(|name| success(name)).collect();
    peer.settle(batch, results, Some(state)).await;
}

/// A batch of `@counter@a` with the signals `1` to `count`, in the worker's hands.
async fn batch_of(peer: &Peer, stream: &mut WorkStream, count: usize) -> Batch {
    // What comes while a first batch is out comes together in the second (S-12.10).
    peer.signal("@counter@a", "first", "").await;
    let first = stream.batch().await;
    signal_all(peer, count).await;
    settle_all(peer, &first, "0").await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), numbers(1, count));
    assert_eq!(batch.state(), Some("0"));
    batch
}

#[tokio::test]
async fn operations_that_wait_come_in_order_and_one_batch_at_a_time() {
    // S-12.10, S-0.1: a second stream gets nothing of an entity whose batch is out.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 5).await;
    let mut second = entities(&peer).await;
    peer.signal("@counter@a", "6", "").await;
    tokio::join!(
        stream.nothing_for(Duration::from_millis(100)),
        second.nothing_for(Duration::from_millis(100))
    );
    settle_all(&peer, &batch, "5").await;
    let next = tokio::select! {
        batch = stream.batch() => batch,
        batch = second.batch() => batch,
    };
    assert_eq!((next.names(), next.state()), (numbers(6, 1), Some("5")));
}

#[tokio::test]
async fn a_long_queue_comes_in_order_over_several_batches() {
    // S-12.10.
    let (_scheduler, peer, _orchestrations) = stage_without_entities().await;
    signal_all(&peer, 450).await;
    let mut stream = entities(&peer).await;
    let mut done = 0;
    while done < 450 {
        let batch = stream.batch().await;
        let count = batch.names().len();
        assert_eq!(batch.names(), numbers(done + 1, count));
        done += count;
        settle_all(&peer, &batch, &done.to_string()).await;
    }
    assert_eq!(
        peer.entity_state("@counter@a").await.as_deref(),
        Some("450")
    );
}

#[tokio::test]
async fn a_batch_keeps_within_what_a_worker_can_receive() {
    // S-12.10, S-1.11: 4,000,000 bytes, the state included.
    let (_scheduler, peer, _orchestrations) = stage_without_entities().await;
    let input = "i".repeat(900_000);
    for number in 1..=7 {
        peer.signal("@counter@a", &number.to_string(), &input).await;
    }
    let mut stream = entities(&peer).await;
    let state = "s".repeat(1_000_000);
    let mut done = 0;
    while done < 7 {
        let batch = stream.batch().await;
        let size = batch.request.encoded_len();
        assert!(size <= 4_000_000, "{size} bytes");
        let count = batch.names().len();
        assert_eq!(batch.names(), numbers(done + 1, count));
        done += count;
        settle_all(&peer, &batch, &state).await;
    }
}

#[tokio::test]
async fn a_batch_ends_before_a_lock_request_and_never_shows_one() {
    // S-12.9, S-12.10: SDKs skip what is no operation, and their count of results would no longer match.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "first", "").await;
    let first = stream.batch().await;
    signal_all(&peer, 2).await;
    start(&peer, "a").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "a", "section", &["@counter@a"])])
        .await;
    peer.signal("@counter@a", "3", "").await;

    settle_all(&peer, &first, "0").await;
    let before = stream.batch().await;
    assert_eq!(before.names(), numbers(1, 2));
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    settle_all(&peer, &before, "2").await;
    let granted = orchestrations.episode().await;
    assert_eq!(
        granted.new_kinds(),
        ["OrchestratorStarted", "EntityLockGranted"]
    );
    stream.nothing_for(Duration::from_millis(100)).await;
    let give_back = vec![unlock(2, "a", "section", "@counter@a"), complete(3, "1")];
    peer.answer(&granted, give_back).await;
    let after = stream.batch().await;
    assert_eq!(after.names(), numbers(3, 1));
}

#[tokio::test]
async fn fewer_results_than_operations_consume_the_first_and_the_rest_comes_again() {
    // S-12.14, S-12.49.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 5).await;
    peer.settle(&batch, vec![success("1"), success("2")], Some("2"))
        .await;
    let rest = stream.batch().await;
    assert_eq!((rest.names(), rest.state()), (numbers(3, 3), Some("2")));
    assert_ne!(rest.token, batch.token);
    settle_all(&peer, &rest, "5").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("5"));
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn more_results_than_operations_are_ignored() {
    // S-12.14: also those that would belong to an operation that came meanwhile.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 2).await;
    peer.signal("@counter@a", "3", "").await;
    let results = vec![success("1"), success("2"), success("3"), success("4")];
    peer.settle(&batch, results, Some("2")).await;
    let next = stream.batch().await;
    assert_eq!((next.names(), next.state()), (numbers(3, 1), Some("2")));
    settle_all(&peer, &next, "3").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
}

/// Answers a batch in a way that consumes nothing, and expects it back after 0, 1 and 2 seconds.
async fn comes_back_later_and_later(
    peer: &Peer,
    stream: &mut WorkStream,
    mut batch: Batch,
    answer: impl Fn(&Batch) -> EntityBatchResult,
) -> Batch {
    for least in [0, 1, 2].map(Duration::from_secs) {
        let answered = Instant::now();
        peer.end_batch(answer(&batch)).await.unwrap();
        let again = stream.batch().await;
        let waited = answered.elapsed();
        // A timer may tick a little early; what matters is that the delay grows.
        assert!(
            waited + Duration::from_millis(50) >= least && waited < least + Duration::from_secs(1),
            "{waited:?} is not about {least:?}"
        );
        assert_ne!(again.token, batch.token, "S-13.18");
        assert_eq!(again.request, batch.request, "the same batch");
        batch = again;
    }
    batch
}

#[tokio::test]
async fn an_answer_without_any_result_gives_the_batch_back() {
    // S-12.14, S-13.17: as abandoned; nothing of what the answer holds besides is taken.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 2).await;
    let nothing = |batch: &Batch| batch.result(Vec::new(), Some("lost"));
    let batch = comes_back_later_and_later(&peer, &mut stream, batch, nothing).await;
    settle_all(&peer, &batch, "2").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_batch_that_failed_as_a_whole_is_tried_again_later_and_later() {
    // S-12.16: Java answers so for an entity that it does not know. The state stays, though the answer has none.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 2).await;
    let fails = |batch: &Batch| EntityBatchResult {
        failure_details: Some(TaskFailureDetails {
            error_type: "EntityTaskNotFound".to_owned(),
            error_message: "no entity 'counter'".to_owned(),
            ..Default::default()
        }),
        ..batch.result(Vec::new(), None)
    };
    let batch = comes_back_later_and_later(&peer, &mut stream, batch, fails).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("0"));
    settle_all(&peer, &batch, "2").await;
    // Success ends the back-off (S-13.17).
    signal_all(&peer, 1).await;
    let batch = stream.batch().await;
    let failed = Instant::now();
    peer.end_batch(fails(&batch)).await.unwrap();
    let again = stream.batch().await;
    assert!(failed.elapsed() < Duration::from_millis(900));
    settle_all(&peer, &again, "3").await;
}

#[tokio::test]
async fn an_abandoned_batch_comes_back_later_and_later() {
    // S-12.20, S-13.17; an unknown token is no error.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let mut batch = batch_of(&peer, &mut stream, 3).await;
    peer.abandon_batch("no such token").await;
    for least in [0, 1].map(Duration::from_secs) {
        let abandoned = Instant::now();
        peer.abandon_batch(&batch.token).await;
        let again = stream.batch().await;
        assert!(abandoned.elapsed() + Duration::from_millis(50) >= least);
        assert_eq!(again.request, batch.request);
        batch = again;
    }
    settle_all(&peer, &batch, "3").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_worker_that_asks_for_the_state_gets_the_batch_again() {
    // S-12.19: the state is always with it.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 2).await;
    let asks = EntityBatchResult {
        requires_state: true,
        ..batch.result(Vec::new(), None)
    };
    peer.end_batch(asks).await.unwrap();
    let again = stream.batch().await;
    assert_eq!(again.request, batch.request);
    settle_all(&peer, &again, "2").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("2"));
}

/// An orchestration that called `@counter@a` with two calls, and the batch of both.
async fn two_calls(
    peer: &Peer,
    orchestrations: &mut WorkStream,
    stream: &mut WorkStream,
) -> (Batch, [String; 2]) {
    start(peer, "a").await;
    let episode = orchestrations.episode().await;
    let ids = [fresh_guid(), fresh_guid()];
    let actions = vec![
        call(1, &ids[0], "@counter@a", "one", ""),
        call(2, &ids[1], "@counter@a", "two", ""),
    ];
    peer.answer(&episode, actions).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["one", "two"]);
    (batch, ids)
}

/// The next episode, which has to bring these two outcomes in this order, at once or one after the other.
async fn both_outcomes(peer: &Peer, orchestrations: &mut WorkStream, ids: &[String; 2]) -> Episode {
    let mut episode = orchestrations.episode().await;
    if episode.request.new_events.len() == 2 {
        peer.answer(&episode, Vec::new()).await;
        episode = orchestrations.episode().await;
    }
    let events = [&episode.request.past_events, &episode.request.new_events];
    let outcomes: Vec<_> = events
        .into_iter()
        .flatten()
        .filter(|event| {
            mainspring_tests::kinds(&[(*event).clone()]) == ["EntityOperationCompleted"]
        })
        .map(completed)
        .collect();
    assert_eq!(
        outcomes,
        [(ids[0].as_str(), Some("1")), (ids[1].as_str(), Some("2"))]
    );
    episode
}

#[tokio::test]
async fn outcomes_are_routed_by_what_was_asked_whatever_the_answer_says_of_it() {
    // S-12.13: operation infos are empty on the first layout, trimmed by Java, and may hold no execution.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let (batch, ids) = two_calls(&peer, &mut orchestrations, &mut stream).await;
    let swapped = ids.iter().rev().map(|id| OperationInfo {
        request_id: id.clone(),
        response_destination: None,
    });
    let answer = EntityBatchResult {
        operation_infos: swapped.collect(),
        ..batch.result(vec![success("1"), success("2")], Some("2"))
    };
    peer.end_batch(answer).await.unwrap();
    let episode = both_outcomes(&peer, &mut orchestrations, &ids).await;
    peer.answer(&episode, vec![complete(3, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn an_answer_that_is_sent_twice_counts_once() {
    // S-4.7, S-12.15: Python fails on a second outcome.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let (batch, ids) = two_calls(&peer, &mut orchestrations, &mut stream).await;
    let answer = batch.result(vec![success("1"), success("2")], Some("2"));
    peer.end_batch(answer.clone()).await.unwrap();
    peer.end_batch(answer.clone()).await.unwrap();
    peer.signal("@counter@a", "3", "").await;
    let next = stream.batch().await;
    // The token of the former batch is no proof for this one.
    peer.end_batch(answer).await.unwrap();
    settle_all(&peer, &next, "3").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
    let episode = both_outcomes(&peer, &mut orchestrations, &ids).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    peer.answer(&episode, vec![complete(3, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn answers_with_tokens_that_prove_nothing_change_nothing_and_are_no_error() {
    // S-4.4, S-4.16.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = batch_of(&peer, &mut stream, 2).await;
    for token in ["", "forged", &"t".repeat(5_000)] {
        let answer = EntityBatchResult {
            completion_token: token.to_owned(),
            ..batch.result(vec![success("1"), success("2")], Some("forged"))
        };
        peer.end_batch(answer).await.unwrap();
        peer.abandon_batch(token).await;
    }
    stream.nothing_for(Duration::from_millis(100)).await;
    settle_all(&peer, &batch, "2").await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("2"));
}
