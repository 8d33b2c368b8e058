//! The two ways in which work reaches a worker and answers go back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring_sdk::{ActivityContext, Client, Connection, OrchestrationContext, Result, Worker};
use mainspring_tests::Scheduler;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::PATIENCE;

const WORK_STREAM: &str = "/mainspring.v1.WorkStream/Work";

/// Paths of the calls that were made.
type Calls = Arc<Mutex<Vec<String>>>;

/// A client whose calls are written down, of a scheduler with a work stream or as if without.
fn client(scheduler: &Scheduler, has_work_stream: bool) -> (Client, Calls) {
    let address = format!("http://{}", scheduler.address());
    let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
    let calls = Calls::default();
    let written = Arc::clone(&calls);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let is_unknown = path == WORK_STREAM && !has_work_stream;
        written.lock().unwrap().push(path);
        send(channel.clone(), request, is_unknown)
    });
    (Client::new(Connection::in_process(service)), calls)
}

async fn send(
    channel: Channel,
    request: Request<Body>,
    is_unknown: bool,
) -> std::result::Result<Response<Body>, tonic::transport::Error> {
    match is_unknown {
        true => Ok(tonic::Status::unimplemented("no such method").into_http()),
        false => channel.oneshot(request).await,
    }
}

fn count(calls: &Calls, part: &str) -> usize {
    let calls = calls.lock().unwrap();
    calls.iter().filter(|path| path.contains(part)).count()
}

async fn double(_: ActivityContext, number: u64) -> Result<u64> {
    Ok(2 * number)
}

async fn chain(ctx: OrchestrationContext, _: ()) -> Result<u64> {
    let mut number = 1;
    for _ in 0..5 {
        number = ctx.call(double, number).await?;
    }
    Ok(number)
}

fn able(client: &Client) -> Worker {
    client.worker().orchestration(chain).activity(double)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_over_the_work_stream_and_nothing_is_replayed() {
    let scheduler = Scheduler::start(&[]);
    let (client, calls) = client(&scheduler, true);
    let worker = able(&client).start().unwrap();
    for _ in 0..3 {
        let instance = client.start(chain, ()).await.unwrap();
        assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 32);
    }
    let stats = worker.stats();
    assert_eq!((stats.episodes, stats.replays), (18, 0), "{stats:?}");
    worker.stop().await;
    assert_eq!(count(&calls, WORK_STREAM), 1);
    assert_eq!(count(&calls, "/Complete"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_without_a_work_stream_is_served_by_the_published_protocol() {
    let scheduler = Scheduler::start(&[]);
    let (client, calls) = client(&scheduler, false);
    let worker = able(&client).start().unwrap();
    let instance = client.start(chain, ()).await.unwrap();
    assert_eq!(instance.result_within(PATIENCE).await.unwrap(), 32);
    worker.stop().await;
    assert_eq!(count(&calls, "/CompleteOrchestratorTask"), 6);
    assert_eq!(count(&calls, "/CompleteActivityTask"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_was_put_away_has_its_history_sent_and_is_replayed() {
    // S-3.32.
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    const TOGETHER: usize = 40;
    /// Ends when all are as far, so that they take turns.
    async fn meet(_: ActivityContext, round: usize) -> Result<()> {
        ROUND.fetch_add(1, Ordering::Relaxed);
        while ROUND.load(Ordering::Relaxed) < TOGETHER * (round + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
    async fn in_turns(ctx: OrchestrationContext, _: ()) -> Result<()> {
        for round in 0..3 {
            ctx.call(meet, round).await?;
        }
        Ok(())
    }
    let scheduler = Scheduler::start(&[]);
    let (client, calls) = client(&scheduler, true);
    let worker = client.worker().orchestration(in_turns).activity(meet);
    // Fewer than there are, whatever the number of threads.
    let worker = worker.kept_max(4).start().unwrap();
    let mut running = Vec::new();
    for _ in 0..TOGETHER {
        running.push(client.start(in_turns, ()).await.unwrap());
    }
    for instance in running {
        instance.result_within(PATIENCE).await.unwrap();
    }
    let stats = worker.stats();
    assert_eq!(stats.episodes, 4 * TOGETHER as u64);
    assert!(stats.replays > 2 * TOGETHER as u64, "{stats:?}");
    worker.stop().await;
    assert_eq!(count(&calls, WORK_STREAM), 1);
}
