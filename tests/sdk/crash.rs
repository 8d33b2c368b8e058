//! The server or the worker is lost in the middle.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use mainspring_sdk::{ActivityContext, OrchestrationContext, Result, Worker};

use crate::{PATIENCE, served};

/// How often each task was run.
static RUNS: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

async fn step(ctx: ActivityContext, number: u32) -> Result<u32> {
    *RUNS
        .lock()
        .unwrap()
        .entry(ctx.idempotency_key())
        .or_default() += 1;
    Ok(number + 1)
}

async fn ten_steps(ctx: OrchestrationContext, _: ()) -> Result<u32> {
    let mut number = 0;
    for _ in 0..10 {
        number = ctx.call(step, number).await?;
        ctx.timer(Duration::from_millis(10)).await;
    }
    Ok(number)
}

fn able(worker: Worker) -> Worker {
    worker.orchestration(ten_steps).activity(step)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_when_the_server_is_killed_again_and_again() {
    let (mut scheduler, client) = served();
    let worker = able(client.worker()).start().unwrap();
    let mut running = Vec::new();
    for number in 0..20 {
        let id = format!("server-{number}");
        running.push(client.start(ten_steps, ()).id(id).await.unwrap());
    }
    for _ in 0..3 {
        let answered = worker.stats().activities;
        while worker.stats().activities < answered + 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scheduler.kill();
        scheduler.restart();
    }
    for instance in running {
        assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 10);
    }
    // At least once; again only if its answer was lost with the server.
    let runs = RUNS.lock().unwrap();
    let mine = runs.iter().filter(|(key, _)| key.starts_with("server-"));
    assert_eq!(mine.clone().count(), 200);
    assert!(mine.clone().all(|(_, times)| *times <= 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_replays_what_a_lost_one_had_begun() {
    let (_scheduler, client) = served();
    let lost = able(client.worker()).start().unwrap();
    let mut running = Vec::new();
    for number in 0..20 {
        let id = format!("worker-{number}");
        running.push(client.start(ten_steps, ()).id(id).await.unwrap());
    }
    while lost.stats().activities < 40 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(lost);
    let worker = able(client.worker()).start().unwrap();
    for instance in running {
        assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 10);
    }
    let stats = worker.stats();
    assert!((1..=20).contains(&stats.replays), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_memory_between_episodes_everything_is_replayed_and_comes_out_the_same() {
    let (_scheduler, client) = served();
    let worker = able(client.worker()).kept_max(0).start().unwrap();
    let instance = client.start(ten_steps, ()).id("forgetful").await.unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 10);
    let stats = worker.stats();
    assert_eq!((stats.episodes, stats.replays, stats.kept), (21, 20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_finishes_what_it_has() {
    static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
    async fn slow(_: ActivityContext, _: ()) -> Result<u32> {
        HAS_BEGUN.store(true, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(7)
    }
    async fn waits(ctx: OrchestrationContext, _: ()) -> Result<u32> {
        Ok(ctx.call(slow, ()).await?)
    }
    let (_scheduler, client) = served();
    let worker = client
        .worker()
        .orchestration(waits)
        .activity(slow)
        .start()
        .unwrap();
    let instance = client.start(waits, ()).await.unwrap();
    // What is in flight may also be the episode, whose answer is not sent yet.
    while !HAS_BEGUN.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    worker.stop().await;
    // Its answer is history; only the last episode is missing, and needs a worker.
    let history = instance.history().await.unwrap();
    assert_eq!(history.len(), 3);
    let worker = client.worker().orchestration(waits).start().unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 7);
    assert_eq!(worker.stats().activities, 0);
}
