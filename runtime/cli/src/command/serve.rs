//! `mainspring serve`: settings, addresses, signals, exit.
//!
//! Each setting is taken from its flag, else its `MAINSPRING_…` variable, else, where the emulator of the hosted
//! service has one, its `DTS_…` variable, else its default.

use std::env;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::BoolishValueParser;
use mainspring_server::{Bearer, Config, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::{logging, quantity};

/// Hubs that exist from the start, in the emulator's words.
const DTS_HUBS: &str = "DTS_TASK_HUB_NAMES";

/// Whether hubs come into being when they are named, in the emulator's words.
const DTS_DYNAMIC_HUBS: &str = "DTS_USE_DYNAMIC_TASK_HUBS";

/// Hub of requests that name none, unless other hubs are served instead (S-1.6).
const FALLBACK_HUB: &str = "default";

/// Supervisors kill what has not ended 10 s after it was asked to; what hangs says so first.
const DRAIN_LIMIT: Duration = Duration::from_millis(9_800);

/// Run the scheduler until SIGTERM or Ctrl-C.
///
/// The first signal drains: what was accepted is on disk, streams end, and the process ends with 0 within 10 s.
/// A second one ends the process at once.
#[derive(Debug, Args)]
pub struct Serve {
    /// Folder of the store; created when missing
    #[arg(
        long,
        env = "MAINSPRING_DATA_DIR",
        value_name = "DIR",
        default_value = "./mainspring-data"
    )]
    data_dir: PathBuf,

    /// Where gRPC is served; port 0 takes a free one
    #[arg(
        long,
        env = "MAINSPRING_GRPC_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    grpc_addr: SocketAddr,

    /// Where GET /healthz and GET /metrics are served; port 0 takes a free one
    #[arg(
        long,
        env = "MAINSPRING_HEALTH_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:8081"
    )]
    health_addr: SocketAddr,

    /// Task hubs that exist from the start, separated by commas [env: also DTS_TASK_HUB_NAMES] [default: default]
    #[arg(long, env = "MAINSPRING_TASK_HUBS", value_name = "NAMES")]
    task_hubs: Option<String>,

    /// Treat a hub that nobody created as an empty one [env: also DTS_USE_DYNAMIC_TASK_HUBS]
    #[arg(long, env = "MAINSPRING_DYNAMIC_TASK_HUBS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    dynamic_task_hubs: Option<bool>,

    /// Hub of requests that name none; empty: such requests are refused [default: default, else the first hub]
    #[arg(long, env = "MAINSPRING_FALLBACK_HUB", value_name = "NAME")]
    fallback_hub: Option<String>,

    /// Let clients create and delete task hubs
    #[arg(long, env = "MAINSPRING_ALLOW_HUB_ADMIN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    allow_hub_admin: Option<bool>,

    /// Longest input, output, event or status, such as 1MiB
    #[arg(long, env = "MAINSPRING_PAYLOAD_BYTES_MAX", value_name = "SIZE", default_value = "1MiB",
        value_parser = quantity::bytes)]
    payload_bytes_max: usize,

    /// Operations of an entity that a worker is handed at once
    #[arg(
        long,
        env = "MAINSPRING_ENTITY_BATCH_MAX",
        value_name = "COUNT",
        default_value_t = 100
    )]
    entity_batch_max: usize,

    /// Memory that caches may take, such as 128MiB
    #[arg(long, env = "MAINSPRING_CACHE_BYTES_MAX", value_name = "SIZE", default_value = "128MiB",
        value_parser = quantity::bytes)]
    cache_bytes_max: usize,

    /// Purge instances that ended longer ago than this, such as 30d [default: keep all]
    #[arg(long, env = "MAINSPRING_RETENTION", value_name = "DURATION", value_parser = quantity::duration)]
    retention: Option<Duration>,

    /// Certificate chain (PEM); turns TLS on, together with --tls-key
    #[arg(
        long,
        env = "MAINSPRING_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key (PEM) of the certificate
    #[arg(
        long,
        env = "MAINSPRING_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Bearer token that every call has to carry
    #[arg(
        long,
        env = "MAINSPRING_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    token: Option<String>,

    /// File that holds the bearer token
    #[arg(long, env = "MAINSPRING_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    leases: Leases,
}

/// Settings that few need to change.
#[derive(Debug, Args)]
#[command(next_help_heading = "Work items and limits")]
struct Leases {
    /// How long the items of a lost worker stay reserved for late answers
    #[arg(long, env = "MAINSPRING_LEASE_GRACE", value_name = "DURATION", default_value = "5s",
        value_parser = quantity::duration)]
    lease_grace: Duration,

    /// Longest time a worker may hold an orchestration; 0s: as long as its stream is open
    #[arg(long, env = "MAINSPRING_ORCHESTRATION_LEASE_MAX", value_name = "DURATION", default_value = "1h",
        value_parser = quantity::duration)]
    orchestration_lease_max: Duration,

    /// Longest time a worker may hold an activity; 0s: as long as its stream is open
    #[arg(long, env = "MAINSPRING_ACTIVITY_LEASE_MAX", value_name = "DURATION", default_value = "0s",
        value_parser = quantity::duration)]
    activity_lease_max: Duration,

    /// Silence on a worker's stream after which it gets a health ping, at most 60s
    #[arg(long, env = "MAINSPRING_PING_INTERVAL", value_name = "DURATION", default_value = "15s",
        value_parser = quantity::duration)]
    ping_interval: Duration,

    /// How long an orchestration whose history no connected worker can receive waits for one that can, before it fails
    #[arg(long, env = "MAINSPRING_OVERSIZE_WAIT", value_name = "DURATION", default_value = "1m",
        value_parser = quantity::duration)]
    oversize_wait: Duration,

    /// Fail orchestrations whose history has more events than this [default: no limit]
    #[arg(long, env = "MAINSPRING_HISTORY_EVENTS_MAX", value_name = "COUNT")]
    history_events_max: Option<u32>,

    /// Whether purging an active instance by its id is an error, or purges nothing
    #[arg(long, env = "MAINSPRING_PURGE_ACTIVE_IS_ERROR", value_name = "BOOL", default_value = "true",
        action = clap::ArgAction::Set, value_parser = BoolishValueParser::new())]
    purge_active_is_error: bool,

    /// Refuse new work while the disk has less than this left
    #[arg(long, env = "MAINSPRING_DISK_FREE_BYTES_MIN", value_name = "SIZE", default_value = "256MiB",
        value_parser = quantity::bytes)]
    disk_free_bytes_min: usize,
}

impl Serve {
    /// Serves until a signal or a fatal error.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config(|name| env::var(name).ok())?;
        logging::start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the async runtime cannot start")?;
        let outcome = runtime.block_on(serve(config));
        // After a fatal error threads may be parked for good: they must not hold the process back.
        runtime.shutdown_background();
        outcome
    }

    /// The server's settings; `variable` reads the environment.
    fn config(self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
        let task_hubs = names(self.task_hubs.or_else(|| variable(DTS_HUBS)).as_deref());
        let dynamic_task_hubs = match (self.dynamic_task_hubs, variable(DTS_DYNAMIC_HUBS)) {
            (Some(dynamic), _) => dynamic,
            (None, Some(text)) => boolish(&text)
                .with_context(|| format!("{DTS_DYNAMIC_HUBS}={text} is neither true nor false"))?,
            (None, None) => false,
        };
        let fallback_hub = match self.fallback_hub.as_deref().map(str::trim) {
            Some("") => None,
            Some(name) => Some(name.to_owned()),
            None => Some(fallback(&task_hubs)),
        };
        let bearer = match (self.token, self.token_file) {
            (Some(token), _) => Some(Bearer::Token(token)),
            (None, file) => file.map(Bearer::File),
        };
        let Leases {
            lease_grace,
            orchestration_lease_max,
            activity_lease_max,
            ping_interval,
            oversize_wait,
            history_events_max,
            purge_active_is_error,
            disk_free_bytes_min,
        } = self.leases;
        Ok(Config {
            data_dir: self.data_dir,
            grpc_addr: self.grpc_addr,
            health_addr: self.health_addr,
            task_hubs,
            fallback_hub,
            dynamic_task_hubs,
            allow_hub_admin: self.allow_hub_admin.unwrap_or(false),
            payload_bytes_max: self.payload_bytes_max,
            entity_batch_max: self.entity_batch_max,
            cache_bytes_max: self.cache_bytes_max,
            retention: self.retention,
            history_events_max,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            bearer,
            lease_grace,
            orchestration_lease_max: unless_zero(orchestration_lease_max),
            activity_lease_max: unless_zero(activity_lease_max),
            ping_interval,
            oversize_wait,
            purge_active_is_error,
            disk_free_bytes_min: disk_free_bytes_min as u64,
        })
    }
}

fn names(text: Option<&str>) -> Vec<String> {
    let named: Vec<String> = text
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if named.is_empty() {
        vec![FALLBACK_HUB.to_owned()]
    } else {
        named
    }
}

/// Plain SDK packages name no hub; whoever serves hubs of other names wants them in the first of these.
fn fallback(hubs: &[String]) -> String {
    let serves_default = hubs
        .iter()
        .any(|hub| hub.eq_ignore_ascii_case(FALLBACK_HUB));
    match hubs.first() {
        Some(first) if !serves_default => first.clone(),
        _ => FALLBACK_HUB.to_owned(),
    }
}

/// Truth in the spellings that the flags take, too.
fn boolish(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Some(true),
        "false" | "0" | "no" | "n" | "off" | "f" | "" => Some(false),
        _ => None,
    }
}

fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let scheme = if config.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    let hub = config.task_hubs.first().cloned().unwrap_or_default();
    let signalled = signalled()?;
    let server = Server::bind(config).await?;
    announce(server.grpc_addr(), server.health_addr(), scheme, &hub);

    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let serving = server.serve(async {
        signalled.await;
        // Only this process's own end makes the receiver go away first.
        let _ = drain.send(());
    });
    tokio::select! {
        ended = serving => Ok(ended?),
        () = overdue(draining) => bail!("draining took longer than {DRAIN_LIMIT:?}: giving up"),
    }
}

/// Ends too long after draining began; never, if it does not begin.
async fn overdue(draining: tokio::sync::oneshot::Receiver<()>) {
    match draining.await {
        Ok(()) => tokio::time::sleep(DRAIN_LIMIT).await,
        Err(_) => std::future::pending().await,
    }
}

/// Ends with the first SIGTERM or Ctrl-C. From then on another one ends the process.
fn signalled() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            // Exit codes as a shell gives them to a process that a signal ended.
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            std::process::exit(code);
        });
    })
}

/// Tells on standard output where the server is. Nobody has to listen.
fn announce(grpc: SocketAddr, health: SocketAddr, scheme: &str, hub: &str) {
    let endpoint = reachable(grpc);
    let text = format!(
        "grpc listening on {grpc}\nhealth listening on {health}\n\
         connection string: Endpoint={scheme}://{endpoint};Authentication=None;TaskHub={hub}\n"
    );
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "standard output is closed");
    }
}

/// An address that a client on this machine can dial: one that means all interfaces is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
#[path = "serve/tests.rs"]
mod tests;
