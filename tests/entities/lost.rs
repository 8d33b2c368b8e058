//! Workers and servers that go while a batch is in hand.

use std::time::Duration;

use mainspring_tests::action::{call, complete, lock, unlock};
use mainspring_tests::entity::{Batch, completed, fresh_guid, success};
use mainspring_tests::{Peer, Scheduler, WorkStream};
use tokio::time::Instant;

use crate::hands::{entities, orchestrations, stage, start};

/// [`GRACE`](crate::hands::GRACE), in which answers of a lost worker count.
const GRACE: Duration = Duration::from_millis(1_500);

/// Three operations of `@counter@a` in the hands of a worker, with the state `0`.
async fn in_hand(peer: &Peer, stream: &mut WorkStream) -> Batch {
    peer.signal("@counter@a", "first", "").await;
    let first = stream.batch().await;
    for operation in ["1", "2", "3"] {
        peer.signal("@counter@a", operation, "").await;
    }
    peer.settle(&first, vec![success("")], Some("0")).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["1", "2", "3"]);
    batch
}

fn three_results(batch: &Batch, state: &str) -> mainspring_proto::EntityBatchResult {
    let results = batch.names().iter().map(|name| success(name)).collect();
    batch.result(results, Some(state))
}

#[tokio::test]
async fn the_batch_of_a_lost_worker_is_handed_out_again_after_the_grace() {
    // S-12.20, S-12.49, S-13.19: an entity with work always comes back.
    let (scheduler, peer, _orchestrations, mut stream) = stage().await;
    let lost = in_hand(&peer, &mut stream).await;
    let mut others = entities(&Peer::connect(&scheduler).await).await;
    let died = Instant::now();
    drop(stream);
    peer.signal("@counter@a", "4", "").await;
    let again = others.batch().await;
    assert!(
        died.elapsed() + Duration::from_millis(50) >= GRACE,
        "{:?} is within the grace",
        died.elapsed()
    );
    assert_ne!(again.token, lost.token);
    assert_eq!(again.state(), Some("0"));
    assert_eq!(again.names()[..3], lost.names());
    // The first worker was not dead after all, and comes too late.
    peer.end_batch(three_results(&lost, "late")).await.unwrap();
    let mut done = again.names().len();
    peer.end_batch({
        let results = again.names().iter().map(|name| success(name)).collect();
        again.result(results, Some("again"))
    })
    .await
    .unwrap();
    while done < 4 {
        let rest = others.batch().await;
        assert_eq!(rest.state(), Some("again"));
        done += rest.names().len();
        peer.settle(&rest, vec![success("")], Some("again")).await;
    }
    assert_eq!(
        peer.entity_state("@counter@a").await.as_deref(),
        Some("again")
    );
}

#[tokio::test]
async fn an_answer_within_the_grace_counts_and_its_batch_never_comes_again() {
    // S-13.19: the state's effects come once.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = in_hand(&peer, &mut stream).await;
    drop(stream);
    let mut stream = entities(&peer).await;
    peer.end_batch(three_results(&batch, "3")).await.unwrap();
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
    stream.nothing_for(GRACE + Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_entity_whose_workers_are_lost_again_and_again_never_leaves_the_dispatcher() {
    // S-12.20: a queue that froze together with the locks on it is a known defect of others.
    let scheduler = Scheduler::start(&["--lease-grace", "50ms"]);
    let peer = Peer::connect(&scheduler).await;
    let mut orchestrations = orchestrations(&peer).await;
    start(&peer, "a").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "a", "s", &["@counter@a"])])
        .await;
    let granted = orchestrations.episode().await;
    let id = fresh_guid();
    peer.answer(&granted, vec![call(2, &id, "@counter@a", "held", "")])
        .await;
    peer.signal("@counter@a", "waits", "").await;
    for _ in 0..10 {
        let connection = Peer::connect(&scheduler).await;
        let mut stream = entities(&connection).await;
        assert_eq!(stream.batch().await.names(), ["held"]);
    }
    let mut stream = entities(&peer).await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    let answered = orchestrations.episode().await;
    assert_eq!(
        completed(&answered.request.new_events[1]),
        (id.as_str(), Some("1"))
    );
    assert_eq!(peer.locked_by("@counter@a").await.as_deref(), Some("a"));
    let give_back = vec![unlock(3, "a", "s", "@counter@a"), complete(4, "1")];
    peer.answer(&answered, give_back).await;
    assert_eq!(stream.batch().await.names(), ["waits"]);
}

#[tokio::test]
async fn a_batch_in_hand_at_a_crash_comes_again_and_its_former_token_proves_nothing() {
    // S-13.21.
    let (mut scheduler, peer, _orchestrations, mut stream) = stage().await;
    let batch = in_hand(&peer, &mut stream).await;
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = entities(&peer).await;
    let again = stream.batch().await;
    assert_eq!(again.request, batch.request, "the same batch");
    peer.end_batch(three_results(&batch, "former"))
        .await
        .unwrap();
    peer.end_batch(three_results(&again, "3")).await.unwrap();
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("3"));
    stream.nothing_for(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    // S-0.6, S-12.37, S-12.19: state, queue, time and lock.
    let (mut scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let batch = in_hand(&peer, &mut stream).await;
    peer.end_batch(three_results(&batch, "3")).await.unwrap();
    start(&peer, "a").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "a", "s", &["@counter@a"])])
        .await;
    orchestrations.episode().await;
    peer.signal("@counter@a", "waits", "").await;
    let before = peer.find_entity("@counter@a").await.unwrap();
    assert_eq!(before.locked_by.as_deref(), Some("a"));
    assert_eq!(before.backlog_queue_size, 1);
    scheduler.kill();
    scheduler.restart();

    let peer = Peer::connect(&scheduler).await;
    assert_eq!(peer.find_entity("@counter@a").await, Some(before));
    let mut stream = entities(&peer).await;
    let mut orchestrations = crate::hands::orchestrations(&peer).await;
    stream.nothing_for(Duration::from_millis(100)).await;
    let granted = orchestrations.episode().await;
    let give_back = vec![unlock(2, "a", "s", "@counter@a"), complete(3, "1")];
    peer.answer(&granted, give_back).await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.names(), batch.state()),
        (vec!["waits".to_owned()], Some("3"))
    );
}
