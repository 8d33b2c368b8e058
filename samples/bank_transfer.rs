//! Money moves between two accounts that nobody else sees or changes meanwhile.
//!
//! cargo run -p mainspring-samples --example bank_transfer

use mainspring::{
    Entity, EntityContext, Failure, Operation, Operations, OrchestrationContext, Result, Scheduler,
};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: i64,
}

impl Entity for Account {
    fn operations(operations: &mut Operations<Self>) {
        operations
            .add::<Deposit>()
            .add::<Withdraw>()
            .add::<Balance>();
    }
}

#[derive(Serialize, Deserialize)]
struct Deposit(i64);

impl Operation<Account> for Deposit {
    type Output = ();

    async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<()> {
        account.cents += self.0;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Withdraw(i64);

impl Operation<Account> for Withdraw {
    type Output = ();

    async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<()> {
        if account.cents < self.0 {
            return Err(Failure::new(
                "NotEnough",
                format!("{} cents", account.cents),
            ));
        }
        account.cents -= self.0;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Balance;

impl Operation<Account> for Balance {
    type Output = i64;

    async fn apply(self, account: &mut Account, _: &EntityContext) -> Result<i64> {
        Ok(account.cents)
    }
}

async fn transfer(ctx: OrchestrationContext, cents: i64) -> Result<(i64, i64)> {
    let (alice, bob) = (ctx.entity::<Account>("alice"), ctx.entity::<Account>("bob"));
    // Held until dropped. Crossing transfers wait for each other, and never for ever.
    let _lock = ctx.lock([alice.id(), bob.id()]).await?;
    alice.call(Withdraw(cents)).await?;
    bob.call(Deposit(cents)).await?;
    Ok((alice.call(Balance).await?, bob.call(Balance).await?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/bank_transfer").await?;
    let worker = scheduler
        .worker()
        .orchestration(transfer)
        .entity::<Account>()
        .start()?;
    let client = scheduler.client();
    client
        .entity::<Account>("alice")
        .signal(Deposit(100))
        .await?;
    for cents in [30, 500] {
        match client.start(transfer, cents).await?.result().await {
            Ok((alice, bob)) => println!("alice {alice}, bob {bob}"),
            Err(error) => println!("no transfer: {error}"),
        }
    }
    worker.stop().await;
    Ok(scheduler.close().await?)
}
