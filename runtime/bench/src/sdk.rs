//! The same work by the Rust SDK: as a worker of a server, and in one program with the whole scheduler inside.
//!
//! Written as a user would write it. The names are those of the lean worker's, so that either can be driven by the same client.

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use mainspring::{
    ActivityContext, Client, Entity, EntityContext, EntityId, EntityQuery, History, Operation,
    Operations, OrchestrationContext, Result, RunningWorker, Scheduler, Worker, named, testing,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::worker::{ADD, ADD_BY_CALL, CHAIN, CHAIN_STEPS, COUNTER, FAN, ITEMS_MAX, TELL_EVERY};

/// Threads of the program's runtime: a driver of its own and the scheduler's actors want the rest.
const RUNTIME_THREADS: usize = 2;

/// Longest time of a long chain.
const LONG_MAX: Duration = Duration::from_secs(60);

/// Entities in one page of a listing.
const PAGE: u32 = 1_000;

/// What is handed from step to step.
#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    v: u64,
}

async fn echo(_: ActivityContext, order: Order) -> Result<Order> {
    Ok(order)
}

async fn count(_: ActivityContext, number: usize) -> Result<usize> {
    Ok(number)
}

async fn chain(ctx: OrchestrationContext, mut order: Order) -> Result<Order> {
    for _ in 0..CHAIN_STEPS {
        order = ctx.call(echo, order).await?;
    }
    Ok(order)
}

async fn long(ctx: OrchestrationContext, steps: usize) -> Result<usize> {
    let mut sum = 0;
    for number in 0..steps {
        sum += ctx.call(count, number).await?;
    }
    Ok(sum)
}

/// Runs code against the bytes of a history that `long` has made; returns its number of events.
pub fn replay(bytes: &[u8]) -> anyhow::Result<usize> {
    let history = History::from_bytes(bytes)?;
    testing::replay(long, &history)?;
    Ok(history.len())
}

async fn fan(ctx: OrchestrationContext, width: usize) -> Result<usize> {
    let tasks = (0..width).map(|number| ctx.call(count, number));
    Ok(ctx.try_join_all(tasks).await?.len())
}

async fn add_by_call(ctx: OrchestrationContext, counter: String) -> Result<u64> {
    let counter: EntityId = counter.parse()?;
    Ok(ctx.entity::<Counter>(counter.key()).call(Add(1)).await?)
}

/// Operations that were run by this process.
static APPLIED: AtomicU64 = AtomicU64::new(0);

#[derive(Default, Serialize, Deserialize)]
struct Counter(u64);

impl Entity for Counter {
    fn name() -> Cow<'static, str> {
        COUNTER.into()
    }

    fn operations(operations: &mut Operations<Self>) {
        operations.add::<Add>();
    }
}

#[derive(Serialize, Deserialize)]
struct Add(u64);

impl Operation<Counter> for Add {
    type Output = u64;

    fn name() -> Cow<'static, str> {
        ADD.into()
    }

    async fn apply(self, counter: &mut Counter, _: &EntityContext) -> Result<u64> {
        counter.0 += self.0;
        APPLIED.fetch_add(1, Ordering::Relaxed);
        Ok(counter.0)
    }
}

fn able(worker: Worker) -> Worker {
    worker
        .orchestration(named(CHAIN, chain))
        .orchestration(named(FAN, fan))
        .orchestration(named(ADD_BY_CALL, add_by_call))
        .orchestration(long)
        .activity(echo)
        .activity(count)
        .entity::<Counter>()
        .orchestrations_max(ITEMS_MAX as u32)
        .activities_max(ITEMS_MAX as u32)
        .entities_max(ITEMS_MAX as u32)
}

/// Works for a server until it is killed.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    let _worker = able(Client::connect(address)?.worker()).start()?;
    std::future::pending().await
}

/// A program with the whole scheduler inside.
pub struct Program {
    scheduler: Scheduler,
    worker: RunningWorker,
    runtime: Runtime,
    applied: watch::Receiver<u64>,
}

impl Program {
    /// Opens the scheduler on a folder and sets a worker to work.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .enable_all()
            .build()?;
        let folder = folder.to_owned();
        let started = runtime.spawn(async move {
            let scheduler = Scheduler::open(folder).await?;
            let worker = able(scheduler.worker()).start()?;
            anyhow::Ok((scheduler, worker))
        });
        let (scheduler, worker) = started.await??;
        let (tell, applied) = watch::channel(APPLIED.load(Ordering::Relaxed));
        runtime.spawn(async move {
            while !tell.is_closed() {
                tell.send_replace(APPLIED.load(Ordering::Relaxed));
                sleep(TELL_EVERY).await;
            }
        });
        Ok(Self {
            scheduler,
            worker,
            runtime,
            applied,
        })
    }

    /// A client inside.
    pub fn client(&self) -> Inside {
        Inside(self.scheduler.client())
    }

    /// Operations of entities that it has run.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Ends it in order.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self {
            scheduler,
            worker,
            runtime,
            applied,
        } = self;
        drop(applied);
        let stopped = runtime.spawn(async move {
            worker.stop().await;
            scheduler.close().await
        });
        stopped.await??;
        runtime.shutdown_background();
        Ok(())
    }
}

/// A client in the scheduler's own process.
#[derive(Clone)]
pub struct Inside(Client);

impl Inside {
    /// Starts an orchestration, waits for its end and returns its output.
    pub async fn run(&self, name: &str, input: &str, limit: Duration) -> anyhow::Result<String> {
        let output = match name {
            CHAIN => {
                let order: Order = serde_json::from_str(input)?;
                let started = self.0.start(named(CHAIN, chain), order).await?;
                serde_json::to_string(&started.result_within(limit).await?)?
            }
            FAN => {
                let width = input.parse()?;
                let started = self.0.start(named(FAN, fan), width).await?;
                started.result_within(limit).await?.to_string()
            }
            _ => {
                let start = self
                    .0
                    .start(named(ADD_BY_CALL, add_by_call), input.to_owned());
                start.await?.result_within(limit).await?.to_string()
            }
        };
        Ok(output)
    }

    /// The history of a long chain, in bytes.
    pub async fn history(&self, steps: usize) -> anyhow::Result<Vec<u8>> {
        let started = self.0.start(long, steps).await?;
        started.result_within(LONG_MAX).await?;
        Ok(started.history().await?.to_bytes())
    }

    /// Signals a counter.
    pub async fn signal(&self, entity: &str, operation: &str, input: u64) -> anyhow::Result<()> {
        let id: EntityId = entity.parse()?;
        Ok(self.0.signal_entity(&id, operation, input, None).await?)
    }

    /// States of all counters whose id begins with `prefix`.
    pub async fn entity_states(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let key = prefix.strip_prefix(&format!("@{COUNTER}@"));
        let mut query = EntityQuery {
            name: Some(COUNTER.to_owned()),
            key_prefix: Some(key.context("not a counter")?.to_owned()),
            page_size: PAGE,
            ..EntityQuery::default()
        };
        let mut states = Vec::new();
        loop {
            let page = self.0.entities(query.clone()).await?;
            for entity in &page.entities {
                let state = entity.raw_state();
                states.push(state.context("a counter without a state")?.to_owned());
            }
            query.continue_from = page.continue_from;
            if query.continue_from.is_none() {
                return Ok(states);
            }
            ensure!(!page.entities.is_empty(), "an empty page with a next one");
        }
    }
}
