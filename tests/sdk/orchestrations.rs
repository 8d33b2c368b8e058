//! Orchestrators and activities as plain functions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainspring_sdk::{
    ActivityContext, Error, Failure, History, OnMismatch, OrchestrationContext, Result,
    RetryPolicy, Status, named, testing,
};
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, served};

async fn double(_: ActivityContext, number: u64) -> Result<u64> {
    Ok(number * 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_run_one_after_the_other_and_many_at_once() {
    async fn chain(ctx: OrchestrationContext, mut number: u64) -> Result<u64> {
        for _ in 0..5 {
            number = ctx.call(double, number).await?;
        }
        let all = (0..100).map(|n| ctx.call(double, n));
        let sum: u64 = ctx.try_join_all(all).await?.iter().sum();
        Ok(number + sum)
    }
    let (_scheduler, client) = served();
    let worker = client
        .worker()
        .orchestration(chain)
        .activity(double)
        .start()
        .unwrap();
    let instance = client.start(chain, 1).await.unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 32 + 9_900);
    let stats = worker.stats();
    assert_eq!((stats.activities, stats.replays), (105, 0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_payloads_failures_and_retries_reach_the_caller() {
    #[derive(Serialize, Deserialize)]
    struct Order {
        lines: Vec<String>,
    }
    static TRIES: AtomicU32 = AtomicU32::new(0);
    async fn pay(_: ActivityContext, order: Order) -> Result<usize> {
        match TRIES.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(Failure::new("Busy", "try again")),
            _ if order.lines.is_empty() => Err(Failure::new("Empty", "no lines").non_retriable()),
            _ => Ok(order.lines.len()),
        }
    }
    async fn order(ctx: OrchestrationContext, order: Order) -> Result<usize> {
        let policy = RetryPolicy::new(3, Duration::from_millis(10));
        Ok(ctx.call(pay, order).retry(policy).await?)
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(order)
        .activity(pay)
        .start()
        .unwrap();
    let lines = vec!["book".to_owned()];
    let paid = client.start(order, Order { lines }).await.unwrap();
    assert_eq!(paid.result_within(PATIENCE).await.unwrap(), 1);
    assert_eq!(TRIES.load(Ordering::Relaxed), 3);
    let empty = client
        .start(order, Order { lines: Vec::new() })
        .await
        .unwrap();
    let Err(Error::Orchestration {
        status, failure, ..
    }) = empty.result_within(PATIENCE).await
    else {
        panic!("it has to fail");
    };
    assert_eq!(status, Status::Failed);
    assert!(failure.inner().unwrap().is("Empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn children_events_timers_and_new_generations_work_together() {
    async fn child(ctx: OrchestrationContext, name: String) -> Result<String> {
        ctx.timer(Duration::from_millis(20)).await;
        Ok(format!("{name} of {}", ctx.parent_instance_id().unwrap()))
    }
    async fn parent(ctx: OrchestrationContext, round: u32) -> Result<String> {
        ctx.set_custom_status(format!("round {round}"))?;
        let answer: String = ctx.event("answer").await?;
        if round < 3 {
            return ctx.continue_as_new(round + 1);
        }
        Ok(ctx
            .child(child, answer)
            .id("the-child")
            .tag("a", "b")
            .await?)
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(parent)
        .orchestration(child)
        .start()
        .unwrap();
    let instance = client.start(parent, 1).id("p").await.unwrap();
    for round in 1..=3 {
        instance
            .raise_event("Answer", format!("answer {round}"))
            .await
            .unwrap();
    }
    assert_eq!(
        instance.result_within(PATIENCE).await.unwrap(),
        "answer 3 of p"
    );
    let state = instance.state().await.unwrap().unwrap();
    let status: Option<String> = state.custom_status().unwrap();
    assert_eq!(status.as_deref(), Some("round 3"));
    let child = client.instance::<String>("the-child");
    let state = child.state().await.unwrap().unwrap();
    assert_eq!(state.tags["a"], "b");
    assert_eq!(state.parent_instance_id.as_deref(), Some("p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_finds_its_own_code_and_others_wait() {
    async fn old(_: OrchestrationContext, _: ()) -> Result<u32> {
        Ok(1)
    }
    async fn new(ctx: OrchestrationContext, _: ()) -> Result<u32> {
        assert_eq!(ctx.version(), Some("2.0"));
        Ok(2)
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(named("sum", old).for_version("1.0"))
        .orchestration(named("sum", new).for_version("2.0"))
        .start()
        .unwrap();
    let start = |version: &str| client.start_by_name::<u32>("sum", ()).version(version);
    let third = start("3.0").await.unwrap();
    for (version, output) in [("1.0", 1), ("2.0", 2)] {
        let instance = start(version).await.unwrap();
        assert_eq!(instance.result_within(PATIENCE).await.unwrap(), output);
    }
    let state = third.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_changed_leaves_its_instances_as_they_are_until_it_is_mended() {
    async fn first(ctx: OrchestrationContext, _: ()) -> Result<u64> {
        let number = ctx.call(double, 1).await?;
        ctx.event::<()>("go").await?;
        Ok(number)
    }
    async fn changed(ctx: OrchestrationContext, _: ()) -> Result<u64> {
        ctx.timer(Duration::from_secs(1)).await;
        Ok(0)
    }
    // S-13.17
    let (_scheduler, client) = served();
    let right = || {
        client
            .worker()
            .orchestration(named("o", first))
            .activity(double)
    };
    let worker = right().start().unwrap();
    let instance = client.start_by_name::<u64>("o", ()).await.unwrap();
    loop {
        let history = instance.history().await.unwrap();
        if history.len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.stop().await;
    let wrong = client
        .worker()
        .orchestration(named("o", changed))
        .start()
        .unwrap();
    instance.raise_event("go", ()).await.unwrap();
    while wrong.stats().mismatches == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Running);
    wrong.stop().await;
    let _worker = right().start().unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_fails_the_instance_where_the_worker_is_told_so() {
    async fn waits(_: OrchestrationContext, _: ()) -> Result<()> {
        std::future::pending().await
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(waits)
        .on_mismatch(OnMismatch::Fail)
        .start()
        .unwrap();
    let instance = client.start(waits, ()).await.unwrap();
    let error = instance.result_within(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("NonDeterminism"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_history_tells_whether_changed_code_still_fits() {
    async fn before(ctx: OrchestrationContext, number: u64) -> Result<u64> {
        let number = ctx.call(double, number).await?;
        ctx.event::<()>("go").await?;
        Ok(ctx.call(double, number).await?)
    }
    async fn more_at_the_end(ctx: OrchestrationContext, number: u64) -> Result<u64> {
        let number = before(ctx.clone(), number).await?;
        Ok(ctx.call(double, number).await?)
    }
    async fn more_at_the_start(ctx: OrchestrationContext, number: u64) -> Result<u64> {
        ctx.timer(Duration::from_secs(1)).await;
        before(ctx, number).await
    }
    async fn shorter(ctx: OrchestrationContext, number: u64) -> Result<u64> {
        Ok(ctx.call(double, number).await?)
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(before)
        .activity(double)
        .start()
        .unwrap();
    let instance = client.start(before, 5).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.history");
    // OrchestratorStarted, ExecutionStarted, TaskScheduled, OrchestratorStarted, TaskCompleted.
    let waiting = loop {
        let history = instance.history().await.unwrap();
        if history.len() == 5 {
            history.save(&file).unwrap();
            break History::load(&file).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(testing::replay(before, &waiting), Ok(()));
    assert_eq!(testing::replay(more_at_the_end, &waiting), Ok(()));
    let mismatch = testing::replay(more_at_the_start, &waiting).unwrap_err();
    assert_eq!(
        (mismatch.event, mismatch.found.as_str()),
        (3, "a timer (id 1)")
    );
    let mismatch = testing::replay(shorter, &waiting).unwrap_err();
    assert_eq!(mismatch.found, "the code's end");
    instance.raise_event("go", ()).await.unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 20);
    let ended = instance.history().await.unwrap();
    assert_eq!(testing::replay(before, &ended), Ok(()));
    let mismatch = testing::replay(more_at_the_end, &ended).unwrap_err();
    assert_eq!(mismatch.found, "activity 'double' (id 3)");
}
