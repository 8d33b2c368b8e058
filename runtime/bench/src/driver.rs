//! The closed loop: operations of clients, each begun when another has ended.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::time::timeout;

use crate::client::{Client, OPERATION_LIMIT};

/// Connections of a loop with more than one operation outstanding: one alone would serialise on its own frames.
const CONNECTIONS: usize = 4;

/// How a loop runs: `outstanding` operations at any time, `count` in all unless `limit` passes first.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Operations under way at any time.
    pub outstanding: usize,
    /// Operations in all.
    pub count: usize,
    /// No operation is begun after this long.
    pub limit: Duration,
}

/// What a loop measured.
#[derive(Debug)]
pub struct Outcome {
    /// From the first start to the last end.
    pub wall: Duration,
    /// Latency of each operation from start to completion, ascending.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// Operations that ended.
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.count() as f64 / self.wall.as_secs_f64()
    }

    /// The latency that the share `q` of all operations did not exceed, in milliseconds.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let last = self.count().saturating_sub(1);
        let index = (last as f64 * q).round() as usize;
        self.latencies
            .get(index)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// Runs a closed loop over connections that `connect` makes. `operation` does the n-th operation and checks its result.
///
/// Fails with the first operation that fails: figures of a broken run mean nothing.
pub async fn run(
    connect: impl AsyncFn() -> anyhow::Result<Client>,
    pace: Pace,
    operation: impl AsyncFn(&mut Client, usize) -> anyhow::Result<()> + 'static,
) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..pace.outstanding.min(CONNECTIONS) {
        clients.push(connect().await?);
    }
    let operation = Rc::new(operation);
    let next = Rc::new(Cell::new(0));
    let begun = Instant::now();
    let local = tokio::task::LocalSet::new();
    let lanes: Vec<_> = (0..pace.outstanding)
        .map(|lane| {
            let mut client = clients[lane % clients.len()].clone();
            let (operation, next) = (Rc::clone(&operation), Rc::clone(&next));
            local.spawn_local(async move {
                let mut latencies = Vec::new();
                while begun.elapsed() < pace.limit && next.get() < pace.count {
                    let number = next.replace(next.get() + 1);
                    let started = Instant::now();
                    timeout(OPERATION_LIMIT, operation(&mut client, number))
                        .await
                        .with_context(|| format!("operation {number}"))??;
                    latencies.push(started.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    local
        .run_until(async {
            for lane in lanes {
                latencies.extend(lane.await??);
            }
            anyhow::Ok(())
        })
        .await?;
    let wall = begun.elapsed();
    latencies.sort_unstable();
    Ok(Outcome { wall, latencies })
}
