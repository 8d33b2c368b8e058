//! What `GET /metrics` says, beside what was done.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mainspring_proto::*;
use mainspring_tests::action::{complete, continue_as_new, fail, schedule, timer};
use mainspring_tests::entity::{failure, success, taking};
use mainspring_tests::{Metrics, PATIENCE, Peer, Scheduler};
use tokio::time::{Instant, sleep};

/// Reads the metrics until they are as they have to become: what a worker or a client is told comes a moment before it is counted,
/// or after.
async fn until(scheduler: &Scheduler, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = scheduler.metrics().await;
        if is_so(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{what}: {metrics:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a series with a label `kind` says of orchestrations, activities and entities.
fn by_kind(metrics: &Metrics, name: &str) -> [f64; 3] {
    ["orchestration", "activity", "entity"]
        .map(|kind| metrics.of(&format!("{name}{{kind=\"{kind}\"}}")))
}

#[tokio::test]
async fn what_waits_and_what_is_out_is_told_by_kind_with_its_age() {
    const PENDING: &str = "mainspring_work_items_pending";
    const ACTIVE: &str = "mainspring_work_items_active";
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    // Answered once the store is open; until then there is nothing to be told.
    assert!(peer.find("a").await.is_none());
    let metrics = scheduler.metrics().await;
    assert_eq!(metrics.of("mainspring_workers_connected"), 0.0);
    assert_eq!(by_kind(&metrics, PENDING), [0.0; 3]);

    peer.start("n", "a").await;
    peer.start("n", "b").await;
    peer.signal("@e@1", "add", "1").await;
    let metrics = until(&scheduler, "three items wait", |metrics| {
        by_kind(metrics, PENDING) == [2.0, 0.0, 1.0]
    })
    .await;
    assert_eq!(by_kind(&metrics, ACTIVE), [0.0; 3]);
    let [episode, activity, batch] = by_kind(&metrics, "mainspring_work_items_pending_age_seconds");
    assert!(episode >= batch && batch > 0.0 && activity == 0.0);

    let one_at_a_time = GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: 1,
        ..taking(&["n"], &[])
    };
    let mut stream = peer.open_with(one_at_a_time).await;
    let episode = stream.episode().await;
    let metrics = until(&scheduler, "one is out", |metrics| {
        by_kind(metrics, ACTIVE) == [1.0, 0.0, 0.0]
    })
    .await;
    assert_eq!(by_kind(&metrics, PENDING), [1.0, 0.0, 1.0]);
    assert_eq!(metrics.of("mainspring_workers_connected"), 1.0);
    let [out, ..] = by_kind(&metrics, "mainspring_work_items_active_age_seconds");
    assert!(out > 0.0);

    // Activities that wait for a worker are there, too.
    peer.answer(
        &episode,
        vec![schedule(1, "work", "1"), schedule(2, "work", "2")],
    )
    .await;
    let metrics = until(&scheduler, "two activities wait", |metrics| {
        by_kind(metrics, PENDING) == [0.0, 2.0, 1.0]
    })
    .await;
    assert_eq!(by_kind(&metrics, ACTIVE), [1.0, 0.0, 0.0]);

    drop(stream);
    until(&scheduler, "the worker is gone", |metrics| {
        metrics.of("mainspring_workers_connected") == 0.0
    })
    .await;
}

#[tokio::test]
async fn what_was_done_is_counted_once_and_only_by_kind_status_and_outcome() {
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    // Five episodes: an instance with two activities, one of which fails, and a timer, which goes on as new and completes.
    peer.start("n", "a").await;
    let first = stream.episode().await;
    let at = prost_types::Timestamp::from(SystemTime::now() + Duration::from_millis(20));
    let actions = vec![schedule(1, "work", "1"), schedule(2, "work", "2")];
    peer.answer(&first, actions).await;
    let (one, two) = (stream.activity().await, stream.activity().await);
    let abandon = AbandonActivityTaskRequest {
        completion_token: one.token.clone(),
    };
    peer.client()
        .abandon_task_activity_work_item(abandon)
        .await
        .unwrap();
    let one = stream.activity().await;
    peer.finish(&one, "1").await;
    let second = stream.episode().await;
    let mut failed = two.response("");
    failed.result = None;
    failed.failure_details = Some(TaskFailureDetails {
        error_type: "Broken".to_owned(),
        ..Default::default()
    });
    peer.report(failed).await.unwrap();
    peer.answer(&second, vec![timer(3, at)]).await;
    let third = stream.episode().await;
    peer.answer(&third, vec![]).await;
    // The failure and the timer may come in one episode.
    let mut last = third;
    let is_fired = |episode: &mainspring_tests::Episode| {
        episode.new_kinds().contains(&"TimerFired".to_owned())
    };
    let mut episodes = 3;
    while !is_fired(&last) {
        last = stream.episode().await;
        episodes += 1;
        peer.answer(&last, vec![]).await;
    }
    peer.client()
        .raise_event(RaiseEventRequest {
            instance_id: "a".to_owned(),
            name: "go".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    let again = stream.episode().await;
    peer.answer(&again, vec![continue_as_new(4, "1")]).await;
    let end = stream.episode().await;
    peer.answer(&end, vec![complete(1, "1")]).await;
    episodes += 2;
    // Another fails, and a third is terminated.
    peer.start("n", "b").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![fail(1, "no")]).await;
    peer.start("n", "c").await;
    let void = stream.episode().await;
    let terminate = TerminateRequest {
        instance_id: "c".to_owned(),
        ..Default::default()
    };
    peer.client().terminate_instance(terminate).await.unwrap();
    peer.answer(&void, vec![]).await;
    episodes += 2;
    // One operation succeeds, another fails.
    peer.signal("@e@1", "add", "1").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    peer.signal("@e@1", "add", "x").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![failure("Broken", "x")], Some("1"))
        .await;

    let metrics = until(&scheduler, "all is counted", |metrics| {
        metrics.of("mainspring_entity_operations_ended_total{outcome=\"failed\"}") == 1.0
    })
    .await;
    for (series, expected) in [
        ("mainspring_orchestrations_started_total", 3.0),
        ("mainspring_orchestrations_continued_total", 1.0),
        (
            "mainspring_orchestrations_ended_total{status=\"completed\"}",
            1.0,
        ),
        (
            "mainspring_orchestrations_ended_total{status=\"failed\"}",
            1.0,
        ),
        (
            "mainspring_orchestrations_ended_total{status=\"terminated\"}",
            1.0,
        ),
        (
            "mainspring_orchestrations_ended_total{status=\"canceled\"}",
            0.0,
        ),
        (
            "mainspring_activities_ended_total{outcome=\"completed\"}",
            1.0,
        ),
        ("mainspring_activities_ended_total{outcome=\"failed\"}", 1.0),
        (
            "mainspring_entity_operations_ended_total{outcome=\"completed\"}",
            1.0,
        ),
        (
            "mainspring_work_items_dispatched_total{kind=\"orchestration\"}",
            f64::from(episodes),
        ),
        (
            "mainspring_work_items_dispatched_total{kind=\"activity\"}",
            3.0,
        ),
        (
            "mainspring_work_items_dispatched_total{kind=\"entity\"}",
            2.0,
        ),
        (
            "mainspring_work_items_returned_total{kind=\"orchestration\"}",
            0.0,
        ),
        (
            "mainspring_work_items_returned_total{kind=\"activity\"}",
            1.0,
        ),
        (
            "mainspring_work_item_lease_seconds_count{kind=\"activity\"}",
            2.0,
        ),
        (
            "mainspring_work_item_lease_seconds_count{kind=\"entity\"}",
            2.0,
        ),
        (
            "mainspring_work_item_wait_seconds_count{kind=\"activity\"}",
            3.0,
        ),
        ("mainspring_mailbox_depth_count{kind=\"entity\"}", 2.0),
        ("mainspring_mailbox_depth_sum{kind=\"entity\"}", 2.0),
        ("mainspring_timer_lateness_seconds_count", 1.0),
        ("mainspring_activations", 4.0),
    ] {
        assert_eq!(metrics.of(series), expected, "{series}");
    }
    for series in [
        "mainspring_turn_duration_seconds_count",
        "mainspring_turn_duration_seconds_sum",
        "mainspring_commit_duration_seconds_count",
        "mainspring_commit_group_size_count",
        "mainspring_cache_lookups_total{of=\"history\",result=\"hit\"}",
        "mainspring_cache_usage_bytes",
        "mainspring_store_size_bytes",
        "mainspring_disk_free_bytes",
    ] {
        assert!(metrics.of(series) > 0.0, "{series}");
    }
    // A timer is never early, and lateness is no more than what the test took.
    assert!(metrics.of("mainspring_timer_lateness_seconds_sum") < PATIENCE.as_secs_f64());
    assert_eq!(
        metrics.of("mainspring_commit_duration_seconds_count"),
        metrics.of("mainspring_commit_group_size_count"),
    );

    // However many names there are, the series stay the same.
    let before: BTreeSet<String> = metrics.series().map(str::to_owned).collect();
    for number in 0..20 {
        peer.start(&format!("name {number}"), &format!("instance {number}"))
            .await;
        let episode = stream.episode().await;
        peer.answer(&episode, vec![complete(1, "1")]).await;
    }
    let after: BTreeSet<String> = scheduler
        .metrics()
        .await
        .series()
        .map(str::to_owned)
        .collect();
    assert_eq!(before, after);
}

#[tokio::test]
async fn state_that_left_memory_is_found_in_the_cache_and_after_a_restart_in_the_store() {
    const HIT: &str = "mainspring_cache_lookups_total{of=\"state\",result=\"hit\"}";
    const MISS: &str = "mainspring_cache_lookups_total{of=\"state\",result=\"miss\"}";
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(1, "1")]).await;
    // An idle instance leaves memory after some seconds.
    until(&scheduler, "nothing is in memory", |metrics| {
        metrics.of("mainspring_activations") == 0.0
    })
    .await;
    peer.get("a").await;
    let metrics = scheduler.metrics().await;
    assert_eq!((metrics.of(HIT), metrics.of(MISS)), (1.0, 0.0));

    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    peer.get("a").await;
    let metrics = scheduler.metrics().await;
    assert_eq!((metrics.of(HIT), metrics.of(MISS)), (0.0, 1.0));
}
