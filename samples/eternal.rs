//! Runs for ever with a history that stays short: each round is a new generation. Events that come meanwhile are kept.
//!
//! cargo run -p mainspring-samples --example eternal

use std::time::Duration;

use mainspring::{ActivityContext, Either, OrchestrationContext, Result, Scheduler};

async fn clean_up(ctx: OrchestrationContext, round: u32) -> Result<String> {
    ctx.call(remove_old_files, round).await?;
    // A day in real life.
    let next = ctx.timer(Duration::from_millis(200));
    match ctx.select(ctx.event::<String>("stop"), next).await {
        Either::Left(reason) => Ok(format!("stopped: {}", reason?)),
        Either::Right(()) => ctx.continue_as_new(round + 1),
    }
}

async fn remove_old_files(_: ActivityContext, round: u32) -> Result<()> {
    println!("round {round}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/eternal").await?;
    let worker = scheduler
        .worker()
        .orchestration(clean_up)
        .activity(remove_old_files)
        .start()?;
    let eternal = scheduler.client().start(clean_up, 1).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    eternal.raise_event("stop", "enough for today").await?;
    println!("{}", eternal.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
