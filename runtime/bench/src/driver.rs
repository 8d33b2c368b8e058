//! The client side: a closed loop of orchestrations that are started and waited for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use mainspring_proto::client::TaskHubSidecarServiceClient;
use mainspring_proto::{CreateInstanceRequest, GetInstanceRequest, OrchestrationStatus};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// The generated client on a plain channel.
pub type Client = TaskHubSidecarServiceClient<Channel>;

/// Connections of a loop with more than one operation outstanding: one alone would serialise on its own frames.
const CONNECTIONS: usize = 4;

const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One orchestration that takes longer has failed.
const OPERATION_LIMIT: Duration = Duration::from_secs(120);

/// Connects to `HOST:PORT`.
pub async fn connect(address: &str) -> anyhow::Result<Client> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20)
        .connect()
        .await
        .with_context(|| format!("no server answers at {address}"))?;
    Ok(TaskHubSidecarServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// One operation of a loop: an orchestration, and the output that it has to end with.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Name of the orchestrator.
    pub name: &'static str,
    /// Its input.
    pub input: String,
    /// Its only right output.
    pub output: String,
}

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
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.wall.as_secs_f64()
    }

    /// The latency that the share `q` of all operations did not exceed, in milliseconds.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * q).round() as usize;
        self.latencies
            .get(index)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// Runs a closed loop against the server at `address`. `operation` tells what the n-th one is.
///
/// Fails with the first operation that fails or ends with a wrong output: figures of a broken run mean nothing.
pub async fn run(
    address: &str,
    pace: Pace,
    operation: impl Fn(usize) -> Operation + 'static,
) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..pace.outstanding.min(CONNECTIONS) {
        clients.push(connect(address).await?);
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
                    perform(&mut client, &operation(number)).await?;
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

async fn perform(client: &mut Client, operation: &Operation) -> anyhow::Result<()> {
    let start = CreateInstanceRequest {
        name: operation.name.to_owned(),
        input: Some(operation.input.clone()),
        ..Default::default()
    };
    let instance_id = client
        .start_instance(start)
        .await
        .map_err(|status| anyhow!("start: {}: {}", status.code(), status.message()))?
        .into_inner()
        .instance_id;
    let mut wait = Request::new(GetInstanceRequest {
        instance_id: instance_id.clone(),
        get_inputs_and_outputs: true,
    });
    wait.set_timeout(OPERATION_LIMIT);
    let state = client
        .wait_for_instance_completion(wait)
        .await
        .map_err(|status| anyhow!("{instance_id}: {}: {}", status.code(), status.message()))?
        .into_inner()
        .orchestration_state
        .with_context(|| format!("{instance_id}: no state"))?;
    ensure!(
        state.orchestration_status() == OrchestrationStatus::Completed
            && state.output.as_deref() == Some(&operation.output),
        "{instance_id}: ended {} with output {:?}",
        state.orchestration_status().as_str_name(),
        state.output,
    );
    Ok(())
}
