//! External events, custom status, and beginning again.

use std::time::Duration;

use mainspring_proto::OrchestrationStatus;
use mainspring_proto::history_event::EventType;

use super::stage::Stage;
use super::tasks::echo;
use crate::{ContinueAsNew, OrchestrationContext, Result};

#[test]
fn an_event_is_matched_in_any_case_and_kept_until_somebody_waits_for_it() {
    async fn two(ctx: OrchestrationContext, _: ()) -> Result<Vec<u32>> {
        ctx.call(echo, "a".into()).await?;
        let first = ctx.event("Go").await?;
        Ok(vec![first, ctx.event("Go").await?])
    }
    // S-8.1
    let stage = Stage::start(two, ())
        .raised("GO", 1)
        .then()
        .raised("go", 2)
        .task_completed(1, "")
        .then();
    assert_eq!(stage.output(), "[1,2]");
}

#[test]
fn the_oldest_waiter_gets_the_event() {
    async fn two(ctx: OrchestrationContext, _: ()) -> Result<(u32, u32)> {
        let (first, second) = ctx.join(ctx.event("e"), ctx.event("e")).await;
        Ok((first?, second?))
    }
    let stage = Stage::start(two, ())
        .raised("e", 1)
        .then()
        .raised("e", 2)
        .then();
    assert_eq!(stage.output(), "[1,2]");
}

#[test]
fn a_wait_that_was_given_up_takes_no_event() {
    async fn patient(ctx: OrchestrationContext, _: ()) -> Result<Vec<Option<u32>>> {
        let wait = Duration::from_secs(1);
        let first = ctx.timeout(wait, ctx.event::<u32>("e")).await;
        let second = ctx.timeout(wait, ctx.event::<u32>("e")).await;
        Ok(vec![first.transpose()?, second.transpose()?])
    }
    let mut stage = Stage::start(patient, ());
    assert_eq!(stage.asked(), ["1 timer 1011"]);
    stage = stage.timer_fired(1).then();
    assert_eq!(stage.asked(), ["2 timer 1021"]);
    assert_eq!(stage.raised("e", 7).then().output(), "[null,7]");
}

#[test]
fn the_next_generation_gets_its_input_and_the_events_that_nobody_took() {
    async fn again(ctx: OrchestrationContext, round: u32) -> Result<()> {
        ctx.event::<u32>("now").await?;
        ctx.continue_as_new(round + 1)
    }
    // S-3.17, S-3.18
    let stage = Stage::waiting(again, 1)
        .raised("b", 1)
        .raised("a", 2)
        .raised("b", 3)
        .raised("now", 0)
        .then();
    let completion = stage.completion();
    assert_eq!(
        completion.orchestration_status(),
        OrchestrationStatus::ContinuedAsNew
    );
    assert_eq!(completion.result.as_deref(), Some("2"));
    let carried: Vec<_> = completion
        .carryover_events
        .into_iter()
        .map(|event| match event.event_type {
            Some(EventType::EventRaised(raised)) => (raised.name, raised.input.unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("b", "1"), ("a", "2"), ("b", "3")];
    assert_eq!(
        carried,
        expected.map(|(name, input)| (name.to_owned(), input.to_owned()))
    );
}

#[test]
fn the_next_generation_may_be_of_another_version_and_without_events() {
    async fn upgrade(ctx: OrchestrationContext, _: ()) -> Result<u32> {
        let how = ContinueAsNew::new().version("2.0").drop_events();
        ctx.continue_with(how, ())
    }
    let completion = Stage::waiting(upgrade, ())
        .raised("e", 1)
        .then()
        .completion();
    assert_eq!(completion.new_version.as_deref(), Some("2.0"));
    assert!(completion.carryover_events.is_empty());
    assert_eq!(completion.result, None);
}

#[test]
fn the_custom_status_is_told_again_with_every_episode_until_it_is_cleared() {
    async fn shows(ctx: OrchestrationContext, _: ()) -> Result<()> {
        ctx.set_custom_status("waiting")?;
        ctx.event::<()>("a").await?;
        ctx.event::<()>("b").await?;
        ctx.set_custom_status(())?;
        Ok(())
    }
    // S-3.23: unset would bring back what the generation before had.
    let status = |stage: &Stage| stage.answer.as_ref().unwrap().custom_status.clone();
    let mut stage = Stage::start(shows, ());
    assert_eq!(status(&stage).as_deref(), Some(r#""waiting""#));
    stage = stage.raised("a", ()).then();
    assert_eq!(status(&stage).as_deref(), Some(r#""waiting""#));
    stage = stage.raised("b", ()).then();
    assert_eq!(status(&stage).as_deref(), Some(""));
}
