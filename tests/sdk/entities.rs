//! Entities as structs, operations as types.

use std::time::{Duration, SystemTime};

use mainspring_sdk::{
    Entity, EntityContext, EntityId, EntityQuery, Failure, Operation, Operations,
    OrchestrationContext, Result,
};
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, served};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    cents: i64,
}

impl Entity for Account {
    fn operations(operations: &mut Operations<Self>) {
        operations
            .add::<Change>()
            .add::<GetBalance>()
            .add::<Close>();
    }
}

#[derive(Serialize, Deserialize)]
struct Change(i64);

impl Operation<Account> for Change {
    type Output = i64;

    async fn apply(self, account: &mut Account, ctx: &EntityContext) -> Result<i64> {
        account.cents += self.0;
        let audit = EntityId::new("account", "audit");
        if *ctx.id() != audit {
            ctx.signal_entity(&audit, "change", 1, None)?;
        }
        if account.cents < 0 {
            return Err(Failure::new(
                "Overdrawn",
                format!("{} cents", account.cents),
            ));
        }
        Ok(account.cents)
    }
}

#[derive(Serialize, Deserialize)]
struct GetBalance;

impl Operation<Account> for GetBalance {
    type Output = i64;

    async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<i64> {
        Ok(account.cents)
    }
}

#[derive(Serialize, Deserialize)]
struct Close;

impl Operation<Account> for Close {
    type Output = ();

    async fn apply(self, _: &mut Account, ctx: &EntityContext) -> Result<()> {
        ctx.delete();
        Ok(())
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Transfer {
    from: String,
    to: String,
    cents: i64,
}

async fn transfer(ctx: OrchestrationContext, order: Transfer) -> Result<bool> {
    let from = ctx.entity::<Account>(order.from);
    let to = ctx.entity::<Account>(order.to);
    let _lock = ctx.lock([from.id(), to.id()]).await?;
    if from.call(GetBalance).await? < order.cents {
        return Ok(false);
    }
    from.call(Change(-order.cents)).await?;
    to.call(Change(order.cents)).await?;
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_change_the_state_and_a_failed_operation_leaves_no_trace() {
    let (_scheduler, client) = served();
    let _worker = client.worker().entity::<Account>().start().unwrap();
    let account = client.entity::<Account>("a");
    assert_eq!(account.state().await.unwrap(), None);
    account.signal(Change(100)).await.unwrap();
    account.signal(Change(-500)).await.unwrap();
    account.signal(Change(11)).await.unwrap();
    // S-12.17, S-12.38
    let balance = async || {
        loop {
            let state = client.entity_state(account.id()).await.unwrap();
            if let Some(state) = state.filter(|state| state.backlog == 0) {
                return state.state::<Account>().unwrap().cents;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(balance().await, 111);
    let audit = client.entity::<Account>("audit");
    while audit.state().await.unwrap() != Some(Account { cents: 2 }) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let soon = SystemTime::now() + Duration::from_millis(50);
    account.signal_at(soon, Close).await.unwrap();
    while account.state().await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_under_locks_keep_the_sum() {
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(transfer)
        .entity::<Account>()
        .start()
        .unwrap();
    for key in ["a", "b", "c"] {
        client
            .entity::<Account>(key)
            .signal(Change(50))
            .await
            .unwrap();
    }
    let mut running = Vec::new();
    for number in 0..30 {
        let keys = ["a", "b", "c"];
        let order = Transfer {
            from: keys[number % 3].to_owned(),
            to: keys[(number * 2 + 1) % 3].to_owned(),
            cents: 20,
        };
        if order.from != order.to {
            running.push(client.start(transfer, order).await.unwrap());
        }
    }
    for instance in running {
        instance.result_within(PATIENCE).await.unwrap();
    }
    let query = EntityQuery {
        name: Some("Account".to_owned()),
        ..Default::default()
    };
    let page = client.entities(query).await.unwrap();
    let sum: i64 = page
        .entities
        .iter()
        .filter(|entity| entity.id.key() != "audit")
        .map(|entity| entity.state::<Account>().unwrap().cents)
        .sum();
    assert_eq!(sum, 150);
    assert!(
        page.entities
            .iter()
            .all(|entity| entity.locked_by.is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_nobody_has_and_a_failed_one_reach_the_caller() {
    async fn asks(ctx: OrchestrationContext, _: ()) -> Result<Vec<String>> {
        let account = ctx.entity::<Account>("a");
        let unknown = ctx.call_entity::<()>(account.id(), "fly", ()).await;
        let overdrawn = account.call(Change(-1)).await;
        Ok(vec![
            unknown.unwrap_err().to_string(),
            overdrawn.unwrap_err().to_string(),
        ])
    }
    let (_scheduler, client) = served();
    let _worker = client
        .worker()
        .orchestration(asks)
        .entity::<Account>()
        .start()
        .unwrap();
    let errors = client.start(asks, ()).await.unwrap();
    let errors = errors.result_within(PATIENCE).await.unwrap();
    assert!(errors[0].contains("no operation 'fly'"), "{errors:?}");
    assert!(errors[1].contains("Overdrawn"), "{errors:?}");
}
