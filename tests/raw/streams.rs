//! Work streams: pings, limits, filters, fairness.

use std::time::Duration;

use mainspring_proto::work_item::Request as Work;
use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{Peer, Scheduler};
use tokio::time::Instant;

/// Long enough to see that nothing comes, where something would come within 10 ms (S-13.26).
const A_WHILE: Duration = Duration::from_millis(300);

fn orchestrations(filters: &[(&str, &[&str])]) -> WorkItemFilters {
    WorkItemFilters {
        orchestrations: filters
            .iter()
            .map(|(name, versions)| OrchestrationFilter {
                name: (*name).to_owned(),
                versions: versions
                    .iter()
                    .map(|version| (*version).to_owned())
                    .collect(),
            })
            .collect(),
        ..Default::default()
    }
}

fn activities(filters: &[(&str, &[&str])]) -> WorkItemFilters {
    WorkItemFilters {
        activities: filters
            .iter()
            .map(|(name, versions)| ActivityFilter {
                name: (*name).to_owned(),
                versions: versions
                    .iter()
                    .map(|version| (*version).to_owned())
                    .collect(),
            })
            .collect(),
        ..Default::default()
    }
}

fn filtered(filters: WorkItemFilters) -> GetWorkItemsRequest {
    GetWorkItemsRequest {
        work_item_filters: Some(filters),
        ..Default::default()
    }
}

fn create(name: &str, id: &str, version: Option<&str>) -> CreateInstanceRequest {
    CreateInstanceRequest {
        name: name.to_owned(),
        instance_id: id.to_owned(),
        version: version.map(str::to_owned),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_health_ping_comes_first_even_with_work_waiting_and_then_at_least_once_an_interval() {
    // S-13.2, S-13.3: a stream that ends before its first message counts as a broken channel.
    let scheduler = Scheduler::start(&["--ping-interval", "200ms"]);
    let peer = Peer::connect(&scheduler).await;
    peer.start("n", "a").await;
    let mut stream = peer.open().await;
    let first = stream.message().await.unwrap().unwrap();
    assert!(
        matches!(first.request, Some(Work::HealthPing(_))),
        "{first:?}"
    );
    assert_eq!(first.completion_token, "");
    let episode = stream.episode().await;
    let silence = Instant::now();
    for _ in 0..3 {
        let ping = stream.message().await.unwrap().unwrap();
        assert!(
            matches!(ping.request, Some(Work::HealthPing(_))),
            "{ping:?}"
        );
    }
    assert!(
        silence.elapsed() >= Duration::from_millis(500),
        "pings need not come more often"
    );
    peer.answer(&episode, vec![complete(1, "1")]).await;
}

#[tokio::test]
async fn an_instance_is_pending_until_its_first_episode_is_committed() {
    // S-2.4: a start wait blocks while the first episode is with a worker.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    assert_eq!(
        peer.get("a").await.orchestration_status(),
        OrchestrationStatus::Pending
    );
    let mut wait = tonic::Request::new(GetInstanceRequest {
        instance_id: "a".to_owned(),
        ..Default::default()
    });
    wait.set_timeout(A_WHILE);
    let status = peer
        .client()
        .wait_for_instance_start(wait)
        .await
        .unwrap_err();
    assert!(
        [tonic::Code::DeadlineExceeded, tonic::Code::Cancelled].contains(&status.code()),
        "{status}"
    );
    peer.answer(&episode, vec![schedule(1, "work", "1")]).await;
    let wait = GetInstanceRequest {
        instance_id: "a".to_owned(),
        ..Default::default()
    };
    let response = peer
        .client()
        .wait_for_instance_start(wait)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        response.orchestration_state.unwrap().orchestration_status(),
        OrchestrationStatus::Running
    );
}

#[tokio::test]
async fn a_stream_holds_no_more_unanswered_items_than_it_asked_for() {
    // S-13.6, S-13.7, S-13.26.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    for id in ["a", "b", "c"] {
        peer.start("n", id).await;
    }
    let request = GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: 1,
        ..Default::default()
    };
    let mut stream = peer.open_with(request).await;
    for expected in ["a", "b", "c"] {
        let episode = stream.episode().await;
        assert_eq!(
            episode.request.instance_id, expected,
            "first come, first served (S-13.15)"
        );
        stream.nothing_for(Duration::from_millis(100)).await;
        peer.answer(&episode, vec![complete(1, "1")]).await;
    }
}

#[tokio::test]
async fn within_filters_that_name_something_an_empty_list_means_nothing_of_that_kind() {
    // S-13.9, S-13.12.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    peer.start("other", "x").await;
    peer.start("wanted", "a").await;
    let mut orchestrator = peer
        .open_with(filtered(orchestrations(&[("WANTED", &[])])))
        .await;
    let episode = orchestrator.episode().await;
    assert_eq!(
        episode.request.instance_id, "a",
        "names match without regard to case (S-13.11)"
    );
    peer.answer(&episode, vec![schedule(1, "work", "1")]).await;
    orchestrator.nothing_for(A_WHILE).await;

    let mut worker = peer.open_with(filtered(activities(&[("work", &[])]))).await;
    let activity = worker.activity().await;
    peer.finish(&activity, "1").await;
    worker.nothing_for(A_WHILE).await;
    let episode = orchestrator.episode().await;
    peer.answer(&episode, vec![complete(2, "1")]).await;
    peer.wait("a").await;
    assert_eq!(
        peer.get("x").await.orchestration_status(),
        OrchestrationStatus::Pending
    );
}

#[tokio::test]
async fn filters_are_forgotten_with_their_stream() {
    // S-13.13.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    drop(
        peer.open_with(filtered(orchestrations(&[("other", &[])])))
            .await,
    );
    peer.start("n", "a").await;
    let mut stream = peer.open().await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(1, "1")]).await;
}

#[tokio::test]
async fn versions_match_exactly_and_unset_is_the_empty_one() {
    // S-13.11.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    peer.create(create("n", "none", None)).await.unwrap();
    peer.create(create("n", "one", Some("1.0"))).await.unwrap();
    peer.create(create("n", "two", Some("2.0-beta")))
        .await
        .unwrap();
    let mut two = peer
        .open_with(filtered(orchestrations(&[("n", &["2.0-BETA"])])))
        .await;
    assert_eq!(two.episode().await.request.instance_id, "two");
    two.nothing_for(A_WHILE).await;
    let mut none = peer
        .open_with(filtered(orchestrations(&[("n", &[""])])))
        .await;
    assert_eq!(none.episode().await.request.instance_id, "none");
    none.nothing_for(A_WHILE).await;
    // Several filters of one name are a union.
    let mut union = peer
        .open_with(filtered(orchestrations(&[
            ("n", &["0.9"]),
            ("N", &["1.0"]),
        ])))
        .await;
    assert_eq!(union.episode().await.request.instance_id, "one");
}

#[tokio::test]
async fn an_activity_without_a_version_matches_by_that_of_its_orchestration() {
    // S-13.11.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    peer.create(create("n", "a", Some("3"))).await.unwrap();
    let mut stream = peer
        .open_with(filtered(orchestrations(&[("n", &["3"])])))
        .await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![schedule(1, "work", "1")]).await;
    let mut wrong = peer
        .open_with(filtered(activities(&[("work", &["", "2"])])))
        .await;
    wrong.nothing_for(A_WHILE).await;
    let mut right = peer
        .open_with(filtered(activities(&[("work", &["3"])])))
        .await;
    let activity = right.activity().await;
    assert_eq!(
        activity.request.version, None,
        "the item says what the action said"
    );
}

#[tokio::test]
async fn streams_of_one_connection_share_the_work() {
    // S-13.1, S-13.15.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let (mut one, mut two) = (peer.open().await, peer.open().await);
    for n in 0..10 {
        peer.start("n", &format!("i{n}")).await;
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(one.episode().await.request.instance_id);
        seen.push(two.episode().await.request.instance_id);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10, "each item goes to one stream");
}

#[tokio::test]
async fn thousands_of_waits_on_a_connection_do_not_hold_up_the_answers_of_its_worker() {
    // S-1.17, S-11.7: each wait holds a stream of the connection, and JS waits have no deadline.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let waits: Vec<_> = (0..3_000)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move { peer.wait("a").await })
        })
        .collect();
    // Calls of one connection arrive in the order in which they were made.
    tokio::task::yield_now().await;
    peer.get("a").await;
    peer.answer(&episode, vec![complete(1, "\"done\"")]).await;
    for wait in waits {
        assert_eq!(wait.await.unwrap().output.as_deref(), Some("\"done\""));
    }
}
