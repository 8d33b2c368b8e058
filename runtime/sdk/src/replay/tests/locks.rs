//! Entities from an orchestrator: calls, signals, critical sections.

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::{
    Entity, EntityContext, EntityId, Operation, Operations, OrchestrationContext, Result, TaskError,
};

#[derive(Default, Serialize, Deserialize)]
struct Account(i64);

impl Entity for Account {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Change>();
    }
}

#[derive(Serialize, Deserialize)]
struct Change(i64);

impl Operation<Account> for Change {
    type Output = i64;

    async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<i64> {
        account.0 += self.0;
        Ok(account.0)
    }
}

#[test]
fn a_call_waits_for_its_answer_and_a_signal_for_nothing() {
    async fn asks(ctx: OrchestrationContext, _: ()) -> Result<i64> {
        let account = ctx.entity::<Account>("A");
        account.signal(Change(1))?;
        Ok(account.call(Change(2)).await?)
    }
    let mut stage = Stage::start(asks, ());
    assert_eq!(stage.asked(), ["1 signal change", "2 call change"]);
    stage = stage.operation_completed(2, 3).then();
    assert_eq!(stage.output(), "3");
}

#[test]
fn entities_are_locked_together_and_unlocked_when_the_lock_is_dropped() {
    async fn transfer(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let (b, a) = (ctx.entity::<Account>("b"), ctx.entity::<Account>("a"));
        let lock = ctx.lock([b.id(), a.id(), b.id()]).await?;
        a.call(Change(-1)).await?;
        lock.release();
        ctx.timer(std::time::Duration::from_secs(1)).await;
        Ok(())
    }
    // S-12.25, S-12.35
    let mut stage = Stage::start(transfer, ());
    assert_eq!(stage.asked(), ["1 lock @account@a @account@b"]);
    stage = stage.granted(1).then();
    assert_eq!(stage.asked(), ["2 call change"]);
    stage = stage.operation_completed(2, 0).then();
    assert_eq!(
        stage.asked(),
        ["3 unlock @account@a", "4 unlock @account@b", "5 timer 1031"]
    );
    assert_eq!(stage.timer_fired(5).then().asked(), ["6 end Completed"]);
}

#[test]
fn a_lock_held_to_the_end_is_released_with_it() {
    async fn holds(ctx: OrchestrationContext, _: ()) -> Result<()> {
        let account = ctx.entity::<Account>("a");
        let _lock = ctx.lock([account.id()]).await?;
        Err(crate::Failure::new("X", "on the way"))
    }
    let stage = Stage::start(holds, ()).granted(1).then();
    assert_eq!(stage.asked(), ["2 unlock @account@a", "3 end Failed"]);
}

#[test]
fn within_a_critical_section_only_what_it_locked_may_be_called_one_call_at_a_time() {
    async fn strays(ctx: OrchestrationContext, _: ()) -> Result<Vec<String>> {
        let (a, b) = (ctx.entity::<Account>("a"), ctx.entity::<Account>("b"));
        let _lock = ctx.lock([a.id()]).await?;
        let mut refused = Vec::new();
        let mut note = |error: TaskError| refused.push(error.to_string());
        note(b.call(Change(1)).await.unwrap_err());
        note(a.signal(Change(1)).unwrap_err());
        note(ctx.lock([b.id()]).await.unwrap_err());
        let (first, second) = ctx.join(a.call(Change(1)), a.call(Change(2))).await;
        note(second.unwrap_err());
        first?;
        b.signal(Change(5))?;
        Ok(refused)
    }
    let mut stage = Stage::start(strays, ()).granted(1).then();
    assert_eq!(stage.asked(), ["2 call change"]);
    stage = stage.operation_completed(2, 1).then();
    let refused: Vec<String> = serde_json::from_str(&stage.output()).unwrap();
    for (text, reason) in refused.iter().zip([
        "not locked",
        "locked",
        "holds locks already",
        "is answering",
    ]) {
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(refused.len(), 4);
    assert_eq!(stage.asked()[0], "3 signal change");
}

#[test]
fn an_entity_id_reads_as_it_is_written_and_nothing_else_does() {
    // S-12.1, S-12.2
    let id: EntityId = "@Counter@a@b".parse().unwrap();
    assert_eq!((id.name(), id.key()), ("counter", "a@b"));
    assert_eq!(EntityId::new("C", "").to_string(), "@c@");
    for text in ["", "counter@a", "@counter", "@@a"] {
        assert!(text.parse::<EntityId>().is_err(), "{text}");
    }
}
