//! Looks at something again and again, less and less often, until it is as it should be or time runs out.
//!
//! cargo run -p mainspring-samples --example monitor

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};

async fn watch_build(ctx: OrchestrationContext, build: String) -> Result<String> {
    let give_up = ctx.now() + Duration::from_secs(30);
    let mut pause = Duration::from_millis(100);
    while ctx.now() < give_up {
        let status = ctx.call(look, build.clone()).await?;
        ctx.set_custom_status(&status)?;
        if status != "running" {
            return Ok(format!("{build} {status}"));
        }
        ctx.timer(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
    Ok(format!("{build} took too long"))
}

/// Stands for a build server that needs a while.
async fn look(_: ActivityContext, build: String) -> Result<String> {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let looks = LOOKS.fetch_add(1, Ordering::Relaxed);
    println!("looking at {build}");
    Ok(if looks < 3 { "running" } else { "passed" }.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/monitor").await?;
    let worker = scheduler
        .worker()
        .orchestration(watch_build)
        .activity(look)
        .start()?;
    let watch = scheduler
        .client()
        .start(watch_build, "build-7".to_owned())
        .await?;
    println!("{}", watch.result().await?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}
