//! An expense waits for a person's approval, but not for ever. Approves by itself; `reject` and `ignore` show the other ways.
//!
//! cargo run -p mainspring-samples --example human_interaction -- reject

use std::time::Duration;

use mainspring::{ActivityContext, Either, OrchestrationContext, Result, Scheduler};

async fn expense(ctx: OrchestrationContext, euros: u32) -> Result<String> {
    ctx.call(ask_manager, euros).await?;
    // Three days in real life. The wait survives restarts of everything.
    let deadline = ctx.timer(Duration::from_secs(3));
    let outcome = match ctx.select(ctx.event::<bool>("Approval"), deadline).await {
        Either::Left(approved) => match approved? {
            true => "paid",
            false => "rejected",
        },
        Either::Right(()) => "nobody answered",
    };
    Ok(outcome.to_owned())
}

async fn ask_manager(_: ActivityContext, euros: u32) -> Result<()> {
    println!("please approve {euros} euros");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let answer = std::env::args().nth(1).unwrap_or("approve".to_owned());
    let scheduler = Scheduler::open("sample-data/human_interaction").await?;
    let worker = scheduler
        .worker()
        .orchestration(expense)
        .activity(ask_manager)
        .start()?;
    let expense = scheduler.client().start(expense, 120).await?;
    if answer != "ignore" {
        expense.raise_event("Approval", answer == "approve").await?;
    }
    println!("{}", expense.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
