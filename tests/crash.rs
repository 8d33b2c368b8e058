//! Kill -9 at random moments under load: nothing accepted is lost, nothing happens twice.
//!
//! Each round starts one orchestration of each kind, lets the worker run on for a moment, and kills the server; one
//! round in five does not wait for the server to be ready, and so kills it while it recovers. In the end every
//! orchestration whose start or event was acknowledged, in whichever round, has to be COMPLETED with its one
//! right output, its history has to follow the rules, and the store has to be sound.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mainspring_proto::{CreateInstanceRequest, OrchestrationStatus, RaiseEventRequest};
use mainspring_tests::replay::{ORCHESTRATORS, Worker};
use mainspring_tests::{Chance, Peer, Scheduler, check_history, patiently};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

const ROUNDS: usize = 100;

const SEED: u64 = 42;

/// Longest time between the last restart and the end of everything.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// What the client knows to be accepted.
struct Accepted {
    id: String,
    output: String,
}

/// Starts one orchestration of each kind and raises the event that the listener waits for, as far as the server lives.
/// What was acknowledged goes to `accepted`; of the rest nothing is known, and nothing is asked. `ready` is told once the
/// server answers.
async fn load(
    address: String,
    round: usize,
    accepted: UnboundedSender<Accepted>,
    ready: oneshot::Sender<()>,
) -> Option<()> {
    let peer = Peer::try_connect(&address).await?;
    peer.client().hello(()).await.ok()?;
    ready.send(()).ok()?;
    for kind in ORCHESTRATORS {
        let id = format!("{kind}-{round}");
        let request = CreateInstanceRequest {
            name: kind.to_owned(),
            instance_id: id.clone(),
            ..Default::default()
        };
        peer.client().start_instance(request).await.ok()?;
        let output = match kind {
            "chain" | "parent" => "5".to_owned(),
            "fan" => "8".to_owned(),
            "timers" => "2".to_owned(),
            "loop" => "6".to_owned(),
            _ => {
                let payload = format!("\"payload {round}\"");
                let raise = RaiseEventRequest {
                    instance_id: id.clone(),
                    name: "go".to_owned(),
                    input: Some(payload.clone()),
                };
                peer.client().raise_event(raise).await.ok()?;
                payload
            }
        };
        accepted.send(Accepted { id, output }).ok()?;
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_crashes_under_load_lose_nothing_and_double_nothing() {
    let mut chance = Chance::new(SEED);
    let mut scheduler = Scheduler::start(&["--lease-grace", "500ms"]);
    let worker = Worker::start(scheduler.address());
    let (send, mut receive) = unbounded_channel();
    for round in 0..ROUNDS {
        let (ready, is_ready) = oneshot::channel();
        let loading = tokio::spawn(load(
            scheduler.address().to_owned(),
            round,
            send.clone(),
            ready,
        ));
        if chance.below(5) > 0 {
            patiently("the server", is_ready).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(chance.below(300) as u64)).await;
        tokio::task::block_in_place(|| {
            scheduler.kill();
            scheduler.restart();
        });
        loading.abort();
    }
    drop(send);

    let peer = Peer::connect(&scheduler).await;
    let deadline = Instant::now() + FINISH_LIMIT;
    let mut count = 0;
    while let Some(Accepted { id, output }) = receive.recv().await {
        count += 1;
        while peer.get(&id).await.orchestration_status() != OrchestrationStatus::Completed {
            assert!(
                Instant::now() < deadline,
                "{id} is not done: {:#?}\n{:#?}",
                peer.get(&id).await,
                peer.history(&id).await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let state = peer.get(&id).await;
        assert_eq!(state.output.as_deref(), Some(output.as_str()), "{id}");
        let history = peer.history(&id).await;
        check_history(&id, &history, true);
        if id.starts_with("parent") {
            let child = format!("{id}-child");
            assert_eq!(
                peer.get(&child).await.output.as_deref(),
                Some("5"),
                "{child}"
            );
            check_history(&child, &peer.history(&child).await, true);
        }
    }
    let (executions, activities) = worker.executions();
    println!(
        "{count} orchestrations survived {ROUNDS} crashes; {activities} activities were executed {executions} times"
    );
    assert!(
        count > ROUNDS,
        "the load was too light to say anything: {count} orchestrations"
    );

    scheduler.stop().await;
    let folder = scheduler.data_dir();
    let (code, out, err) =
        Scheduler::run(&["store", "check", "--data-dir", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{err}");
}
