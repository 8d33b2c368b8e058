//! Starts that lie ahead, and what is left of one whose instance goes before its time.

use std::time::{Duration, SystemTime};

use mainspring_proto::purge_instances_request::Request as Selection;
use mainspring_proto::*;
use mainspring_tests::action::complete;
use mainspring_tests::{Peer, Scheduler};
use tokio::time::Instant;

fn later(id: &str, delay: Duration) -> CreateInstanceRequest {
    CreateInstanceRequest {
        name: "n".to_owned(),
        instance_id: id.to_owned(),
        scheduled_start_timestamp: Some((SystemTime::now() + delay).into()),
        ..Default::default()
    }
}

async fn terminate(peer: &Peer, id: &str) {
    let request = TerminateRequest {
        instance_id: id.to_owned(),
        ..Default::default()
    };
    peer.client().terminate_instance(request).await.unwrap();
}

async fn purge(peer: &Peer, id: &str) {
    let request = PurgeInstancesRequest {
        request: Some(Selection::InstanceId(id.to_owned())),
        is_orchestration: true,
        ..Default::default()
    };
    let purged = peer
        .client()
        .purge_instances(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(purged.deleted_instance_count, 1);
}

#[tokio::test]
async fn an_instance_waits_for_its_start_and_shows_it() {
    // S-6.6: visible as PENDING at once, dispatched no earlier; a restart in between changes nothing.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let begun = Instant::now();
    let delay = Duration::from_millis(1_500);
    peer.create(later("a", delay)).await.unwrap();
    let state = peer.get("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Pending);
    assert!(state.scheduled_start_timestamp.is_some());
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    let episode = stream.episode().await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!(
        episode.new_kinds(),
        ["OrchestratorStarted", "ExecutionStarted"]
    );
    peer.answer(&episode, vec![complete(1, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn the_start_of_an_instance_that_is_gone_does_not_start_its_namesake() {
    // S-6.6, S-11.24.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.create(later("a", Duration::from_millis(700)))
        .await
        .unwrap();
    terminate(&peer, "a").await;
    purge(&peer, "a").await;
    let begun = Instant::now();
    let delay = Duration::from_secs(2);
    peer.create(later("a", delay)).await.unwrap();
    let episode = stream.episode().await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    peer.answer(&episode, vec![complete(1, "1")]).await;
}

#[tokio::test]
async fn nothing_is_left_in_the_store_of_a_start_whose_instance_is_purged_or_replaced() {
    // S-11.24.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let hour = Duration::from_secs(3_600);
    for id in ["a", "b"] {
        peer.create(later(id, hour)).await.unwrap();
        terminate(&peer, id).await;
    }
    purge(&peer, "a").await;
    peer.start("n", "b").await;
    scheduler.stop().await;
    let folder = scheduler.data_dir();
    let (code, out, err) =
        Scheduler::run(&["store", "check", "--data-dir", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains(" 0 scheduled starts"), "{out}");
}
