//! Many activities at once, and one result of all of them.
//!
//! cargo run -p mainspring-samples --example fan_out_fan_in

use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};

async fn count_words(ctx: OrchestrationContext, pages: Vec<String>) -> Result<usize> {
    let counts = pages.into_iter().map(|page| ctx.call(count_page, page));
    Ok(ctx.try_join_all(counts).await?.iter().sum())
}

async fn count_page(_: ActivityContext, page: String) -> Result<usize> {
    Ok(page.split_whitespace().count())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/fan_out_fan_in").await?;
    let worker = scheduler
        .worker()
        .orchestration(count_words)
        .activity(count_page)
        .start()?;
    let pages: Vec<String> = (1..=100).map(|page| "word ".repeat(page)).collect();
    let count = scheduler.client().start(count_words, pages).await?;
    println!("{} words on 100 pages", count.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
