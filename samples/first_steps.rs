//! An orchestration and an entity, with the scheduler inside. Kill it in the middle and start it again: it goes on where it was.
//!
//! cargo run -p mainspring-samples --example first_steps
use std::time::Duration;

use mainspring::{ActivityContext, Entity, EntityContext, Operation, Operations};
use mainspring::{OrchestrationContext, Result, Scheduler};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Visits(u32);
impl Entity for Visits {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Count>();
    }
}
#[derive(Serialize, Deserialize)]
struct Count;
impl Operation<Visits> for Count {
    type Output = u32;
    async fn apply(self, visits: &mut Visits, _: &EntityContext) -> Result<u32> {
        visits.0 += 1;
        Ok(visits.0)
    }
}
async fn greet(_: ActivityContext, city: String) -> Result<()> {
    Ok(println!("Hello {city}!"))
}
async fn tour(ctx: OrchestrationContext, cities: Vec<String>) -> Result<u32> {
    for city in cities {
        ctx.call(greet, city).await?;
        ctx.entity::<Visits>("all").call(Count).await?;
        ctx.timer(Duration::from_secs(1)).await;
    }
    Ok(ctx.entity::<Visits>("all").call(Count).await? - 1)
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/first_steps").await?;
    let worker = scheduler.worker().orchestration(tour).activity(greet);
    let _worker = worker.entity::<Visits>().start()?;
    let cities = ["Tokyo", "Lisbon", "Quito"].map(str::to_owned).to_vec();
    // Started once: a second start under the same id is refused while the first is under way.
    let started = scheduler.client().start(tour, cities).id("tour").await;
    println!(
        "{}",
        if started.is_ok() {
            "started"
        } else {
            "going on"
        }
    );
    let tour = scheduler.client().instance::<u32>("tour");
    Ok(println!("{} cities", tour.result().await?))
}
