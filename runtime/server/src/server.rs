//! One server from its ports to its end: bind, open, serve, drain.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainspring_host::{Host, HostConfig};
use mainspring_store::{FjallStore, Store};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Identity;

use crate::config::Config;
use crate::error::Error;
use crate::grpc::bearer::Token;
use crate::grpc::{self, Readiness, listener};
use crate::http;
use crate::life::Life;

/// Longest that connections are waited for once everything accepted is on disk. Together with what the host takes to stop,
/// and with closing the store, it stays within the 10 s that supervisors give.
pub(crate) const DRAIN_WAIT_MAX: Duration = Duration::from_millis(8_500);

/// How often a thread that met a fatal error looks whether the server drains.
const FATAL_INTERVAL: Duration = Duration::from_millis(50);

/// How long, and how often, it is looked whether the last holder of the store has let go: threads and tasks end a moment after
/// they are told. A connection that had to be cut may hold it longer; then its folder stays locked until the process ends.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(1);
const RELEASE_INTERVAL: Duration = Duration::from_millis(2);

/// A server whose ports are bound and whose store is being opened.
///
/// ```no_run
/// # async fn run() -> Result<(), mainspring_server::Error> {
/// let server = mainspring_server::Server::bind(mainspring_server::Config::default()).await?;
/// println!("gRPC on {}", server.grpc_addr());
/// server.serve(async { drop(tokio::signal::ctrl_c().await) }).await
/// # }
/// ```
pub struct Server {
    config: Config,
    token: Option<Token>,
    transport: tonic::transport::Server,
    grpc: (TcpListener, SocketAddr),
    health: (TcpListener, SocketAddr),
    life: Arc<Life>,
    opening: oneshot::Receiver<Result<Opened, Error>>,
    /// What the committer met when it could go no further.
    fatal: mpsc::Receiver<mainspring_store::Error>,
    /// Set when the host, and with it the committer's thread, is told to end.
    is_stopping: Arc<AtomicBool>,
}

/// The store, and the scheduler that works on it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) host: Host,
}

impl Server {
    /// Checks the settings, binds both ports, and begins to open the store in the background: workers that connect early
    /// are held rather than refused (S-1.16). Must be called within a tokio runtime with I/O and time. Goes on with
    /// [`Server::serve`].
    ///
    /// # Errors
    ///
    /// When a setting cannot be served, a file that it names cannot be read, or a port is taken. What is wrong with the
    /// store is told by [`Server::serve`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        config.check()?;
        let token = config.bearer.as_ref().map(Token::read).transpose()?;
        let transport = grpc::transport(identity(&config)?)?;
        let grpc = bind(config.grpc_addr, "gRPC").await?;
        let health = bind(config.health_addr, "health checks").await?;
        let (met, fatal) = mpsc::channel(1);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let opening = open(
            config.host(),
            durable(&config),
            met,
            Arc::clone(&is_stopping),
        )?;
        Ok(Self {
            config,
            token,
            transport,
            grpc,
            health,
            life: Arc::new(Life::new()),
            opening,
            fatal,
            is_stopping,
        })
    }

    /// Where gRPC is served, with the port that was really bound.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.1
    }

    /// Where `GET /healthz` and `GET /metrics` are served, with the port that was really bound.
    pub fn health_addr(&self) -> SocketAddr {
        self.health.1
    }

    /// Serves until `shutdown` ends, then drains: streams and waits end with `UNAVAILABLE`, new calls are refused with the
    /// same code (S-1.10, S-1.14), what was accepted is on disk when this returns, within 10 s.
    ///
    /// # Errors
    ///
    /// When the store cannot be opened or closed, or can no longer be trusted: then at once and without draining, since
    /// nobody may be told anything any more. The process should end with the error's text.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self {
            config,
            token,
            transport,
            grpc,
            health,
            life,
            opening,
            fatal,
            is_stopping,
        } = self;
        let (gate, readiness) = grpc::services(&config, token, &life).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let served = transport.serve_with_incoming_shutdown(
            gate,
            listener::incoming(grpc.0, Arc::clone(&life)),
            async {
                drop(stopped.await);
            },
        );
        tracing::info!(grpc = %grpc.1, health = %health.1, data_dir = %config.data_dir.display(), "listening");
        let mut serving = Serving {
            transport: AbortOnDrop(tokio::spawn(served)),
            stop,
            _probes: AbortOnDrop(tokio::spawn(http::serve(health.0, Arc::downgrade(&life)))),
            readiness,
            opening,
            fatal,
            is_stopping,
            life: DrainOnDrop(life),
        };
        let opened = serving.until(shutdown).await?;
        let deadline = Instant::now() + DRAIN_WAIT_MAX;
        let Some(store) = serving.drain(opened, deadline).await? else {
            return Ok(());
        };
        close(store, deadline).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What runs while a server serves.
struct Serving {
    transport: AbortOnDrop<Result<(), tonic::transport::Error>>,
    /// Dropped to tell the transport to finish.
    stop: oneshot::Sender<()>,
    _probes: AbortOnDrop<()>,
    readiness: Readiness,
    opening: oneshot::Receiver<Result<Opened, Error>>,
    fatal: mpsc::Receiver<mainspring_store::Error>,
    is_stopping: Arc<AtomicBool>,
    life: DrainOnDrop,
}

impl Serving {
    /// Serves until `shutdown` ends. `None`: the store is still opening.
    async fn until(&mut self, shutdown: impl Future<Output = ()>) -> Result<Option<Opened>, Error> {
        let mut shutdown = pin!(shutdown);
        let mut opened = None;
        loop {
            tokio::select! {
                biased;
                Some(error) = self.fatal.recv() => return Err(Error::Store(error)),
                result = &mut self.opening, if opened.is_none() => {
                    let ready = answered(result)?;
                    self.life.0.opened(ready.host.clone());
                    self.readiness.set(true).await;
                    tracing::info!("ready");
                    opened = Some(ready);
                }
                // Before it is told to, it ends only by failing.
                result = &mut self.transport.0 => return Err(match flatten(result.map(Ok))? {
                    Ok(()) => Error::Transport("the transport ended by itself".to_owned()),
                    Err(error) => Error::Transport(grpc::with_causes(&error)),
                }),
                () = &mut shutdown => return Ok(opened),
            }
        }
    }

    /// Ends everything in order and hands back the store. `None`: it was not open by `deadline`.
    async fn drain(
        mut self,
        opened: Option<Opened>,
        deadline: Instant,
    ) -> Result<Option<Arc<dyn Store>>, Error> {
        tracing::info!("draining: streams and waits end, what was accepted goes to disk");
        self.life.0.drain();
        self.readiness.set(false).await;
        // A store that is still opening can only be closed once it is open.
        let opened = match opened {
            Some(opened) => opened,
            None => match timeout_at(deadline, self.opening).await {
                Ok(result) => answered(result)?,
                Err(_) => {
                    tracing::warn!(
                        "stopped while the store was still opening; the next start opens it anew"
                    );
                    return Ok(None);
                }
            },
        };
        stop(&opened.host, &mut self.fatal, &self.is_stopping).await?;
        self.readiness.end().await;
        drop(self.stop);
        if timeout_at(deadline, &mut self.transport.0).await.is_err() {
            tracing::warn!("some connections did not close in time and are cut");
        }
        Ok(Some(opened.store))
    }
}

/// Ends the scheduler: what it accepted is on disk when this returns.
pub(crate) async fn stop(
    host: &Host,
    fatal: &mut mpsc::Receiver<mainspring_store::Error>,
    is_stopping: &AtomicBool,
) -> Result<(), Error> {
    is_stopping.store(true, Ordering::Release);
    tokio::select! {
        biased;
        Some(error) = fatal.recv() => return Err(Error::Store(error)),
        () = host.stop() => {}
    }
    // What the committer met at the very last, while it was waited for.
    match fatal.try_recv() {
        Ok(error) => Err(Error::Store(error)),
        Err(_) => Ok(()),
    }
}

/// Closes the store, and waits for those who still hold it, so that its folder can be opened again when this returns.
pub(crate) async fn close(store: Arc<dyn Store>, deadline: Instant) -> Result<(), Error> {
    let store = blocking(move || store.close().map(|()| store)).await??;
    let deadline = deadline.min(Instant::now() + RELEASE_WAIT_MAX);
    while Arc::strong_count(&store) > 1 && Instant::now() < deadline {
        tokio::time::sleep(RELEASE_INTERVAL).await;
    }
    blocking(move || drop(store)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    flatten(tokio::task::spawn_blocking(move || Ok(work())).await)
}

/// What opens the store in the data folder.
pub(crate) fn durable(
    config: &Config,
) -> impl FnOnce() -> Result<Arc<dyn Store>, Error> + Send + 'static {
    let (folder, options) = (config.data_dir.clone(), config.store());
    move || Ok(Arc::new(FjallStore::open(&folder, options)?))
}

/// Opens the store on a thread of its own, which holds up neither the runtime nor the end of the process.
pub(crate) fn open(
    config: HostConfig,
    store: impl FnOnce() -> Result<Arc<dyn Store>, Error> + Send + 'static,
    met: mpsc::Sender<mainspring_store::Error>,
    is_stopping: Arc<AtomicBool>,
) -> Result<oneshot::Receiver<Result<Opened, Error>>, Error> {
    let (done, opening) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("mainspring-open".to_owned())
        .spawn(move || {
            let _runtime = runtime.enter();
            // Nobody waits any more when the server was stopped meanwhile.
            drop(done.send(open_now(config, store, met, is_stopping)));
        })
        .map_err(|error| Error::Transport(format!("no thread can be started: {error}")))?;
    Ok(opening)
}

/// Opens the store and starts the scheduler on it.
fn open_now(
    config: HostConfig,
    store: impl FnOnce() -> Result<Arc<dyn Store>, Error>,
    met: mpsc::Sender<mainspring_store::Error>,
    is_stopping: Arc<AtomicBool>,
) -> Result<Opened, Error> {
    let store = store()?;
    let on_fatal = move |error: mainspring_store::Error| {
        tracing::error!(%error, "the store can no longer be trusted: the server stops");
        // The process is about to end; if nobody listens, it is ending already.
        let _ = met.try_send(error);
        // Whoever waits for a commit must not hear of it, not even that it failed (S-1.13): so this thread, which would
        // tell them, never goes on. While the server drains it is waited for, and goes on for that alone.
        while !is_stopping.load(Ordering::Acquire) {
            std::thread::park_timeout(FATAL_INTERVAL);
        }
    };
    let host = Host::start(Arc::clone(&store), config, on_fatal)?;
    Ok(Opened { store, host })
}

pub(crate) async fn bind(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind {
        address,
        purpose,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Certificate and key, if TLS is wanted.
fn identity(config: &Config) -> Result<Option<Identity>, Error> {
    let read = |name, path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|source| Error::File {
            name,
            path: path.clone(),
            source,
        })
    };
    match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Ok(Some(Identity::from_pem(
            read("tls_cert", cert)?,
            read("tls_key", key)?,
        ))),
        _ => Ok(None),
    }
}

pub(crate) fn answered(
    result: Result<Result<Opened, Error>, oneshot::error::RecvError>,
) -> Result<Opened, Error> {
    result.expect("the thread that opens the store answers, unless it panicked")
}

/// A panic in a task goes on where the task is waited for.
fn flatten<T>(result: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    result.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(Error::Transport(error.to_string())),
    })
}

/// Ends a task that has no end of its own.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// However serving ends, calls that are still held are refused.
struct DrainOnDrop(Arc<Life>);

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        self.0.drain();
    }
}
