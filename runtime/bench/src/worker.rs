//! The lean worker: one stream, answers as unary calls, as the published SDKs do.
//!
//! It keeps nothing between work items: [`item`] is what it reads of one, [`orchestrator`] and [`counter`] answer it.
//! Only how many operations of entities the server has confirmed is counted, and told on standard output.

mod counter;
mod item;
mod orchestrator;

use std::time::Duration;

use mainspring_proto::{CompleteTaskResponse, GetWorkItemsRequest};
use tokio::sync::watch;
use tokio::time::sleep;

pub use counter::{ADD, COUNTER};
pub use orchestrator::{ADD_BY_CALL, CHAIN, CHAIN_STEPS, FAN};

use crate::grpc::{Answer, Connection};
use item::Item;

/// In front of the number of operations that the server has confirmed so far.
pub const APPLIED: &str = "applied ";

/// Items of each kind that may be in hand: more than any workload has outstanding.
pub const ITEMS_MAX: i32 = 2_000;

const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// Between two tellings: far below what is measured with them, far above what a line costs.
pub const TELL_EVERY: Duration = Duration::from_millis(5);

/// Serves until it is killed.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    let (applied, told) = watch::channel(0);
    tokio::spawn(tell(told));
    loop {
        if let Ok(connection) = Connection::open(address).await {
            // A stream that ended is opened again: the server may have been restarted.
            let _ended = serve_stream(connection, &applied).await;
        }
        sleep(RECONNECT_AFTER).await;
    }
}

async fn tell(mut applied: watch::Receiver<u64>) {
    while applied.changed().await.is_ok() {
        println!("{APPLIED}{}", *applied.borrow_and_update());
        sleep(TELL_EVERY).await;
    }
}

async fn serve_stream(
    mut connection: Connection,
    applied: &watch::Sender<u64>,
) -> anyhow::Result<()> {
    let get_work_items = connection.method("GetWorkItems")?;
    let complete_turn = connection.method("CompleteOrchestratorTask")?;
    let complete_activity = connection.method("CompleteActivityTask")?;
    let complete_batch = connection.method("CompleteEntityTask")?;
    let request = GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: ITEMS_MAX,
        max_concurrent_activity_work_items: ITEMS_MAX,
        max_concurrent_entity_work_items: ITEMS_MAX,
        ..Default::default()
    };
    let answer = connection.send(&get_work_items, &request).await?;
    let mut items = answer.messages().await?;
    while let Some(item) = items.next::<Item>().await? {
        let token = item.completion_token;
        let mut operations = 0;
        let answer = if let Some(turn) = item.turn {
            let response = orchestrator::answer(turn, token);
            connection.send(&complete_turn, &response).await?
        } else if let Some(activity) = item.activity {
            let response = activity.echo(token);
            connection.send(&complete_activity, &response).await?
        } else if let Some(batch) = item.batch {
            operations = batch.operations.len() as u64;
            let response = counter::answer(batch, token);
            connection.send(&complete_batch, &response).await?
        } else {
            continue;
        };
        tokio::spawn(confirm(answer, operations, applied.clone()));
    }
    Ok(())
}

/// Operations count as applied when the server says that their batch is on disk.
async fn confirm(answer: Answer, operations: u64, applied: watch::Sender<u64>) {
    match answer.message::<CompleteTaskResponse>().await {
        Ok(_) if operations == 0 => {}
        Ok(_) => applied.send_modify(|applied| *applied += operations),
        Err(error) => eprintln!("completion: {error:#}"),
    }
}
