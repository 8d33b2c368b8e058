//! A data pipeline across languages: the orchestration and one step in Rust, the other in Python, each in a process of its own.
//!
//! Needs Python with `pip install durabletask-azuremanaged`; `SAMPLE_PYTHON` names another interpreter than `python3`.
//!
//! cargo run -p mainspring-samples --example data_pipeline

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command};

use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};

async fn pipeline(ctx: OrchestrationContext, files: u32) -> Result<f64> {
    let rows = ctx
        .try_join_all((0..files).map(|file| ctx.call(extract, file)))
        .await?;
    // Activities of other programs are called by name; the type says what comes back.
    let means = rows
        .into_iter()
        .map(|rows| ctx.call_by_name::<f64>("mean_in_python", rows));
    let means = ctx.try_join_all(means).await?;
    Ok(means.iter().sum::<f64>() / f64::from(files))
}

async fn extract(_: ActivityContext, file: u32) -> Result<Vec<u32>> {
    Ok((0..10).map(|row| file * 10 + row).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::options("sample-data/data_pipeline")
        .serve_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .open()
        .await?;
    let worker = scheduler
        .worker()
        .orchestration(pipeline)
        .activity(extract)
        .start()?;
    let address = scheduler.grpc_addr().ok_or("it is served")?;
    let mut python = python_worker(&address.to_string())?;
    let mean = scheduler.client().start(pipeline, 5).await?.result().await;
    python.kill()?;
    python.wait()?;
    println!("mean {}", mean?);
    worker.stop().await;
    Ok(scheduler.close().await?)
}

fn python_worker(address: &str) -> std::io::Result<Child> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/data_pipeline_worker.py");
    let python = std::env::var("SAMPLE_PYTHON").unwrap_or("python3".to_owned());
    Command::new(python).arg(script).arg(address).spawn()
}
