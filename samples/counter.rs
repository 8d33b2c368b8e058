//! A counter: state with a name, changed by one operation at a time.
//!
//! cargo run -p mainspring-samples --example counter

use mainspring::{
    Entity, EntityContext, Operation, Operations, OrchestrationContext, Result, Scheduler,
};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    value: i64,
}

impl Entity for Counter {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Add>().add::<Get>().add::<Reset>();
    }
}

#[derive(Serialize, Deserialize)]
struct Add(i64);

impl Operation<Counter> for Add {
    type Output = i64;

    async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> {
        counter.value += self.0;
        Ok(counter.value)
    }
}

#[derive(Serialize, Deserialize)]
struct Get;

impl Operation<Counter> for Get {
    type Output = i64;

    async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<i64> {
        Ok(counter.value)
    }
}

#[derive(Serialize, Deserialize)]
struct Reset;

impl Operation<Counter> for Reset {
    type Output = ();

    async fn apply(self, _: &mut Counter, ctx: &EntityContext) -> Result<()> {
        ctx.delete();
        Ok(())
    }
}

/// An orchestration may call, and get an answer; a client signals.
async fn count_to(ctx: OrchestrationContext, target: i64) -> Result<i64> {
    let counter = ctx.entity::<Counter>("clicks");
    while counter.call(Get).await? < target {
        counter.call(Add(1)).await?;
    }
    Ok(counter.call(Get).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/counter").await?;
    let worker = scheduler
        .worker()
        .orchestration(count_to)
        .entity::<Counter>()
        .start()?;
    let client = scheduler.client();
    let counter = client.entity::<Counter>("clicks");
    counter.signal(Add(5)).await?;
    println!("{}", client.start(count_to, 8).await?.result().await?);
    counter.signal(Reset).await?;
    println!("{}", client.start(count_to, 3).await?.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
