//! An orchestration made of others, each with an id, a history and a fate of its own.
//!
//! cargo run -p mainspring-samples --example sub_orchestrations

use std::time::Duration;

use mainspring::{ActivityContext, OrchestrationContext, Result, RetryPolicy, Scheduler};

async fn release(ctx: OrchestrationContext, platforms: Vec<String>) -> Result<Vec<String>> {
    let builds = platforms.into_iter().map(|platform| {
        let id = format!("{}-{platform}", ctx.instance_id());
        ctx.child(build, platform)
            .id(id)
            .retry(RetryPolicy::new(3, Duration::from_millis(100)))
    });
    Ok(ctx.try_join_all(builds).await?)
}

async fn build(ctx: OrchestrationContext, platform: String) -> Result<String> {
    let binary = ctx.call(compile, platform).await?;
    Ok(ctx.call(sign, binary).await?)
}

async fn compile(_: ActivityContext, platform: String) -> Result<String> {
    Ok(format!("binary for {platform}"))
}

async fn sign(_: ActivityContext, binary: String) -> Result<String> {
    Ok(format!("signed {binary}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/sub_orchestrations").await?;
    let worker = scheduler
        .worker()
        .orchestration(release)
        .orchestration(build)
        .activity(compile)
        .activity(sign)
        .start()?;
    let platforms = ["linux", "macos", "windows"].map(str::to_owned).to_vec();
    let release = scheduler
        .client()
        .start(release, platforms)
        .id("release-9")
        .await?;
    for build in release.result().await? {
        println!("{build}");
    }
    let linux = scheduler.client().instance::<String>("release-9-linux");
    let state = linux.state().await?.ok_or("the child is kept")?;
    println!("{} is {}", state.id, state.status);
    worker.stop().await;
    release.purge().await?;
    Ok(scheduler.close().await?)
}
