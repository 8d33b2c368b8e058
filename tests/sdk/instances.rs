//! What clients do with instances.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use mainspring_sdk::{
    ActivityContext, Client, Connection, Converter, Error, Failure, InstanceQuery,
    OrchestrationContext, Purge, Result, Reuse, Status, named, testing,
};
use serde_json::Value;

use crate::{PATIENCE, served};

async fn waits(ctx: OrchestrationContext, _: ()) -> Result<String> {
    Ok(ctx.event("go").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_suspended_resumed_terminated_restarted_and_purged() {
    let (_scheduler, client) = served();
    let _worker = client.worker().orchestration(waits).start().unwrap();
    let instance = client.start(waits, ()).id("a").await.unwrap();
    let started = instance.wait_until_started(PATIENCE).await.unwrap();
    assert_eq!(started.status, Status::Running);
    instance.suspend("later").await.unwrap();
    let status = async || instance.state().await.unwrap().unwrap().status;
    assert_eq!(status().await, Status::Suspended);
    instance.resume("now").await.unwrap();
    assert!(!instance.purge().await.is_ok_and(|is_purged| is_purged));
    instance.terminate("enough").await.unwrap();
    let ended = instance.wait_until_ended(PATIENCE).await.unwrap();
    assert_eq!(ended.status, Status::Terminated);
    assert_eq!(ended.output::<String>().unwrap(), "enough");
    let again = instance.restart().await.unwrap();
    again.raise_event("go", "on").await.unwrap();
    assert_eq!(again.result_within(PATIENCE).await.unwrap(), "on");
    let other = instance.restart_as_new().await.unwrap();
    assert_ne!(other.id(), "a");
    assert!(instance.purge().await.unwrap());
    assert!(instance.state().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_id_is_told_and_may_be_taken_over() {
    let (_scheduler, client) = served();
    let _worker = client.worker().orchestration(waits).start().unwrap();
    client.start(waits, ()).id("a").await.unwrap();
    let taken = client.start(waits, ()).id("a").await.unwrap_err();
    assert!(matches!(&taken, Error::AlreadyExists(id) if id == "a"));
    assert!(taken.to_string().contains("'a'"), "{taken}");
    let again = client.start(waits, ()).id("a").reuse(Reuse::Always);
    let instance = again.await.unwrap();
    instance.raise_event("go", "x").await.unwrap();
    instance.result_within(PATIENCE).await.unwrap();
    let never = client.start(waits, ()).id("a").reuse(Reuse::Never).await;
    assert!(matches!(never, Err(Error::AlreadyExists(_))));
    client.start(waits, ()).id("a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_end_in_time_and_name_who_was_waited_for() {
    let (_scheduler, client) = served();
    let missing = client.instance::<()>("nobody");
    let short = Duration::from_millis(100);
    // S-11.6: it may be created later.
    assert!(matches!(
        missing.wait_until_ended(short).await,
        Err(Error::TimedOut { .. })
    ));
    assert!(missing.state().await.unwrap().is_none());
    let late = SystemTime::now() + Duration::from_secs(3_600);
    let instance = client.start(waits, ()).id("later").at(late).await.unwrap();
    let error = instance.result_within(short).await.unwrap_err();
    assert!(error.to_string().contains("'later'"), "{error}");
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Pending);
    assert!(state.scheduled_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_page_by_page_and_purged_by_what_they_are() {
    let (_scheduler, client) = served();
    let _worker = client.worker().orchestration(waits).start().unwrap();
    for number in 0..5 {
        let instance = client
            .start(waits, ())
            .id(format!("n{number}"))
            .await
            .unwrap();
        if number < 3 {
            instance.raise_event("go", "done").await.unwrap();
            instance.result_within(PATIENCE).await.unwrap();
        }
    }
    let mut query = InstanceQuery {
        statuses: vec![Status::Completed],
        id_prefix: Some("n".to_owned()),
        page_size: 2,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.instances(query.clone()).await.unwrap();
        found.extend(page.instances.into_iter().map(|state| state.id));
        query.continue_from = page.continue_from;
        if query.continue_from.is_none() {
            break;
        }
    }
    assert_eq!(found, ["n0", "n1", "n2"]);
    let purged = client.purge(Purge::default()).await.unwrap();
    assert_eq!((purged.count, purged.is_complete), (3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converter_of_ones_own_writes_all_payloads() {
    struct Mirror;
    impl Converter for Mirror {
        fn encode(&self, value: &Value) -> std::result::Result<String, String> {
            Ok(value.to_string().chars().rev().collect())
        }
        fn decode(&self, payload: &str) -> std::result::Result<Value, String> {
            let json: String = payload.chars().rev().collect();
            serde_json::from_str(&json).map_err(|error| error.to_string())
        }
    }
    let (scheduler, _) = served();
    let connection = Connection::to(scheduler.address()).unwrap();
    let client = Client::new(connection.converter(Mirror));
    let _worker = client.worker().orchestration(waits).start().unwrap();
    let instance = client.start(waits, ()).await.unwrap();
    instance.raise_event("go", "abc").await.unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), "abc");
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.raw_output(), Some("\"cba\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_work_is_refused_with_the_reason() {
    let (_scheduler, client) = served();
    let nothing = client.worker().start().unwrap_err();
    assert!(nothing.to_string().contains("nothing to run"), "{nothing}");
    let twice = client.worker().orchestration(waits).orchestration(waits);
    assert!(twice.start().unwrap_err().to_string().contains("'waits'"));
    let none = client.worker().orchestration(waits).activities_max(0);
    assert!(none.start().unwrap_err().to_string().contains("activities"));
}

/// What a provider would do next.
static PROVIDER_IS_UP: AtomicBool = AtomicBool::new(false);

async fn quote(_: ActivityContext, cents: u64) -> Result<u64> {
    Ok(cents + 1)
}

async fn charge(_: ActivityContext, cents: u64) -> Result<u64> {
    match PROVIDER_IS_UP.load(Ordering::SeqCst) {
        true => Ok(cents),
        false => Err(Failure::new("Down", "the provider is down")),
    }
}

async fn bill(ctx: OrchestrationContext, cents: u64) -> Result<u64> {
    let cents = ctx.call(quote, cents).await?;
    let both = [ctx.call(charge, cents), ctx.call(quote, cents)];
    let paid: u64 = ctx.try_join_all(both).await?.into_iter().sum();
    Ok(ctx.call(charge, paid).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_instance_goes_on_when_it_is_rewound_and_changed_code_is_still_told() {
    // S-9.13: the activity that failed is asked for again, and only that.
    let (_scheduler, client) = served();
    let able = || client.worker().activity(quote).activity(charge);
    let worker = able().orchestration(bill).start().unwrap();
    let bill_7 = client.start(bill, 1).id("bill-7").await.unwrap();
    let bill_8 = client.start(bill, 1).id("bill-8").await.unwrap();
    for bill in [&bill_7, &bill_8] {
        let failed = bill.result_within(PATIENCE).await.unwrap_err();
        assert!(failed.to_string().contains("is down"), "{failed}");
    }
    PROVIDER_IS_UP.store(true, Ordering::SeqCst);
    bill_7.rewind("the provider is up").await.unwrap();
    assert_eq!(bill_7.result_within(PATIENCE).await.unwrap(), 5);
    assert_eq!(worker.stats().mismatches, 0);
    testing::replay(bill, &bill_7.history().await.unwrap()).unwrap();
    worker.stop().await;

    async fn other(ctx: OrchestrationContext, cents: u64) -> Result<u64> {
        Ok(ctx.call(charge, cents).await?)
    }
    let worker = able().orchestration(named("bill", other)).start().unwrap();
    bill_8.rewind("the provider is up").await.unwrap();
    while worker.stats().mismatches == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let state = bill_8.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Running);
}
