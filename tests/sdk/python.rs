//! Rust and Python share a hub: each calls what the other has.

use std::path::Path;
use std::process::{Child, Command};

use mainspring_sdk::{ActivityContext, OrchestrationContext, Result};
use mainspring_tests::python;
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, served};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    lines: Vec<String>,
}

async fn rust_step(_: ActivityContext, mut order: Order) -> Result<Order> {
    order.lines.push("rust".to_owned());
    Ok(order)
}

async fn rust_order(ctx: OrchestrationContext, order: Order) -> Result<Order> {
    Ok(ctx.call_by_name("python_step", order).await?)
}

/// Ends with the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn python_worker(address: &str) -> Worker {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/python_worker.py");
    let worker = Command::new(python()).arg(script).arg(address).spawn();
    Worker(worker.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_orchestrator_calls_a_python_activity_and_the_other_way_round() {
    let (scheduler, client) = served();
    let _python = python_worker(scheduler.address());
    let _rust = client
        .worker()
        .orchestration(rust_order)
        .activity(rust_step)
        .start()
        .unwrap();
    let order = || Order {
        lines: vec!["größer".to_owned()],
    };
    let expected = |by: &str| Order {
        lines: vec!["größer".to_owned(), by.to_owned()],
    };
    let ours = client.start(rust_order, order()).await.unwrap();
    assert_eq!(
        ours.result_within(PATIENCE).await.unwrap(),
        expected("python")
    );
    let theirs = client.start_by_name::<Order>("python_order", order());
    let theirs = theirs.await.unwrap();
    assert_eq!(
        theirs.result_within(PATIENCE).await.unwrap(),
        expected("rust")
    );
}
