//! Orchestrations and entities under virtual time: what is due in a month comes at once, and at its own time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainspring::testing::{FinishError, TestScheduler};
use mainspring::{
    ActivityContext, Client, Either, Entity, EntityContext, Error, Failure, Operation, Operations,
    OrchestrationContext, Result, RetryPolicy, RunningWorker, Status, Worker, named,
};
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Far more than any of these takes, and far less than it would take by the machine's time.
const MOMENT: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(MOMENT, future)
        .await
        .expect("virtual time does not wait")
}

/// 2026-01-01T00:00:00Z.
fn new_year() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

async fn scheduler() -> TestScheduler {
    TestScheduler::start_at(new_year()).await.unwrap()
}

/// A scheduler, and a worker that can do this.
async fn working(able: impl FnOnce(Worker) -> Worker) -> (TestScheduler, RunningWorker) {
    let scheduler = scheduler().await;
    let worker = able(scheduler.worker()).start().unwrap();
    (scheduler, worker)
}

async fn sleep_days(ctx: OrchestrationContext, days: u32) -> Result<SystemTime> {
    ctx.timer(days * DAY).await;
    Ok(ctx.now())
}

async fn approval(ctx: OrchestrationContext, _: ()) -> Result<String> {
    let deadline = ctx.timer(3 * DAY);
    match ctx.select(ctx.event::<bool>("Approval"), deadline).await {
        Either::Left(approved) => Ok(if approved? { "approved" } else { "rejected" }.to_owned()),
        Either::Right(()) => Ok("nobody answered".to_owned()),
    }
}

async fn ended_at(client: &Client, id: &str) -> SystemTime {
    let state = client.instance::<()>(id).state().await.unwrap().unwrap();
    state.ended_at.unwrap()
}

#[tokio::test]
async fn a_timer_of_thirty_days_ends_at_exactly_thirty_days() {
    let (scheduler, worker) = working(|worker| worker.orchestration(sleep_days)).await;
    let instance = scheduler
        .client()
        .start(sleep_days, 30)
        .id("trial")
        .await
        .unwrap();
    let began = Instant::now();
    let woken = within(scheduler.finish(&instance)).await.unwrap();
    assert_eq!(woken, new_year() + 30 * DAY);
    assert_eq!(scheduler.now(), new_year() + 30 * DAY);
    assert_eq!(
        ended_at(&scheduler.client(), "trial").await,
        scheduler.now()
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    worker.stop().await;
    scheduler.close().await.unwrap();
}

#[tokio::test]
async fn time_stands_still_until_it_is_moved() {
    let (scheduler, _worker) = working(|worker| worker.orchestration(sleep_days)).await;
    let instance = scheduler.client().start(sleep_days, 1).await.unwrap();
    for _ in 0..3 {
        let settled = within(scheduler.settle()).await.unwrap();
        assert_eq!(settled, Default::default());
    }
    within(scheduler.advance(DAY - Duration::from_micros(1)))
        .await
        .unwrap();
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Running);
    assert_eq!(state.created_at, Some(new_year()));
    within(scheduler.advance(Duration::from_micros(1)))
        .await
        .unwrap();
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Completed);
    assert_eq!(state.ended_at, Some(new_year() + DAY));
}

#[tokio::test]
async fn an_event_wins_against_its_timeout_and_loses_against_it() {
    let (scheduler, _worker) = working(|worker| worker.orchestration(approval)).await;
    let client = scheduler.client();
    let answered = client.start(approval, ()).await.unwrap();
    let forgotten = client.start(approval, ()).id("forgotten").await.unwrap();
    within(scheduler.advance(2 * DAY)).await.unwrap();
    answered.raise_event("Approval", true).await.unwrap();
    assert_eq!(
        within(scheduler.finish(&answered)).await.unwrap(),
        "approved"
    );
    assert_eq!(scheduler.now(), new_year() + 2 * DAY);
    assert_eq!(
        within(scheduler.finish(&forgotten)).await.unwrap(),
        "nobody answered"
    );
    assert_eq!(ended_at(&client, "forgotten").await, new_year() + 3 * DAY);
}

/// Looks once a day, for a hundred days.
async fn monitor(ctx: OrchestrationContext, day: u32) -> Result<Vec<u32>> {
    let mut seen = Vec::new();
    for _ in day..100 {
        seen.push(ctx.call(look, ()).await?);
        ctx.timer(DAY).await;
    }
    Ok(seen)
}

async fn look(_: ActivityContext, _: ()) -> Result<u32> {
    Ok(7)
}

#[tokio::test]
async fn a_monitor_looks_once_a_day_for_a_hundred_days() {
    let (scheduler, worker) = working(|worker| worker.orchestration(monitor).activity(look)).await;
    let instance = scheduler.client().start(monitor, 0).await.unwrap();
    let began = Instant::now();
    let seen = within(scheduler.finish(&instance)).await.unwrap();
    println!("100 days took {:?}", began.elapsed());
    assert_eq!(seen.len(), 100);
    assert_eq!(scheduler.now(), new_year() + 100 * DAY);
    worker.stop().await;
}

#[tokio::test]
async fn retries_follow_their_back_off_of_hours() {
    let scheduler = scheduler().await;
    let times = Arc::new(AtomicU32::new(0));
    let tries = Arc::clone(&times);
    let charge = named("charge", move |_: ActivityContext, _: ()| {
        let tries = Arc::clone(&tries);
        async move {
            match tries.fetch_add(1, Ordering::SeqCst) {
                0..3 => Err(Failure::new("Busy", "try later")),
                count => Ok(count),
            }
        }
    });
    let pay = named("pay", |ctx: OrchestrationContext, _: ()| async move {
        let policy = RetryPolicy::new(5, HOUR).coefficient(2.0);
        Ok::<_, Failure>(ctx.call_by_name::<u32>("charge", ()).retry(policy).await?)
    });
    let _worker = scheduler
        .worker()
        .orchestration(pay)
        .activity(charge)
        .start()
        .unwrap();
    let client = scheduler.client();
    let instance = client.start_by_name::<u32>("pay", ()).await.unwrap();
    within(scheduler.advance(2 * HOUR)).await.unwrap();
    assert_eq!(
        times.load(Ordering::SeqCst),
        2,
        "the next one is due after 1 + 2 hours"
    );
    assert_eq!(within(scheduler.finish(&instance)).await.unwrap(), 3);
    assert_eq!(scheduler.now(), new_year() + 7 * HOUR);
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counter(i64);

impl Entity for Counter {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Add>();
    }
}

#[derive(Serialize, Deserialize)]
struct Add(i64);

impl Operation<Counter> for Add {
    type Output = i64;

    async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> {
        counter.0 += self.0;
        Ok(counter.0)
    }
}

/// S-12.37.
#[tokio::test]
async fn a_delayed_signal_is_applied_when_it_is_due() {
    let (scheduler, _worker) = working(|worker| worker.entity::<Counter>()).await;
    let counter = scheduler.client().entity::<Counter>("a");
    counter.signal(Add(1)).await.unwrap();
    counter
        .signal_at(new_year() + 2 * HOUR, Add(20))
        .await
        .unwrap();
    counter
        .signal_at(new_year() + HOUR, Add(300))
        .await
        .unwrap();
    for (by, state) in [(59 * HOUR / 60, 1), (HOUR / 60, 301), (HOUR, 321)] {
        within(scheduler.advance(by)).await.unwrap();
        assert_eq!(counter.state().await.unwrap(), Some(Counter(state)));
    }
}

#[tokio::test]
async fn a_scheduled_start_runs_at_its_time() {
    let (scheduler, _worker) = working(|worker| worker.orchestration(sleep_days)).await;
    let client = scheduler.client();
    let start = client
        .start(sleep_days, 1)
        .id("later")
        .at(new_year() + 10 * DAY);
    let instance = start.await.unwrap();
    within(scheduler.advance(9 * DAY)).await.unwrap();
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Pending);
    assert_eq!(
        within(scheduler.finish(&instance)).await.unwrap(),
        new_year() + 11 * DAY
    );
}

async fn wait_for_ever(ctx: OrchestrationContext, _: ()) -> Result<bool> {
    Ok(ctx.event("Never").await?)
}

#[tokio::test]
async fn finishing_what_waits_for_an_event_says_so() {
    let (scheduler, _worker) = working(|worker| worker.orchestration(wait_for_ever)).await;
    let client = scheduler.client();
    let instance = client.start(wait_for_ever, ()).id("w").await.unwrap();
    let error = within(scheduler.finish(&instance)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "orchestration 'wait_for_ever' ('w') is RUNNING, and nothing more happens by itself: it waits for an event, or something else from outside"
    );
    assert_eq!(scheduler.now(), new_year());
    instance.suspend("lunch").await.unwrap();
    let error = within(scheduler.finish(&instance)).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it waits for being resumed"),
        "{error}"
    );
    instance.resume("back").await.unwrap();
    instance.raise_event("Never", true).await.unwrap();
    assert!(within(scheduler.finish(&instance)).await.unwrap());
    let missing = client.instance::<()>("missing");
    let error = within(scheduler.finish(&missing)).await.unwrap_err();
    assert!(
        matches!(error, FinishError::Ended(Error::NotFound(_))),
        "{error}"
    );
}

#[tokio::test]
async fn work_that_no_worker_takes_is_told_and_not_waited_for() {
    let scheduler = scheduler().await;
    let order = named("order", |ctx: OrchestrationContext, _: ()| async move {
        Ok::<_, Failure>(ctx.call_by_name::<bool>("Charge", ()).await?)
    });
    let _worker = scheduler.worker().orchestration(order).start().unwrap();
    let client = scheduler.client();
    let instance = client
        .start_by_name::<bool>("order", ())
        .id("o")
        .await
        .unwrap();
    let error = within(scheduler.finish(&instance)).await.unwrap_err();
    assert!(
        error.to_string().ends_with(
            "it waits for activity 'Charge'; no connected worker takes activity 'charge'"
        ),
        "{error}"
    );
    // Met again, it is not waited for again.
    let began = Instant::now();
    let settled = within(scheduler.advance(DAY)).await.unwrap();
    assert_eq!(settled.unclaimed, ["activity 'charge'"]);
    assert!(began.elapsed() < Duration::from_secs(1));
    let charge = named("Charge", |_: ActivityContext, _: ()| async {
        Ok::<_, Failure>(true)
    });
    let _other = scheduler.worker().activity(charge).start().unwrap();
    while !within(scheduler.settle())
        .await
        .unwrap()
        .unclaimed
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
    assert!(within(scheduler.finish(&instance)).await.unwrap());
}

/// S-13.17.
#[tokio::test]
async fn code_that_differs_from_its_history_is_given_up_and_not_waited_for() {
    let scheduler = scheduler().await;
    let runs = Arc::new(AtomicU32::new(0));
    let fickle = named("fickle", move |ctx: OrchestrationContext, _: ()| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        async move {
            if run > 0 {
                ctx.call_by_name::<()>("other", ()).await?;
            }
            ctx.timer(DAY).await;
            Ok::<_, Failure>(())
        }
    });
    let worker = scheduler
        .worker()
        .kept_max(0)
        .orchestration(fickle)
        .start()
        .unwrap();
    let client = scheduler.client();
    let instance = client.start_by_name::<()>("fickle", ()).await.unwrap();
    let error = within(scheduler.finish(&instance)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("given back by their worker again and again"),
        "{text}"
    );
    assert_eq!(scheduler.now(), new_year() + DAY);
    worker.stop().await;
}

/// Notes names and times, in the order in which they were noted.
type Log = Arc<Mutex<Vec<(String, SystemTime)>>>;

#[tokio::test]
async fn timers_of_several_instances_fire_in_order_each_at_its_own_time() {
    let scheduler = scheduler().await;
    let log = Log::default();
    let noted = Arc::clone(&log);
    let note = named(
        "note",
        move |_: ActivityContext, entry: (String, SystemTime)| {
            noted.lock().unwrap().push(entry);
            async { Ok::<_, Failure>(()) }
        },
    );
    // Each timer is set when the one before has fired.
    let chain = named(
        "chain",
        |ctx: OrchestrationContext, hours: Vec<u32>| async move {
            for hours in hours {
                ctx.timer(hours * HOUR).await;
                let entry = (ctx.instance_id().to_owned(), ctx.now());
                ctx.call_by_name::<()>("note", entry).await?;
            }
            Ok::<_, Failure>(())
        },
    );
    let _worker = scheduler
        .worker()
        .orchestration(chain)
        .activity(note)
        .start()
        .unwrap();
    let client = scheduler.client();
    for (id, hours) in [("a", [5, 5, 5]), ("b", [2, 4, 8])] {
        client
            .start_by_name::<()>("chain", hours)
            .id(id)
            .await
            .unwrap();
    }
    within(scheduler.advance(12 * HOUR)).await.unwrap();
    let at = |id: &str, hours: u32| (id.to_owned(), new_year() + hours * HOUR);
    let until_noon = [at("b", 2), at("a", 5), at("b", 6), at("a", 10)];
    assert_eq!(*log.lock().unwrap(), until_noon);
    assert_eq!(scheduler.now(), new_year() + 12 * HOUR);
    within(scheduler.advance(DAY)).await.unwrap();
    assert_eq!(log.lock().unwrap()[4..], [at("b", 14), at("a", 15)]);
}

#[tokio::test]
async fn activities_that_take_real_time_are_waited_for() {
    let scheduler = scheduler().await;
    let slow = named("slow", |_: ActivityContext, _: ()| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<_, Failure>(5)
    });
    let order = named("order", |ctx: OrchestrationContext, _: ()| async move {
        Ok::<_, Failure>(ctx.call_by_name::<i32>("slow", ()).await?)
    });
    let _worker = scheduler
        .worker()
        .orchestration(order)
        .activity(slow)
        .start()
        .unwrap();
    let instance = scheduler
        .client()
        .start_by_name::<i32>("order", ())
        .await
        .unwrap();
    within(scheduler.settle()).await.unwrap();
    let state = instance.state().await.unwrap().unwrap();
    assert_eq!(state.status, Status::Completed);
    assert_eq!(state.ended_at, Some(new_year()));
}

/// S-11.25.
#[tokio::test]
async fn retention_follows_virtual_time() {
    let options = TestScheduler::options().time(new_year()).retention(7 * DAY);
    let scheduler = options.start().await.unwrap();
    let _worker = scheduler
        .worker()
        .orchestration(sleep_days)
        .start()
        .unwrap();
    let instance = scheduler.client().start(sleep_days, 1).await.unwrap();
    within(scheduler.finish(&instance)).await.unwrap();
    within(scheduler.advance(6 * DAY)).await.unwrap();
    assert!(instance.state().await.unwrap().is_some());
    within(scheduler.advance(2 * DAY)).await.unwrap();
    assert!(instance.state().await.unwrap().is_none());
}

#[tokio::test]
async fn what_goes_on_for_ever_is_left_after_the_time_that_was_given() {
    let scheduler = scheduler().await;
    let eternal = named(
        "eternal",
        |ctx: OrchestrationContext, round: u32| async move {
            ctx.timer(DAY).await;
            ctx.continue_as_new::<()>(round + 1)
        },
    );
    let _worker = scheduler
        .worker()
        .orchestration(eternal)
        .orchestration(wait_for_ever)
        .start()
        .unwrap();
    let client = scheduler.client();
    client.start_by_name::<()>("eternal", 0).await.unwrap();
    let instance = client.start(wait_for_ever, ()).await.unwrap();
    let error = within(scheduler.finish_within(&instance, 20 * DAY))
        .await
        .unwrap_err();
    assert!(matches!(error, FinishError::TooLate { .. }), "{error}");
    assert_eq!(scheduler.now(), new_year() + 20 * DAY);
}
