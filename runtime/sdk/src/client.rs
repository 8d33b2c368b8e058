//! Starting orchestrations, and asking about them and about entities.

mod entities;
mod history;
mod instance;
mod query;
mod start;

use std::fmt;
use std::time::{Duration, Instant};

use mainspring_proto::OrchestrationStatus;
use serde::Serialize;

use crate::connection::Connection;
use crate::convert::Payload;
use crate::entity::{Entity, EntityId};
use crate::error::Error;
use crate::handler::Orchestration;

pub use entities::{EntityClient, EntityPage, EntityQuery, EntityState};
pub use history::History;
pub use instance::{Instance, InstanceState};
pub use query::{InstancePage, InstanceQuery, Purge, Purged};
pub use start::{Reuse, Start};

/// A scheduler as those see it who start orchestrations and ask about them. Cheap to clone.
///
/// ```no_run
/// use mainspring_sdk::{Client, OrchestrationContext, Result};
///
/// async fn greet(_: OrchestrationContext, name: String) -> Result<String> {
///     Ok(format!("Hello {name}!"))
/// }
///
/// # async fn run() -> Result<(), mainspring_sdk::Error> {
/// let client = Client::connect("localhost:8080")?;
/// let greeting = client.start(greet, "Ada".to_owned()).await?;
/// println!("{}", greeting.result().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// A client of the scheduler at that address; see [`Connection::to`].
    ///
    /// # Errors
    ///
    /// As [`Connection::to`].
    pub fn connect(address: &str) -> Result<Self, Error> {
        Connection::to(address).map(Self::new)
    }

    /// A client over this connection.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The connection, for a worker of the same hub.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A worker over the same connection.
    pub fn worker(&self) -> crate::worker::Worker {
        crate::worker::Worker::new(self.connection.clone())
    }

    /// Starts an orchestration of this program.
    pub fn start<F, I, O>(&self, orchestration: F, input: I) -> Start<O>
    where
        F: Orchestration<I, O>,
        I: Payload,
        O: Payload,
    {
        let start = self.start_by_name(orchestration.name(), input);
        match orchestration.version() {
            Some(version) => start.version(version),
            None => start,
        }
    }

    /// Starts an orchestration that some worker, perhaps in another language, has under this name.
    pub fn start_by_name<O: Payload>(
        &self,
        name: impl Into<String>,
        input: impl Serialize,
    ) -> Start<O> {
        Start::new(self.clone(), name.into(), &input)
    }

    /// An instance by its id, whose output is read as `O`. Whether there is one, its methods tell.
    pub fn instance<O: Payload>(&self, id: impl Into<String>) -> Instance<O> {
        Instance::new(self.clone(), id.into())
    }

    /// An entity of a type of this program.
    pub fn entity<E: Entity>(&self, key: impl Into<String>) -> EntityClient<E> {
        EntityClient::new(self.clone(), EntityId::of::<E>(key))
    }

    /// Whether the scheduler answers.
    ///
    /// # Errors
    ///
    /// When it does not, or does not serve this hub.
    pub async fn hello(&self) -> Result<(), Error> {
        self.connection
            .service()
            .hello(self.connection.request(()))
            .await?;
        Ok(())
    }

    /// Asks again while the scheduler is away, as long as `deadline` allows. For calls that change nothing.
    async fn patiently<T, F>(
        &self,
        deadline: Option<Instant>,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            let status = match ask().await {
                Err(status) if status.code() == tonic::Code::Unavailable => status,
                result => return result,
            };
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                return Err(status);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Time between two tries at a scheduler that is away.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a short question is asked for while the scheduler is away.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(10);

fn question_deadline() -> Option<Instant> {
    Some(Instant::now() + QUESTION_WAIT_MAX)
}

/// Where an orchestration is in its life.
///
/// ```
/// use mainspring_sdk::Status;
///
/// assert!(Status::Failed.is_terminal());
/// assert!(!Status::Suspended.is_terminal());
/// assert_eq!(Status::Running.to_string(), "RUNNING");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Created; no episode has been committed.
    Pending,
    /// At least one episode has been committed.
    Running,
    /// Holds still until it is resumed.
    Suspended,
    /// Ended with an output.
    Completed,
    /// Ended with a failure.
    Failed,
    /// Ended from outside.
    Terminated,
    /// Ended as cancelled.
    Canceled,
}

impl Status {
    const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Suspended,
        Self::Completed,
        Self::Failed,
        Self::Terminated,
        Self::Canceled,
    ];

    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Terminated | Self::Canceled
        )
    }

    fn read(status: i32) -> Self {
        match OrchestrationStatus::try_from(status) {
            Ok(OrchestrationStatus::Completed) => Self::Completed,
            Ok(OrchestrationStatus::Failed) => Self::Failed,
            Ok(OrchestrationStatus::Canceled) => Self::Canceled,
            Ok(OrchestrationStatus::Terminated) => Self::Terminated,
            Ok(OrchestrationStatus::Pending) => Self::Pending,
            Ok(OrchestrationStatus::Suspended) => Self::Suspended,
            Ok(OrchestrationStatus::Running | OrchestrationStatus::ContinuedAsNew) | Err(_) => {
                Self::Running
            }
        }
    }

    fn wire(self) -> i32 {
        let status = match self {
            Self::Pending => OrchestrationStatus::Pending,
            Self::Running => OrchestrationStatus::Running,
            Self::Suspended => OrchestrationStatus::Suspended,
            Self::Completed => OrchestrationStatus::Completed,
            Self::Failed => OrchestrationStatus::Failed,
            Self::Terminated => OrchestrationStatus::Terminated,
            Self::Canceled => OrchestrationStatus::Canceled,
        };
        status as i32
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Terminated => "TERMINATED",
            Self::Canceled => "CANCELED",
        };
        formatter.write_str(name)
    }
}
