//! The whole scheduler in this process.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mainspring_sdk::{Client, Connection, Worker};
use mainspring_server::{Config, Embedded};

/// Why a scheduler cannot be opened, served or closed; its text is made for the operator.
///
/// ```no_run
/// use mainspring::{Scheduler, SchedulerError};
///
/// #[tokio::main]
/// async fn main() -> Result<(), SchedulerError> {
///     let mut scheduler = Scheduler::open("data").await?;
///     tokio::select! {
///         error = scheduler.failed() => Err(error),
///         _ = tokio::signal::ctrl_c() => scheduler.close().await,
///     }
/// }
/// ```
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct SchedulerError(#[from] mainspring_server::Error);

/// The text, too: a `main` that ends with the error prints it so.
impl fmt::Debug for SchedulerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A scheduler in this process, on a data folder that no other process may use meanwhile.
///
/// It keeps the same promises as the server: what was answered is on disk, and goes on after a crash when the folder is opened
/// again. Dropped, it stops at once, which is as safe as a crash; [`Scheduler::close`] ends it in order.
///
/// ```no_run
/// use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};
///
/// async fn greet(ctx: OrchestrationContext, name: String) -> Result<String> {
///     Ok(ctx.call(hello, name).await?)
/// }
///
/// async fn hello(_: ActivityContext, name: String) -> Result<String> {
///     Ok(format!("Hello {name}!"))
/// }
///
/// # async fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let scheduler = Scheduler::open("data").await?;
/// let _worker = scheduler.worker().orchestration(greet).activity(hello).start()?;
/// let greeting = scheduler.client().start(greet, "Ada".to_owned()).await?;
/// println!("{}", greeting.result().await?);
/// scheduler.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct Scheduler {
    embedded: Embedded,
    client: Client,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scheduler")
    }
}

/// A scheduler that is about to be opened.
///
/// ```no_run
/// use mainspring::Scheduler;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let options = Scheduler::options("data").payload_bytes_max(4 << 20);
/// let scheduler = options.serve_at("127.0.0.1:0".parse()?).open().await?;
/// if let Some(address) = scheduler.grpc_addr() {
///     println!("other programs can join at {address}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened until `open` is called"]
pub struct SchedulerOptions {
    config: Config,
    served_at: Option<SocketAddr>,
}

impl SchedulerOptions {
    /// Serves gRPC beside it, so that programs in other processes and languages can join; port 0 takes a free one.
    pub fn serve_at(mut self, address: SocketAddr) -> Self {
        self.served_at = Some(address);
        self
    }

    /// Longest payload, in bytes; 1 MiB unless set.
    pub fn payload_bytes_max(mut self, max: usize) -> Self {
        self.config.payload_bytes_max = max;
        self
    }

    /// Memory that caches may take, in bytes; 128 MiB unless set.
    pub fn cache_bytes_max(mut self, max: usize) -> Self {
        self.config.cache_bytes_max = max;
        self
    }

    /// Opens the folder, which is created when missing, and recovers what is in it.
    ///
    /// # Errors
    ///
    /// When a setting is out of bounds, the folder is in use or damaged, or the port is taken.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open(self) -> Result<Scheduler, SchedulerError> {
        let mut embedded = Embedded::open(self.config).await?;
        if let Some(address) = self.served_at {
            embedded.serve(address).await?;
        }
        let client = Client::new(Connection::in_process(embedded.services()));
        Ok(Scheduler { embedded, client })
    }
}

impl Scheduler {
    /// Opens a folder with default settings.
    ///
    /// # Errors
    ///
    /// As [`SchedulerOptions::open`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, SchedulerError> {
        Self::options(folder).open().await
    }

    /// A scheduler on this folder, with settings to be chosen.
    pub fn options(folder: impl AsRef<Path>) -> SchedulerOptions {
        SchedulerOptions {
            config: Config {
                data_dir: PathBuf::from(folder.as_ref()),
                ..Config::default()
            },
            served_at: None,
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

    /// A connection to it, for another task hub or a converter of your own.
    pub fn connection(&self) -> Connection {
        self.client.connection().clone()
    }

    /// Where gRPC is served beside it.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.embedded.grpc_addr()
    }

    /// Ends when the store can no longer be trusted, with the reason: a full or broken disk. The process should end then; calls
    /// that wait are never answered, since nobody knows what is on disk.
    pub async fn failed(&mut self) -> SchedulerError {
        self.embedded.failed().await.into()
    }

    /// Ends it in order: what was accepted is on disk, and the folder can be opened again. Workers are to be stopped before.
    ///
    /// # Errors
    ///
    /// When the store cannot be closed.
    pub async fn close(self) -> Result<(), SchedulerError> {
        Ok(self.embedded.close().await?)
    }
}
