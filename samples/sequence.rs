//! Three activities in a row, each given what the one before returned.
//!
//! cargo run -p mainspring-samples --example sequence

use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};

async fn order_coffee(ctx: OrchestrationContext, beans: String) -> Result<String> {
    let ground = ctx.call(grind, beans).await?;
    let brewed = ctx.call(brew, ground).await?;
    Ok(ctx.call(serve, brewed).await?)
}

async fn grind(_: ActivityContext, beans: String) -> Result<String> {
    Ok(format!("ground {beans}"))
}

async fn brew(_: ActivityContext, ground: String) -> Result<String> {
    Ok(format!("coffee of {ground}"))
}

async fn serve(_: ActivityContext, coffee: String) -> Result<String> {
    Ok(format!("a cup of {coffee}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/sequence").await?;
    let worker = scheduler
        .worker()
        .orchestration(order_coffee)
        .activity(grind)
        .activity(brew)
        .activity(serve)
        .start()?;
    let order = scheduler
        .client()
        .start(order_coffee, "arabica".to_owned())
        .await?;
    println!("{}", order.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
