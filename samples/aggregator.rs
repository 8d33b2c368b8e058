//! Many senders, one sum: a stream of readings is gathered by an entity for each sensor, which tells an overview when a limit is passed.
//!
//! cargo run -p mainspring-samples --example aggregator

use std::collections::BTreeMap;
use std::time::Duration;

use mainspring::{Entity, EntityContext, Operation, Operations, Result, Scheduler};
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Sensor {
    readings: u32,
    highest: f64,
}

impl Entity for Sensor {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Read>();
    }
}

#[derive(Serialize, Deserialize)]
struct Read {
    celsius: f64,
}

impl Operation<Sensor> for Read {
    type Output = ();

    async fn apply(self, sensor: &mut Sensor, ctx: &EntityContext) -> Result<()> {
        sensor.readings += 1;
        if self.celsius > sensor.highest {
            sensor.highest = self.celsius;
            // Goes out together with the new state, or not at all.
            let record = Record {
                sensor: ctx.id().key().to_owned(),
                celsius: self.celsius,
            };
            ctx.signal::<Overview, _>("all", record)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Overview {
    highest: BTreeMap<String, f64>,
}

impl Entity for Overview {
    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Record>();
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    sensor: String,
    celsius: f64,
}

impl Operation<Overview> for Record {
    type Output = ();

    async fn apply(self, overview: &mut Overview, _: &EntityContext) -> Result<()> {
        overview.highest.insert(self.sensor, self.celsius);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/aggregator").await?;
    let worker = scheduler
        .worker()
        .entity::<Sensor>()
        .entity::<Overview>()
        .start()?;
    let client = scheduler.client();
    for minute in 0..60 {
        for (sensor, celsius) in [("attic", 20.0), ("cellar", 11.0)] {
            let celsius = celsius + f64::from(minute % 25) / 10.0;
            client
                .entity::<Sensor>(sensor)
                .signal(Read { celsius })
                .await?;
        }
    }
    let overview = client.entity::<Overview>("all");
    let expected = BTreeMap::from([("attic".to_owned(), 22.4), ("cellar".to_owned(), 13.4)]);
    loop {
        if let Some(overview) = overview.state().await?
            && overview.highest == expected
        {
            println!("{:?}", overview.highest);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.stop().await;
    Ok(scheduler.close().await?)
}
