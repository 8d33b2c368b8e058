//! A lean worker that runs on its own: it reconnects for ever, keeps nothing, and decides from the history alone.
//!
//! Its orchestrators are told by name, and cover what can be lost or doubled in a crash:
//!
//! | name | does | output |
//! |---|---|---|
//! | `chain` | five activities in a row | `5` |
//! | `fan` | eight activities at once | `8` |
//! | `timers` | two timers, one after the other | `2` |
//! | `parent` | a `chain` as its child | the child's output |
//! | `listener` | waits for the event `go` | the event's payload |
//! | `loop` | an activity and a continue-as-new, six times over | `6` |

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::work_item::Request as Work;
use mainspring_proto::{
    GetWorkItemsRequest, HistoryEvent, OrchestratorAction, OrchestratorRequest, WorkItem,
};
use prost_types::Timestamp;
use tokio::task::JoinHandle;

use crate::action::{child, complete, continue_as_new, schedule, timer};
use crate::{Activity, Episode, Peer};

/// Names of the orchestrators.
pub const ORCHESTRATORS: [&str; 6] = ["chain", "fan", "timers", "parent", "listener", "loop"];

/// Generations of a `loop`.
const GENERATIONS: i32 = 6;

/// How long a timer runs.
const TIMER: Duration = Duration::from_millis(120);

const RECONNECT_AFTER: Duration = Duration::from_millis(10);

/// A worker that runs until it is dropped.
pub struct Worker {
    task: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
    executions: Arc<Mutex<HashMap<(String, i32), u32>>>,
}

impl Worker {
    /// Starts working for whatever serves `address`, now and after each restart.
    pub fn start(address: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let executions = Arc::new(Mutex::new(HashMap::new()));
        let task = tokio::spawn({
            let (address, is_over, executions) = (
                address.to_owned(),
                Arc::clone(&is_over),
                Arc::clone(&executions),
            );
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    if let Some(peer) = Peer::try_connect(&address).await {
                        work(&peer, &executions).await;
                    }
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        });
        Self {
            task,
            is_over,
            executions,
        }
    }

    /// How often activities were executed, and how many there were.
    pub fn executions(&self) -> (u32, usize) {
        let executions = self
            .executions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (executions.values().sum(), executions.len())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// Works until the stream ends, however it does.
async fn work(peer: &Peer, executions: &Arc<Mutex<HashMap<(String, i32), u32>>>) {
    let Ok(response) = peer
        .client()
        .get_work_items(GetWorkItemsRequest::default())
        .await
    else {
        return;
    };
    let mut items = response.into_inner();
    while let Ok(Some(item)) = items.message().await {
        let (peer, executions) = (peer.clone(), Arc::clone(executions));
        // An answer that fails is what a crash is about: the server hands the item out again.
        tokio::spawn(async move { drop(answer(peer, item, &executions).await) });
    }
}

async fn answer(
    peer: Peer,
    item: WorkItem,
    executions: &Mutex<HashMap<(String, i32), u32>>,
) -> Result<(), tonic::Status> {
    match item.request {
        Some(Work::OrchestratorRequest(request)) => {
            let actions = decide(&request);
            let episode = Episode {
                request,
                token: item.completion_token,
            };
            peer.client()
                .complete_orchestrator_task(episode.response(actions))
                .await
                .map(drop)
        }
        Some(Work::ActivityRequest(request)) => {
            let activity = Activity {
                request,
                token: item.completion_token,
            };
            let name = (activity.instance_id().to_owned(), activity.request.task_id);
            *executions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(name)
                .or_default() += 1;
            let input = activity.request.input.clone().unwrap_or_default();
            peer.client()
                .complete_activity_task(activity.response(&input))
                .await
                .map(drop)
        }
        _ => Ok(()),
    }
}

/// What the history says so far.
#[derive(Default)]
struct Progress {
    name: String,
    input: String,
    instance_id: String,
    clock: Timestamp,
    /// Confirmed actions.
    actions: i32,
    tasks: (i32, i32),
    timers: (i32, i32),
    child_output: Option<String>,
    event: Option<String>,
}

impl Progress {
    fn take_in(&mut self, event: &HistoryEvent) {
        match &event.event_type {
            Some(EventType::OrchestratorStarted(_)) => {
                self.clock = event.timestamp.unwrap_or_default()
            }
            Some(EventType::ExecutionStarted(started)) => {
                self.name = started.name.clone();
                self.input = started.input.clone().unwrap_or_default();
            }
            Some(EventType::TaskScheduled(_)) => {
                self.actions += 1;
                self.tasks.0 += 1;
            }
            Some(EventType::TaskCompleted(_)) => self.tasks.1 += 1,
            Some(EventType::TimerCreated(_)) => {
                self.actions += 1;
                self.timers.0 += 1;
            }
            Some(EventType::TimerFired(_)) => self.timers.1 += 1,
            Some(EventType::SubOrchestrationInstanceCreated(_)) => self.actions += 1,
            Some(EventType::SubOrchestrationInstanceCompleted(child)) => {
                self.child_output = child.result.clone()
            }
            // A raise that was repeated after a crash may have come twice: the first counts.
            Some(EventType::EventRaised(raised)) if raised.name == "go" => {
                let _ = self
                    .event
                    .get_or_insert_with(|| raised.input.clone().unwrap_or_default());
            }
            _ => {}
        }
    }
}

fn decide(request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
    let mut progress = Progress {
        instance_id: request.instance_id.clone(),
        ..Progress::default()
    };
    for event in request.past_events.iter().chain(&request.new_events) {
        progress.take_in(event);
    }
    let next = progress.actions + 1;
    match progress.name.as_str() {
        "chain" => in_turn(progress.tasks, 5, || schedule(next, "step", "1"), next),
        "timers" => in_turn(
            progress.timers,
            2,
            || timer(next, later(progress.clock, TIMER)),
            next,
        ),
        "fan" if progress.tasks.0 == 0 => (1..=8).map(|id| schedule(id, "step", "1")).collect(),
        "fan" if progress.tasks.1 == 8 => vec![complete(next, "8")],
        "parent" => match progress.child_output {
            Some(output) => vec![complete(next, &output)],
            None if progress.actions == 0 => vec![child(
                next,
                &format!("{}-child", progress.instance_id),
                "chain",
            )],
            None => Vec::new(),
        },
        "listener" => progress
            .event
            .iter()
            .map(|payload| complete(next, payload))
            .collect(),
        "loop" => in_loop(&progress, next),
        _ => Vec::new(),
    }
}

/// One after the other, `count` times; then complete with the count.
fn in_turn(
    (begun, done): (i32, i32),
    count: i32,
    begin: impl FnOnce() -> OrchestratorAction,
    next: i32,
) -> Vec<OrchestratorAction> {
    if done == count {
        vec![complete(next, &count.to_string())]
    } else if begun == done {
        vec![begin()]
    } else {
        Vec::new()
    }
}

fn in_loop(progress: &Progress, next: i32) -> Vec<OrchestratorAction> {
    let generation: i32 = progress.input.parse().unwrap_or(0);
    match progress.tasks {
        (0, _) => vec![schedule(next, "step", "1")],
        (_, 0) => Vec::new(),
        _ if generation + 1 == GENERATIONS => vec![complete(next, &GENERATIONS.to_string())],
        _ => vec![continue_as_new(next, &(generation + 1).to_string())],
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let mut later = Timestamp {
        seconds: time.seconds + by.as_secs() as i64,
        nanos: time.nanos + by.subsec_nanos() as i32,
    };
    later.normalize();
    later
}
