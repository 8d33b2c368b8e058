//! A scheduler inside this process: the same services, called without a port.
//!
//! Everything that is decided for a call over the network is decided alike here: the gate, the hub, the limits, the codes. What
//! differs is that there is no transport to start and to drain, unless gRPC is served beside it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_core::time::Timestamp;
use mainspring_host::{Clock, Host, HostConfig, VirtualTime};
use mainspring_store::{MemoryStore, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use crate::config::Config;
use crate::error::Error;
use crate::grpc::bearer::Token;
use crate::grpc::gate::Gate;
use crate::grpc::{self, Readiness, listener};
use crate::life::Life;
use crate::server::{AbortOnDrop, DRAIN_WAIT_MAX, answered, bind, close, durable, open, stop};

/// A scheduler whose store is open and whose services can be called.
///
/// ```no_run
/// # async fn run() -> Result<(), mainspring_server::Error> {
/// let scheduler = mainspring_server::Embedded::open(mainspring_server::Config::default()).await?;
/// let services = scheduler.services();
/// scheduler.close().await
/// # }
/// ```
pub struct Embedded {
    gate: Gate,
    life: Arc<Life>,
    readiness: Readiness,
    store: Arc<dyn Store>,
    host: HaltOnDrop,
    fatal: mpsc::Receiver<mainspring_store::Error>,
    is_stopping: Arc<AtomicBool>,
    beside: Option<Beside>,
}

/// However it ends, no thread of the scheduler is left.
struct HaltOnDrop(Host);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.halt();
    }
}

/// gRPC served beside the calls of this process.
struct Beside {
    address: SocketAddr,
    transport: AbortOnDrop<Result<(), tonic::transport::Error>>,
    /// Dropped to tell the transport to finish.
    stop: oneshot::Sender<()>,
}

impl Embedded {
    /// Opens the store and starts the scheduler on it. Of the settings, addresses and TLS mean nothing; see
    /// [`Embedded::serve`]. Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// When a setting cannot be served, or the store cannot be opened.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.check()?;
        let opened = Self::start(&config, config.host(), durable(&config)).await?;
        tracing::info!(data_dir = %config.data_dir.display(), "ready in this process");
        Ok(opened)
    }

    /// Starts a scheduler for tests: nothing is on disk, and its time stands at `now` until it is moved; see
    /// [`Embedded::virtual_time`]. Of the settings, the folder means nothing either. All instances are in one partition, so that what falls
    /// due at the same time comes in the order of its arming.
    ///
    /// # Errors
    ///
    /// When a setting cannot be served.
    pub async fn open_in_memory(config: Config, now: Timestamp) -> Result<Self, Error> {
        config.check()?;
        let mut host = HostConfig {
            clock: Clock::standing_at(now),
            ..config.host()
        };
        host.limits.clock_step = Duration::ZERO;
        Self::start(&config, host, || Ok(Arc::new(MemoryStore::new(1)))).await
    }

    async fn start(
        config: &Config,
        host: HostConfig,
        store: impl FnOnce() -> Result<Arc<dyn Store>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let token = config.bearer.as_ref().map(Token::read).transpose()?;
        let (met, fatal) = mpsc::channel(1);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let opening = open(host, store, met, Arc::clone(&is_stopping))?;
        let life = Arc::new(Life::new());
        let (gate, readiness) = grpc::services(config, token, &life).await;
        let opened = answered(opening.await)?;
        life.opened(opened.host.clone());
        readiness.set(true).await;
        Ok(Self {
            gate,
            life,
            readiness,
            store: opened.store,
            host: HaltOnDrop(opened.host),
            fatal,
            is_stopping,
            beside: None,
        })
    }

    /// The services, to be called as if over a connection. Cheap to clone.
    pub fn services(&self) -> Services {
        Services(self.gate.clone())
    }

    /// The time of one that was opened in memory; `None`: it goes by the time of the machine.
    pub fn virtual_time(&self) -> Option<VirtualTime> {
        VirtualTime::of(&self.host.0)
    }

    /// Serves gRPC beside it, for programs in other processes and languages, and gives the address with the port that was really
    /// bound.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub async fn serve(&mut self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let (listener, address) = bind(address, "gRPC").await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let served = grpc::transport(None)?.serve_with_incoming_shutdown(
            self.gate.clone(),
            listener::incoming(listener, Arc::clone(&self.life)),
            async {
                drop(stopped.await);
            },
        );
        self.beside = Some(Beside {
            address,
            transport: AbortOnDrop(tokio::spawn(served)),
            stop,
        });
        Ok(address)
    }

    /// Where gRPC is served beside it.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.beside.as_ref().map(|beside| beside.address)
    }

    /// Ends when the store can no longer be trusted, with the reason. Nobody may be told anything any more: the process should
    /// end with the error's text, and calls that wait are never answered.
    pub async fn failed(&mut self) -> Error {
        match self.fatal.recv().await {
            Some(error) => Error::Store(error),
            // The committer is gone without a word, which it is only once the scheduler was closed.
            None => std::future::pending().await,
        }
    }

    /// Refuses what is new, brings what was accepted to disk, and closes the store, so that its folder can be opened again.
    ///
    /// # Errors
    ///
    /// When the store cannot be closed, or could no longer be trusted.
    pub async fn close(mut self) -> Result<(), Error> {
        let deadline = Instant::now() + DRAIN_WAIT_MAX;
        self.life.drain();
        self.readiness.set(false).await;
        stop(&self.host.0, &mut self.fatal, &self.is_stopping).await?;
        self.readiness.end().await;
        if let Some(mut beside) = self.beside {
            drop(beside.stop);
            // Connections that do not close in time are cut.
            drop(tokio::time::timeout_at(deadline, &mut beside.transport.0).await);
        }
        drop((self.gate, self.life, self.host));
        close(self.store, deadline).await
    }
}

/// The services of an [`Embedded`] scheduler.
#[derive(Clone)]
pub struct Services(Gate);

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
