//! Code that does something else than its history says, or waits for what no history can tell.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::oneshot;

use super::stage::Stage;
use super::tasks::echo;
use crate::replay::{Mismatch, Trouble};
use crate::{OrchestrationContext, Result, named};

async fn deployed(ctx: OrchestrationContext, _: ()) -> Result<()> {
    ctx.call(echo, "a".into()).await?;
    ctx.timer(Duration::from_secs(1)).await;
    Ok(())
}

/// A history of `deployed`, in the middle of its timer, met by other code.
macro_rules! met_by {
    ($code:expr) => {{
        let stage = Stage::start(deployed, ()).task_completed(1, "").then();
        let mut changed = stage.redeployed(named("deployed", $code)).timer_fired(2);
        changed.try_to_go()
    }};
}

fn mismatch(result: std::result::Result<(), Trouble>) -> Mismatch {
    match result {
        Err(Trouble::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unchanged_code_fits() {
    assert_eq!(met_by!(deployed), Ok(()));
}

#[test]
fn another_activity_is_told_with_the_event_and_both_actions() {
    async fn changed(ctx: OrchestrationContext, _: ()) -> Result<()> {
        Ok(ctx.call_by_name::<()>("other", ()).await?)
    }
    let expected = Mismatch {
        event: 3,
        expected: "activity 'echo' (id 1)".to_owned(),
        found: "activity 'other' (id 1)".to_owned(),
    };
    assert_eq!(mismatch(met_by!(changed)), expected);
}

#[test]
fn an_action_of_another_kind_is_told() {
    async fn changed(ctx: OrchestrationContext, _: ()) -> Result<()> {
        ctx.timer(Duration::from_secs(1)).await;
        Ok(())
    }
    assert_eq!(mismatch(met_by!(changed)).found, "a timer (id 1)");
}

#[test]
fn an_action_that_history_does_not_have_is_told() {
    async fn changed(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let second = ctx.call_by_name::<()>("second", ());
        let (first, _) = ctx.join(ctx.call(echo, "a".into()), second).await;
        first?;
        Ok(())
    }
    let told = mismatch(met_by!(changed));
    assert_eq!(told.event, 4);
    assert_eq!(told.found, "activity 'second' (id 2)");
}

#[test]
fn an_action_that_the_code_no_longer_takes_is_told() {
    async fn ends(ctx: OrchestrationContext, _: ()) -> Result<()> {
        ctx.call(echo, "a".into()).await?;
        Ok(())
    }
    async fn waits(ctx: OrchestrationContext, _: ()) -> Result<()> {
        ctx.call(echo, "a".into()).await?;
        Ok(ctx.event::<()>("never").await?)
    }
    let told = mismatch(met_by!(ends));
    assert_eq!(
        (told.expected.as_str(), told.found.as_str()),
        ("a timer (id 2)", "the code's end")
    );
    assert_eq!(mismatch(met_by!(waits)).found, "no action");
}

#[test]
fn code_that_nobody_registered_is_told_by_name() {
    let stage = Stage::start(deployed, ());
    let mut other = stage.redeployed(named("another", deployed));
    let expected = Trouble::Unknown {
        name: "deployed".to_owned(),
        version: String::new(),
    };
    assert_eq!(other.try_to_go(), Err(expected));
}

#[test]
fn a_future_that_no_history_can_answer_is_told() {
    async fn stuck(_: OrchestrationContext, _: ()) -> Result<()> {
        std::future::pending().await
    }
    let told = mismatch(Stage::waiting(stuck, ()).try_to_go());
    assert!(told.found.contains("no part of its history"), "{told}");
}

#[test]
fn a_future_of_a_runtime_is_told() {
    async fn sleeps(_: OrchestrationContext, _: ()) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
    let told = mismatch(Stage::waiting(sleeps, ()).try_to_go());
    assert!(told.found.contains("async runtime"), "{told}");
}

#[test]
fn code_that_is_woken_from_elsewhere_is_told() {
    static HELD: Mutex<Vec<oneshot::Sender<()>>> = Mutex::new(Vec::new());
    async fn leaks(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let (send, receive) = oneshot::channel();
        HELD.lock().unwrap().push(send);
        ctx.join(ctx.call(echo, "a".into()), receive).await.0?;
        Ok(())
    }
    let mut stage = Stage::start(leaks, ()).task_completed(1, "");
    // Wakes the run that was kept, from outside of its history.
    HELD.lock().unwrap().clear();
    let told = mismatch(stage.try_to_go());
    assert!(told.found.contains("woken by something"), "{told}");
}

#[test]
fn code_that_wakes_itself_now_and_then_goes_on_and_for_ever_is_told() {
    async fn yields(ctx: OrchestrationContext, times: Option<u32>) -> Result<()> {
        let mut left = times;
        std::future::poll_fn(|context| {
            if left == Some(0) {
                return std::task::Poll::Ready(());
            }
            left = left.map(|left| left - 1);
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        Ok(ctx.call_by_name::<()>("next", ()).await?)
    }
    assert_eq!(Stage::start(yields, Some(100)).asked(), ["1 activity next"]);
    let told = mismatch(Stage::waiting(yields, None).try_to_go());
    assert!(told.found.contains("over and over"), "{told}");
}
