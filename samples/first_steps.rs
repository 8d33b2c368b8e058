//! An orchestration and an entity, with the scheduler inside. Kill it in the middle and start it again: it goes on where it was.
//!
//! cargo run -p mainspring-samples --example first_steps
use mainspring::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Visits(u32);

impl Entity for Visits {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Count>();
    }
}

#[derive(Serialize, Deserialize)]
struct Count(u32);

impl Operation<Visits> for Count {
    type Output = u32;
    async fn apply(self, visits: &mut Visits, _: &EntityContext) -> Result<u32> {
        visits.0 += self.0;
        Ok(visits.0)
    }
}

async fn tour(ctx: OrchestrationContext, cities: Vec<String>) -> Result<()> {
    for city in cities {
        let visit = ctx.entity::<Visits>("all").call(Count(1)).await?;
        ctx.call(greet, (city, visit)).await?;
        ctx.timer(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn greet(_: ActivityContext, (city, visit): (String, u32)) -> Result<()> {
    println!("{visit}: hello {city}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/first_steps").await?;
    let worker = scheduler.worker().orchestration(tour).activity(greet);
    let _worker = worker.entity::<Visits>().start()?;
    let cities = ["Tokyo", "Lisbon", "Quito"].map(String::from).to_vec();
    drop(scheduler.client().start(tour, cities).id("tour").await); // Refused if it is under way.
    Ok(scheduler.client().instance("tour").result().await?)
}
