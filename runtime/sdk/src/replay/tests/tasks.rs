//! Activities, children, timers, and waiting for several of them.

use std::time::{Duration, UNIX_EPOCH};

use super::stage::Stage;
use crate::{ActivityContext, Either, Failure, OrchestrationContext, Result, RetryPolicy};

pub(super) async fn echo(_: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

async fn twice(ctx: OrchestrationContext, text: String) -> Result<String> {
    let once = ctx.call(echo, text).await?;
    Ok(ctx.call(echo, once).await?)
}

#[test]
fn answers_lead_from_one_activity_to_the_next_and_to_the_output() {
    let mut stage = Stage::start(twice, "a".to_owned());
    assert_eq!(stage.asked(), ["1 activity echo"]);
    stage = stage.task_completed(1, "b").then();
    assert_eq!(stage.asked(), ["2 activity echo"]);
    stage = stage.task_completed(2, "c").then();
    assert_eq!(stage.asked(), ["3 end Completed"]);
    assert_eq!(stage.output(), r#""c""#);
}

#[test]
fn a_failed_task_passed_on_fails_the_orchestration_and_stays_its_cause() {
    let failure = Failure::new("CardDeclined", "no money").non_retriable();
    let stage = Stage::start(twice, "a".to_owned())
        .task_failed(1, failure)
        .then();
    let failure = stage.failure();
    assert_eq!(failure.error_type, "TaskFailed");
    assert!(failure.error_message.contains("activity 'echo' (task 1)"));
    assert!(failure.is_non_retriable);
    assert_eq!(failure.inner_failure.unwrap().error_type, "CardDeclined");
}

#[test]
fn an_input_or_output_of_another_shape_is_told_and_not_retriable() {
    async fn number(ctx: OrchestrationContext, _: ()) -> Result<u32> {
        Ok(ctx.call_by_name::<u32>("n", ()).await?)
    }
    let stage = Stage::start(number, ()).task_completed(1, "x").then();
    assert_eq!(stage.failure().error_type, "PayloadError");
    assert!(stage.failure().error_message.contains("u32"));
}

#[test]
fn a_panic_fails_the_orchestration() {
    async fn panics(_: OrchestrationContext, _: ()) -> Result<()> {
        panic!("out of {}", "luck")
    }
    let stage = Stage::start(panics, ());
    assert_eq!(stage.failure().error_message, "out of luck");
}

#[test]
fn everything_joined_is_asked_for_at_once_and_comes_in_the_order_given() {
    async fn fan(ctx: OrchestrationContext, width: u32) -> Result<Vec<String>> {
        let tasks = (0..width).map(|n| ctx.call(echo, n.to_string()));
        Ok(ctx.try_join_all(tasks).await?)
    }
    let mut stage = Stage::start(fan, 100);
    assert_eq!(stage.asked().len(), 100);
    for id in (2..=100).rev() {
        stage = stage.task_completed(id, id.to_string());
    }
    stage = stage.then();
    assert!(stage.asked().iter().all(|word| !word.contains("end")));
    stage = stage.task_completed(1, "1").then();
    let expected: Vec<String> = (1..=100).map(|id| id.to_string()).collect();
    assert_eq!(stage.output(), serde_json::to_string(&expected).unwrap());
}

#[test]
fn the_first_failure_of_many_ends_the_wait() {
    async fn fan(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let tasks = (0..3).map(|n| ctx.call(echo, n.to_string()));
        ctx.try_join_all(tasks).await?;
        Ok(())
    }
    let stage = Stage::start(fan, ())
        .task_failed(2, Failure::new("X", "second"))
        .then();
    assert!(stage.failure().error_message.contains("task 2"));
}

#[test]
fn joins_of_other_libraries_work_with_any_number_of_tasks() {
    // Beyond thirty futures this one polls only what was woken.
    async fn fan(ctx: OrchestrationContext, _: ()) -> Result<usize> {
        let tasks = (0..50).map(|n| ctx.call(echo, n.to_string()));
        Ok(futures_util::future::join_all(tasks).await.len())
    }
    let mut stage = Stage::start(fan, ());
    for id in 1..=50 {
        stage = stage.task_completed(id, "x").then();
    }
    assert_eq!(stage.output(), "50");
}

#[test]
fn a_started_task_runs_beside_what_is_awaited_and_an_unpolled_one_not_at_all() {
    async fn beside(ctx: OrchestrationContext, _: ()) -> Result<String> {
        let _never = ctx.call_by_name::<()>("never", ());
        let first = ctx.call_by_name::<String>("first", ()).start();
        ctx.call_by_name::<String>("second", ()).await?;
        Ok(first.await?)
    }
    let mut stage = Stage::start(beside, ());
    assert_eq!(stage.asked(), ["1 activity first", "2 activity second"]);
    stage = stage.task_completed(1, "one").then();
    assert!(stage.asked().iter().all(|word| !word.contains("end")));
    assert_eq!(stage.task_completed(2, "two").then().output(), r#""one""#);
}

#[test]
fn the_first_of_two_or_many_wins_and_late_answers_do_no_harm() {
    async fn race(ctx: OrchestrationContext, _: ()) -> Result<String> {
        let pair = ctx.select(ctx.call(echo, "a".into()), ctx.call(echo, "b".into()));
        let Either::Right(b) = pair.await else {
            return Ok("left".to_owned());
        };
        let (index, output, rest) = ctx
            .select_all((0..3).map(|n| ctx.call(echo, n.to_string())))
            .await;
        let others = ctx.join_all(rest).await;
        Ok(format!("{} {index} {} {}", b?, output?, others.len()))
    }
    let stage = Stage::start(race, ())
        .task_completed(2, "b")
        .then()
        .task_completed(1, "late")
        .task_completed(4, "x")
        .then()
        .task_completed(5, "y")
        .task_completed(3, "z")
        .then();
    assert_eq!(stage.output(), r#""b 1 x 2""#);
}

#[test]
fn a_retry_is_a_timer_and_a_new_task_until_the_policy_gives_up() {
    async fn insists(ctx: OrchestrationContext, _: ()) -> Result<String> {
        let policy = RetryPolicy::new(3, Duration::from_secs(5)).coefficient(2.0);
        Ok(ctx.call(echo, "a".into()).retry(policy).await?)
    }
    let busy = || Failure::new("Busy", "later");
    let mut stage = Stage::start(insists, ()).task_failed(1, busy()).then();
    assert_eq!(stage.asked(), ["2 timer 1025"]);
    stage = stage.timer_fired(2).then();
    assert_eq!(stage.asked(), ["3 activity echo"]);
    let again = stage.task_failed(3, busy()).then();
    assert_eq!(again.asked(), ["4 timer 1050"]);
    let last = again.timer_fired(4).then();
    assert_eq!(last.asked(), ["5 activity echo"]);
    let given_up = last.task_failed(5, busy()).then();
    assert!(given_up.failure().error_message.contains("task 5"));
}

#[test]
fn a_retry_that_succeeds_goes_on() {
    async fn insists(ctx: OrchestrationContext, _: ()) -> Result<String> {
        let policy = RetryPolicy::new(3, Duration::from_secs(5));
        Ok(ctx.call(echo, "a".into()).retry(policy).start().await?)
    }
    let stage = Stage::start(insists, ())
        .task_failed(1, Failure::new("Busy", "later"))
        .then()
        .timer_fired(2)
        .then()
        .task_completed(3, "done")
        .then();
    assert_eq!(stage.output(), r#""done""#);
}

#[test]
fn a_timer_counts_from_when_it_was_made() {
    async fn deadline(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let deadline = ctx.timer(Duration::from_secs(60));
        ctx.call(echo, "a".into()).await?;
        deadline.await;
        Ok(())
    }
    let stage = Stage::start(deadline, ()).task_completed(1, "x").then();
    assert_eq!(stage.asked(), ["2 timer 1070"]);
}

#[test]
fn time_ids_and_random_numbers_are_the_same_at_every_replay_and_never_repeat() {
    async fn draws(ctx: OrchestrationContext, _: ()) -> Result<Vec<String>> {
        let mut drawn = vec![ctx.guid(), ctx.random().to_string()];
        let began = ctx.now();
        ctx.call(echo, drawn.join(" ")).await?;
        drawn.extend([ctx.guid(), ctx.random().to_string()]);
        let elapsed = ctx.now().duration_since(began).unwrap_or_default();
        let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        drawn.push(format!("{} {}", since.as_secs(), elapsed.as_secs()));
        Ok(drawn)
    }
    // The stage compares what the kept instance drew with what a replayed one draws.
    let stage = Stage::start(draws, ()).task_completed(1, "").then();
    let mut drawn: Vec<String> = serde_json::from_str(&stage.output()).unwrap();
    assert_eq!(drawn.pop().unwrap(), "1010 10");
    let guid = &drawn[0];
    assert_eq!((guid.len(), &guid[14..15]), (36, "8"), "{guid}");
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), 4);
}

#[test]
fn what_was_logged_once_is_not_logged_at_a_replay() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);
    impl tracing::Subscriber for Count {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            if event.metadata().target().contains("replay::tests") {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    async fn logs(ctx: OrchestrationContext, _: ()) -> Result<bool> {
        tracing::info!("begins");
        ctx.call(echo, "a".into()).await?;
        tracing::info!("ends");
        Ok(ctx.is_replaying())
    }
    let count = Count::default();
    tracing::subscriber::with_default(count.clone(), || {
        // Each episode is run twice, and the second time around the first one is replayed by one of the two.
        let stage = Stage::start(logs, ()).task_completed(1, "").then();
        assert_eq!(stage.output(), "false");
    });
    assert_eq!(count.0.load(Ordering::Relaxed), 4);
}
