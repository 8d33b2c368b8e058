//! For the tests of users: a scheduler in memory whose time moves only when the test moves it, and the replay of saved histories.
//!
//! ```
//! use std::time::Duration;
//!
//! use mainspring::testing::TestScheduler;
//! use mainspring::{OrchestrationContext, Result};
//!
//! async fn trial(ctx: OrchestrationContext, _: ()) -> Result<String> {
//!     ctx.timer(Duration::from_secs(30 * 86_400)).await;
//!     Ok("over".to_owned())
//! }
//!
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let scheduler = TestScheduler::start().await?;
//! let _worker = scheduler.worker().orchestration(trial).start()?;
//! let instance = scheduler.client().start(trial, ()).await?;
//! assert_eq!(scheduler.finish(&instance).await?, "over");
//! # Ok(())
//! # })
//! # }
//! ```

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_core::time::Timestamp;
use mainspring_host::{Rest, VirtualTime, WorkKind};
use mainspring_sdk::{Client, Connection, Error, Instance, InstanceState, Payload, Status, Worker};
use mainspring_server::{Config, Embedded};

pub use mainspring_sdk::testing::*;

use crate::SchedulerError;

/// How far [`TestScheduler::finish`] moves the time at most: ten years.
const FINISH_WITHIN: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How often [`TestScheduler::finish`] moves the time at most: something that wakes every few seconds for ever would take it through ten
/// years.
const STEPS_MAX: usize = 100_000;

/// A scheduler in memory, for tests, under **virtual time**: it stands still, however long a test takes, and jumps when it is told to. A timer of
/// thirty days takes milliseconds, and ends at exactly thirty days.
///
/// Everything that the scheduler decides by time follows it: timers, retries of orchestrations, timeouts of events, starts that are
/// scheduled, delayed signals to entities, what history and states say, retention. What activities and entities themselves do is real: if
/// one sleeps for a second, [`settle`](TestScheduler::settle), [`advance`](TestScheduler::advance) and
/// [`finish`](TestScheduler::finish) wait for it. Tokio's own clock must not be paused.
///
/// Nothing is on disk. Dropped, it is gone, with all its threads; workers that are still there find nobody any more.
///
/// ```
/// use std::time::Duration;
///
/// use mainspring::testing::TestScheduler;
/// use mainspring::{Either, OrchestrationContext, Result};
///
/// async fn approval(ctx: OrchestrationContext, _: ()) -> Result<String> {
///     let deadline = ctx.timer(Duration::from_secs(3 * 86_400));
///     match ctx.select(ctx.event::<bool>("Approval"), deadline).await {
///         Either::Left(approved) => Ok(format!("approved: {}", approved?)),
///         Either::Right(()) => Ok("nobody answered".to_owned()),
///     }
/// }
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let scheduler = TestScheduler::start().await?;
/// let _worker = scheduler.worker().orchestration(approval).start()?;
///
/// let answered = scheduler.client().start(approval, ()).await?;
/// scheduler.advance(Duration::from_secs(2 * 86_400)).await?;
/// answered.raise_event("Approval", true).await?;
/// assert_eq!(scheduler.finish(&answered).await?, "approved: true");
///
/// let forgotten = scheduler.client().start(approval, ()).await?;
/// assert_eq!(scheduler.finish(&forgotten).await?, "nobody answered");
/// # Ok(())
/// # })
/// # }
/// ```
pub struct TestScheduler {
    embedded: Embedded,
    time: VirtualTime,
    client: Client,
}

impl fmt::Debug for TestScheduler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TestScheduler(at {:?})", self.now())
    }
}

/// A [`TestScheduler`] that is about to be started.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use mainspring::testing::TestScheduler;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let new_year = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
/// let scheduler = TestScheduler::options().time(new_year).start().await?;
/// assert_eq!(scheduler.now(), new_year);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is started until `start` is called"]
pub struct TestOptions {
    config: Config,
    now: SystemTime,
}

impl TestOptions {
    /// The time to begin at, to the microsecond; the machine's unless set.
    pub fn time(mut self, now: SystemTime) -> Self {
        self.now = now;
        self
    }

    /// Instances that ended longer ago than this are purged; never unless set.
    pub fn retention(mut self, age: Duration) -> Self {
        self.config.retention = Some(age);
        self
    }

    /// Longest payload, in bytes; 1 MiB unless set.
    pub fn payload_bytes_max(mut self, max: usize) -> Self {
        self.config.payload_bytes_max = max;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When a setting is out of bounds.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(self) -> Result<TestScheduler, SchedulerError> {
        let embedded = Embedded::open_in_memory(self.config, timestamp(self.now)).await?;
        let time = embedded
            .virtual_time()
            .expect("one in memory goes by virtual time");
        let client = Client::new(Connection::in_process(embedded.services()));
        Ok(TestScheduler {
            embedded,
            time,
            client,
        })
    }
}

impl TestScheduler {
    /// Starts one at the time of the machine.
    ///
    /// # Errors
    ///
    /// As [`TestOptions::start`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start() -> Result<Self, SchedulerError> {
        Self::options().start().await
    }

    /// Starts one at that time.
    ///
    /// # Errors
    ///
    /// As [`TestOptions::start`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start_at(time: SystemTime) -> Result<Self, SchedulerError> {
        Self::options().time(time).start().await
    }

    /// One with settings to be chosen.
    pub fn options() -> TestOptions {
        TestOptions {
            config: Config::default(),
            now: SystemTime::now(),
        }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A worker for it.
    pub fn worker(&self) -> Worker {
        self.client.worker()
    }

    /// A connection to it, for a converter of your own.
    pub fn connection(&self) -> Connection {
        self.client.connection().clone()
    }

    /// The time by its clock.
    pub fn now(&self) -> SystemTime {
        system_time(self.time.now())
    }

    /// Waits until nothing happens any more unless the time moves or somebody outside does something: every turn is decided and in the
    /// store, and no worker has anything in hand.
    ///
    /// Two things are not waited for: what no worker takes, which is given two seconds once for a worker to come, and what its worker gives
    /// back again and again. [`Settled`] tells of them.
    ///
    /// # Errors
    ///
    /// When the scheduler stops meanwhile.
    pub async fn settle(&self) -> Result<Settled, SchedulerError> {
        Ok(Settled::new(self.time.settle().await.map_err(stopped)?))
    }

    /// Moves the time on by so much, through everything that falls due meanwhile: each timer fires at its own time, and what follows from it
    /// is waited for before the time moves on, so that a timer set by it comes at its own time, too. As [`settle`](Self::settle), it waits.
    ///
    /// # Errors
    ///
    /// When the scheduler stops meanwhile.
    pub async fn advance(&self, by: Duration) -> Result<Settled, SchedulerError> {
        let to = self.time.now().plus(by);
        Ok(Settled::new(self.time.advance(to).await.map_err(stopped)?))
    }

    /// Moves the time from one thing that is due to the next until this instance has ended, and gives its output. It never waits for what
    /// will not come: events are to be raised before, or by somebody else who does so in time.
    ///
    /// # Errors
    ///
    /// [`FinishError`], of which [`FinishError::Idle`] says what it still waits for.
    pub async fn finish<O: Payload>(&self, instance: &Instance<O>) -> Result<O, FinishError> {
        self.finish_within(instance, FINISH_WITHIN).await
    }

    /// The same, but moves the time by no more than that, instead of ten years.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub async fn finish_within<O: Payload>(
        &self,
        instance: &Instance<O>,
        within: Duration,
    ) -> Result<O, FinishError> {
        let began = self.time.now();
        let until = began.plus(within);
        let mut is_last = false;
        for _ in 0..STEPS_MAX {
            let rest = self.time.settle().await.map_err(stopped)?;
            let Some(state) = instance.state().await? else {
                return Err(Error::NotFound(instance.id().to_owned()).into());
            };
            if state.status.is_terminal() {
                return Ok(instance.result().await?);
            }
            if is_last {
                let is_waiting = self.time.next_due().map_err(stopped)?.is_some();
                return match is_waiting {
                    true => break,
                    false => Err(idle(&state, &Settled::new(rest), instance).await?),
                };
            }
            // Once more, if somebody outside has done something meanwhile.
            is_last = self.time.step(until).await.map_err(stopped)?.is_none();
        }
        Err(FinishError::TooLate {
            instance: instance.id().to_owned(),
            moved: self.time.now().since(began),
        })
    }

    /// Ends it in order. Dropping it does as well, but a worker that is still there says so in its log.
    ///
    /// # Errors
    ///
    /// When it cannot be ended.
    pub async fn close(self) -> Result<(), SchedulerError> {
        let Self {
            embedded,
            time,
            client,
        } = self;
        drop((time, client));
        Ok(embedded.close().await?)
    }
}

/// Why an instance has not ended under [`TestScheduler::finish`].
///
/// ```
/// use mainspring::testing::{FinishError, TestScheduler};
/// use mainspring::{OrchestrationContext, Result};
///
/// async fn approval(ctx: OrchestrationContext, _: ()) -> Result<bool> {
///     Ok(ctx.event("Approval").await?)
/// }
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let scheduler = TestScheduler::start().await?;
/// let _worker = scheduler.worker().orchestration(approval).start()?;
/// let instance = scheduler.client().start(approval, ()).await?;
/// let error = scheduler.finish(&instance).await.expect_err("nobody raises the event");
/// assert!(matches!(error, FinishError::Idle { .. }));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// It ended without success, or its output cannot be read, or there is none of this id.
    #[error(transparent)]
    Ended(#[from] Error),
    /// Nothing is due any more, and it has not ended.
    #[error(
        "orchestration '{name}' ('{instance}') is {status}, and nothing more happens by itself: it waits for {waits_for}"
    )]
    Idle {
        /// Its id.
        instance: String,
        /// The orchestration's name.
        name: String,
        /// How it is.
        status: Status,
        /// What it waits for, as far as the scheduler knows.
        waits_for: String,
    },
    /// The time was moved as far as it may be, and things are still due.
    #[error("'{instance}' has not ended, though the time was moved by {moved:?}")]
    TooLate {
        /// Its id.
        instance: String,
        /// By how much the time was moved.
        moved: Duration,
    },
    /// The scheduler stopped.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
}

/// How a scheduler has come to rest.
///
/// ```
/// use mainspring::testing::TestScheduler;
/// use mainspring::{ActivityContext, OrchestrationContext, Result};
///
/// async fn order(ctx: OrchestrationContext, _: ()) -> Result<()> {
///     Ok(ctx.call_by_name("charge", ()).await?)
/// }
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let scheduler = TestScheduler::start().await?;
/// let _worker = scheduler.worker().orchestration(order).start()?;
/// scheduler.client().start(order, ()).await?;
/// let settled = scheduler.settle().await?;
/// assert_eq!(settled.unclaimed, ["activity 'charge'"]);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Work that no connected worker takes, in words: `activity 'charge'`. Names are in lower case.
    pub unclaimed: Vec<String>,
    /// Work items that a worker has given back three times or more in a row; its log says why. They are delivered again, later and later
    /// in real time.
    pub given_back: usize,
}

impl Settled {
    fn new(rest: Rest) -> Self {
        let unclaimed = rest.unclaimed.iter().map(|work| {
            let kind = match work.kind {
                WorkKind::Orchestration => "orchestration",
                WorkKind::Activity => "activity",
                WorkKind::Entity => "entity",
            };
            match work.version.as_str() {
                "" => format!("{kind} '{}'", work.name),
                version => format!("{kind} '{}' version '{version}'", work.name),
            }
        });
        Self {
            unclaimed: unclaimed.collect(),
            given_back: rest.given_back,
        }
    }
}

/// Says what an instance waits for that nothing will come of.
async fn idle<O: Payload>(
    state: &InstanceState,
    settled: &Settled,
    instance: &Instance<O>,
) -> Result<FinishError, Error> {
    let open = match state.status {
        Status::Suspended => vec!["being resumed".to_owned()],
        Status::Pending => Vec::new(),
        _ => open_tasks(&instance.history().await?),
    };
    let mut waits_for = match (state.status, open.is_empty()) {
        (Status::Pending, _) => "a worker that runs it".to_owned(),
        (_, true) => "an event, or something else from outside".to_owned(),
        (_, false) => open.join(" and "),
    };
    if !settled.unclaimed.is_empty() {
        let unclaimed = settled.unclaimed.join(" and ");
        waits_for += &format!("; no connected worker takes {unclaimed}");
    }
    if settled.given_back > 0 {
        let count = settled.given_back;
        waits_for += &format!(
            "; work items that were given back by their worker again and again, see its log: {count}"
        );
    }
    Ok(FinishError::Idle {
        instance: state.id.clone(),
        name: state.name.clone(),
        status: state.status,
        waits_for,
    })
}

fn stopped(error: mainspring_host::Error) -> SchedulerError {
    mainspring_server::Error::from(error).into()
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::new(since.as_secs() as i64, i64::from(since.subsec_nanos())),
        Err(before) => {
            let before = before.duration();
            let nanos = i64::from(before.subsec_nanos());
            Timestamp::new(-(before.as_secs() as i64), -nanos)
        }
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos()));
    let seconds = Duration::from_secs(time.seconds().unsigned_abs());
    match time.seconds() {
        0.. => UNIX_EPOCH + seconds + nanos,
        _ => UNIX_EPOCH - seconds + nanos,
    }
}
