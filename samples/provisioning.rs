//! Infrastructure is set up step by step; when a step fails for good, what was set up is taken down again, last first.
//!
//! cargo run -p mainspring-samples --example provisioning

use std::time::Duration;

use mainspring::{ActivityContext, Failure, OrchestrationContext, Result, RetryPolicy, Scheduler};

async fn provision(ctx: OrchestrationContext, steps: Vec<String>) -> Result<String> {
    let mut done: Vec<String> = Vec::new();
    for step in steps {
        let policy = RetryPolicy::new(2, Duration::from_millis(50));
        match ctx.call(set_up, step.clone()).retry(policy).await {
            Ok(()) => done.push(step),
            Err(error) => {
                ctx.set_custom_status("rolling back")?;
                for step in done.into_iter().rev() {
                    // Insists: what is half taken down costs money.
                    let policy = RetryPolicy::new(10, Duration::from_millis(50)).coefficient(2.0);
                    ctx.call(take_down, step).retry(policy).await?;
                }
                return Ok(format!("rolled back: {error}"));
            }
        }
    }
    Ok(format!("{} are up", done.join(", ")))
}

async fn set_up(_: ActivityContext, step: String) -> Result<()> {
    println!("set up {step}");
    match step.as_str() {
        "gpu" => Err(Failure::new(
            "QuotaExceeded",
            "no gpu is left in this region",
        )),
        _ => Ok(()),
    }
}

async fn take_down(_: ActivityContext, step: String) -> Result<()> {
    println!("take down {step}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/provisioning").await?;
    let worker = scheduler
        .worker()
        .orchestration(provision)
        .activity(set_up)
        .activity(take_down)
        .start()?;
    for steps in [
        vec!["network", "disk", "vm"],
        vec!["network", "disk", "gpu"],
    ] {
        let steps = steps.into_iter().map(str::to_owned).collect();
        let run = scheduler.client().start(provision, steps).await?;
        println!("{}", run.result().await?);
    }
    worker.stop().await;
    Ok(scheduler.close().await?)
}
