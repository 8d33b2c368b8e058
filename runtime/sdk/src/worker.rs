//! A worker: takes work items from the scheduler, runs them, and sends the answers back.
//!
//! ```text
//!  scheduler ──items──► lane ──► crew ─┬─ orchestrator threads (no async runtime; instances kept between episodes)
//!      ▲                               ├─ a task for each activity
//!      └────answers──── lane ◄─────────┴─ a task for each batch of an entity
//! ```
//!
//! A lane is one stream and lives as long as its connection; the crew outlives it, so that what is finished after a break is
//! still answered. There are two: the work stream, on which answers go back, too; and the published protocol's for schedulers that
//! have no work stream. In reading order: [`Worker`], `crew`, `kept`, `stream`, `published`.

mod answer;
mod crew;
mod item;
mod kept;
mod published;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mainspring_proto::{GetWorkItemsRequest, WorkerCapability};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::convert::Payload;
use crate::entity::Entity;
use crate::error::Error;
use crate::handler::{Activity, Orchestration};
use crate::registry::Registry;

use answer::Answered;
use crew::Crew;
use published::CALLS_MAX;

/// Pauses between two tries to reach a scheduler that is away.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What happens to an instance whose code does something else than its history says.
///
/// ```no_run
/// # use mainspring_sdk::{Client, OrchestrationContext, Result};
/// use mainspring_sdk::OnMismatch;
///
/// # async fn order(_: OrchestrationContext, _: ()) -> Result<()> { Ok(()) }
/// # async fn run(client: Client) -> Result<(), mainspring_sdk::Error> {
/// let worker = client.worker().orchestration(order).on_mismatch(OnMismatch::Fail).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMismatch {
    /// The episode is given back: status and history stay as they are, and the scheduler delivers it again with growing
    /// pauses, so that mended code goes on where the wrong one was started.
    #[default]
    Abandon,
    /// The instance fails.
    Fail,
}

/// What a worker has done since it was started.
///
/// ```no_run
/// # use mainspring_sdk::RunningWorker;
/// # fn run(worker: &RunningWorker) {
/// let stats = worker.stats();
/// println!("{} episodes, {} of them replayed from the start", stats.episodes, stats.replays);
/// if stats.mismatches > 0 {
///     println!("{} found code that does not fit", stats.mismatches);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Episodes of orchestrations answered.
    pub episodes: u64,
    /// Episodes for which the history had to be replayed from its start.
    pub replays: u64,
    /// Activities answered.
    pub activities: u64,
    /// Batches of entity operations answered.
    pub entity_batches: u64,
    /// Episodes in which the code differed from its history.
    pub mismatches: u64,
    /// Orchestrations kept in memory just now.
    pub kept: usize,
    /// Work items being worked on just now.
    pub in_flight: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    episodes: AtomicU64,
    replays: AtomicU64,
    activities: AtomicU64,
    entity_batches: AtomicU64,
    mismatches: AtomicU64,
    kept: AtomicUsize,
    in_flight: AtomicUsize,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Settings {
    orchestrations_max: u32,
    activities_max: u32,
    entities_max: u32,
    kept_max: usize,
    on_mismatch: OnMismatch,
    name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            orchestrations_max: 1000,
            activities_max: 100,
            entities_max: 100,
            kept_max: 10_000,
            on_mismatch: OnMismatch::default(),
            name: String::new(),
        }
    }
}

/// What a program can run, and how much of it at once; [`Worker::start`] sets it to work.
///
/// ```no_run
/// use mainspring_sdk::{ActivityContext, Client, OrchestrationContext, Result};
///
/// async fn greet(ctx: OrchestrationContext, name: String) -> Result<String> {
///     Ok(ctx.call(hello, name).await?)
/// }
///
/// async fn hello(_: ActivityContext, name: String) -> Result<String> {
///     Ok(format!("Hello {name}!"))
/// }
///
/// # async fn run() -> Result<(), mainspring_sdk::Error> {
/// let client = Client::connect("localhost:8080")?;
/// let worker = client.worker().orchestration(greet).activity(hello).start()?;
/// println!("{}", client.start(greet, "Ada".to_owned()).await?.result().await?);
/// worker.stop().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a worker does nothing until it is started"]
pub struct Worker {
    connection: Connection,
    registry: Registry,
    settings: Settings,
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Worker({:?})", self.connection)
    }
}

impl Worker {
    /// A worker over this connection, which can run nothing yet.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            registry: Registry::default(),
            settings: Settings::default(),
        }
    }

    /// The connection that it works over.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Registers an orchestration.
    pub fn orchestration<F, I, O>(mut self, orchestration: F) -> Self
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        self.registry.add_orchestration(orchestration);
        self
    }

    /// Registers an activity.
    pub fn activity<F, I, O>(mut self, activity: F) -> Self
    where
        F: Activity<I, O>,
        I: Payload,
        O: Payload,
    {
        self.registry.add_activity(activity);
        self
    }

    /// Registers an entity type.
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry.add_entity::<E>();
        self
    }

    /// Most episodes at once; 1,000 unless set.
    pub fn orchestrations_max(mut self, max: u32) -> Self {
        self.settings.orchestrations_max = max;
        self
    }

    /// Most activities at once; 100 unless set.
    pub fn activities_max(mut self, max: u32) -> Self {
        self.settings.activities_max = max;
        self
    }

    /// Most batches of entity operations at once; 100 unless set.
    pub fn entities_max(mut self, max: u32) -> Self {
        self.settings.entities_max = max;
        self
    }

    /// Most orchestrations kept in memory between their episodes, beyond which the one that rested longest is put away and later
    /// replayed; 10,000 unless set, 0 keeps none.
    pub fn kept_max(mut self, max: usize) -> Self {
        self.settings.kept_max = max;
        self
    }

    /// What happens when code does something else than its history says.
    pub fn on_mismatch(mut self, on_mismatch: OnMismatch) -> Self {
        self.settings.on_mismatch = on_mismatch;
        self
    }

    /// How it is called in the scheduler's log.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets it to work, within the current tokio runtime. It reconnects by itself whenever the scheduler was away.
    ///
    /// # Errors
    ///
    /// When it has nothing to run, something is registered twice, or a limit is 0.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Result<RunningWorker, Error> {
        self.registry.check()?;
        let settings = &self.settings;
        for (limit, of) in [
            (settings.orchestrations_max, "orchestrations"),
            (settings.activities_max, "activities"),
            (settings.entities_max, "entities"),
        ] {
            if limit == 0 {
                return Err(Error::Setting(format!(
                    "a worker with room for 0 {of} would never run one; leave out what it shall not run"
                )));
            }
        }
        let counters = Arc::new(Counters::default());
        let (answers, answered) = mpsc::unbounded_channel();
        let crew = Crew::start(
            Arc::new(self.registry),
            self.connection.clone(),
            self.settings.clone(),
            answers,
            Arc::clone(&counters),
        )?;
        let (stop, stopping) = watch::channel(false);
        let shift = Shift {
            connection: self.connection,
            settings: self.settings,
            crew,
            answered,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            stopping,
        };
        Ok(RunningWorker {
            stop,
            shift: Some(tokio::spawn(shift.work())),
            counters,
        })
    }
}

/// A worker at work. Dropped, it stops at once; what it was working on is delivered again, to it or to another.
///
/// ```no_run
/// # use mainspring_sdk::{Client, OrchestrationContext, Result};
/// # async fn order(_: OrchestrationContext, _: ()) -> Result<()> { Ok(()) }
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let worker = client.worker().orchestration(order).start()?;
/// tokio::signal::ctrl_c().await?;
/// // What it has begun is finished and answered first.
/// worker.stop().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "the worker stops when this is dropped"]
pub struct RunningWorker {
    stop: watch::Sender<bool>,
    shift: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for RunningWorker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RunningWorker({:?})", self.stats())
    }
}

impl RunningWorker {
    /// Takes nothing new, finishes what it has and returns once that is answered.
    pub async fn stop(mut self) {
        // Nobody listens any more if it ended by itself, which it never does.
        let _ = self.stop.send(true);
        if let Some(shift) = self.shift.take() {
            drop(shift.await);
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            episodes: counters.episodes.load(Ordering::Relaxed),
            replays: counters.replays.load(Ordering::Relaxed),
            activities: counters.activities.load(Ordering::Relaxed),
            entity_batches: counters.entity_batches.load(Ordering::Relaxed),
            mismatches: counters.mismatches.load(Ordering::Relaxed),
            kept: counters.kept.load(Ordering::Relaxed),
            in_flight: counters.in_flight.load(Ordering::Relaxed),
        }
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        if let Some(shift) = &self.shift {
            shift.abort();
        }
    }
}

/// The life of a running worker: one lane after the other.
struct Shift {
    connection: Connection,
    settings: Settings,
    crew: Crew,
    answered: mpsc::UnboundedReceiver<Answered>,
    /// Room for answers that are sent as calls.
    calls: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Ready once the worker is told to stop, or nobody is left who could tell.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|is_stopping| *is_stopping).await);
}

/// Why a lane ended.
enum LaneEnd {
    /// The worker is to stop, and everything is answered.
    Stopped,
    /// The connection is gone, or was refused; whether anything had come over it.
    Lost {
        status: tonic::Status,
        was_of_use: bool,
    },
}

impl Shift {
    async fn work(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let (status, was_of_use) = match self.lane().await {
                LaneEnd::Stopped => return,
                LaneEnd::Lost { status, was_of_use } => (status, was_of_use),
            };
            if was_of_use {
                pause = PAUSE_MIN;
            }
            tracing::warn!(
                scheduler = self.connection.address(),
                code = ?status.code(),
                reason = status.message(),
                again_in = ?pause,
                "no connection to the scheduler"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut self.stopping) => return,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn lane(&mut self) -> LaneEnd {
        match stream::run(self).await {
            Some(end) => end,
            None => published::run(self).await,
        }
    }

    /// What the scheduler is told of this worker.
    fn options(&self) -> GetWorkItemsRequest {
        let limit = |max: u32| i32::try_from(max).unwrap_or(i32::MAX);
        GetWorkItemsRequest {
            max_concurrent_orchestration_work_items: limit(self.settings.orchestrations_max),
            max_concurrent_activity_work_items: limit(self.settings.activities_max),
            max_concurrent_entity_work_items: limit(self.settings.entities_max),
            capabilities: vec![WorkerCapability::HistoryStreaming as i32],
            work_item_filters: Some(self.crew.filters()),
            worker_instance_id: self.settings.name.clone(),
        }
    }
}
