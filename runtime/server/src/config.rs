//! Every setting of a server: unit, default, reason.
//!
//! A [`Config`] is plain data. [`Config::check`] finds what contradicts itself before anything is bound or opened; which
//! flag or variable a value came from is the business of whoever fills it in.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mainspring_core::orchestration::Limits;
use mainspring_host::HostConfig;

use crate::Error;

/// Largest message taken from a peer, in bytes. An oversize completion has to be received to be turned into a failure
/// (S-1.11, S-14.4).
pub const INBOUND_BYTES_MAX: usize = 64 << 20;

/// Highest payload limit that can be set, in bytes. A completion holds a payload with room to spare for its frame, and a
/// payload twice this long still arrives, to be refused by name rather than by a broken call (S-14.2).
pub const PAYLOAD_BYTES_CEILING: usize = INBOUND_BYTES_MAX / 2;

/// Largest batch of an entity that may be set.
const ENTITY_BATCH_CEILING: usize = 10_000;

/// Smallest payload limit that can be set, in bytes: below it error texts of ordinary failures would not fit.
const PAYLOAD_BYTES_FLOOR: usize = 1 << 10;

/// Smallest ceiling of the caches that can be set, in bytes: below it nothing that is in use stays.
const CACHE_BYTES_FLOOR: usize = 2 << 20;

/// Workers give a stream up after 120 s of silence; a ping twice as often leaves room for a slow network (S-13.3).
const PING_INTERVAL_MAX: Duration = Duration::from_secs(60);

// A payload at the limit and one as long again fit into a message.
const _: () = assert!(PAYLOAD_BYTES_CEILING * 2 <= INBOUND_BYTES_MAX);

/// What a server is told. `Config::default()` serves the hub `default` on 127.0.0.1 out of `./mainspring-data`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the store, created when missing. Default `./mainspring-data`. One process at a time may use it.
    pub data_dir: PathBuf,
    /// Where gRPC is served; port 0 takes a free one. Default `127.0.0.1:8080`: the port of DTS's emulator, and not
    /// reachable from other machines until asked for.
    pub grpc_addr: SocketAddr,
    /// Where `GET /healthz` and `GET /metrics` are served over plain HTTP; port 0 takes a free one. Default `127.0.0.1:8081`.
    pub health_addr: SocketAddr,
    /// Task hubs that exist from the start; those of earlier starts stay. Default `default` (S-1.3).
    pub task_hubs: Vec<String>,
    /// Hub of requests that name none. Default `default`: plain SDK packages never name one. `None` refuses such requests
    /// (S-1.6).
    pub fallback_hub: Option<String>,
    /// A hub that nobody created is treated as an existing empty one (S-1.16). Default false: a mistyped name is an error.
    pub dynamic_task_hubs: bool,
    /// Clients may create and delete hubs by RPC. Default false: deleting a hub deletes its data.
    pub allow_hub_admin: bool,
    /// Longest payload string, in UTF-8 bytes, from 1 KiB to [`PAYLOAD_BYTES_CEILING`]. Default 1 MiB, as in DTS (S-14.2).
    pub payload_bytes_max: usize,
    /// Operations of an entity that are handed to a worker at once, from 1 to 10,000 (S-12.10). Default 100: what a worker that dies in between has
    /// to do again.
    pub entity_batch_max: usize,
    /// Ceiling of the caches, in bytes, at least 2 MiB: one half for warm state and history, the other for blocks of the
    /// store. Default 128 MiB, of which an idle server uses next to nothing.
    pub cache_bytes_max: usize,
    /// Terminal instances older than this are purged. Default: never (S-11.25).
    pub retention: Option<Duration>,
    /// Generations with more history events than this fail cleanly (S-14.5). Default: no limit.
    pub history_events_max: Option<u32>,
    /// Certificate chain, PEM, for TLS on the gRPC port; goes with `tls_key`. Default: clear text.
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM, of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// What every call but health checks has to bring as `authorization: Bearer …` (S-1.8). Default: nothing, and whatever
    /// is sent there is ignored.
    pub bearer: Option<Bearer>,
    /// How long items of a lost stream stay reserved for late completions. Default 5 s (S-13.19).
    pub lease_grace: Duration,
    /// Longest lease of an orchestration work item. Default 1 h; `None`: as long as its stream is open (S-13.19).
    pub orchestration_lease_max: Option<Duration>,
    /// Longest lease of an activity. Default none: activities take as long as they take (S-13.19).
    pub activity_lease_max: Option<Duration>,
    /// A stream on which nothing was sent for this long gets a health ping. Default 15 s, at most 1 min (S-13.3).
    pub ping_interval: Duration,
    /// How long an orchestration whose work item no connected worker can receive waits for one that can, before it fails.
    /// Default 1 min (S-13.20).
    pub oversize_wait: Duration,
    /// Purging an active instance by id is an error rather than a count of 0. Default true (S-11.18).
    pub purge_active_is_error: bool,
    /// New work is refused while the disk below the data folder has less than this left, in bytes. Default 256 MiB: room for
    /// the journal and one compaction.
    pub disk_free_bytes_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        let host = HostConfig::default();
        Self {
            data_dir: PathBuf::from("mainspring-data"),
            grpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            health_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            task_hubs: host.hubs,
            fallback_hub: host.fallback_hub,
            dynamic_task_hubs: host.dynamic_hubs,
            allow_hub_admin: host.hub_admin,
            payload_bytes_max: host.limits.payload_bytes_max,
            entity_batch_max: host.entity_batch_max,
            cache_bytes_max: 2 * host.cache_bytes_max,
            retention: host.retention,
            history_events_max: host.limits.history_events_max,
            tls_cert: None,
            tls_key: None,
            bearer: None,
            lease_grace: host.lease_grace,
            orchestration_lease_max: host.orchestration_lease_max,
            activity_lease_max: host.activity_lease_max,
            ping_interval: host.ping_interval,
            oversize_wait: host.oversize_wait,
            purge_active_is_error: host.purge_active_is_error,
            disk_free_bytes_min: host.disk_free_bytes_min,
        }
    }
}

/// Where the bearer token comes from. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Bearer {
    /// The token itself.
    Token(String),
    /// A file that holds it and nothing else; white space around it is dropped. Read once, at the start.
    File(PathBuf),
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Config {
    /// Refuses settings that cannot be served, naming the setting and its bounds. Opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<(), Error> {
        within(
            "payload_bytes_max",
            self.payload_bytes_max,
            PAYLOAD_BYTES_FLOOR,
            PAYLOAD_BYTES_CEILING,
        )?;
        within(
            "entity_batch_max",
            self.entity_batch_max,
            1,
            ENTITY_BATCH_CEILING,
        )?;
        within(
            "cache_bytes_max",
            self.cache_bytes_max,
            CACHE_BYTES_FLOOR,
            usize::MAX,
        )?;
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(setting(
                "tls_cert",
                "a certificate and its key go together: set both tls_cert and tls_key, or neither",
            ));
        }
        if self.ping_interval.is_zero() || self.ping_interval > PING_INTERVAL_MAX {
            let longest = PING_INTERVAL_MAX.as_secs();
            return Err(setting(
                "ping_interval",
                format!("must be above 0 and at most {longest} s, workers count on it"),
            ));
        }
        if self.retention.is_some_and(|age| age.is_zero()) {
            return Err(setting(
                "retention",
                "must be above 0; leave it out to keep everything",
            ));
        }
        for (name, lease) in [
            ("orchestration_lease_max", self.orchestration_lease_max),
            ("activity_lease_max", self.activity_lease_max),
        ] {
            if lease.is_some_and(|lease| lease.is_zero()) {
                return Err(setting(name, "must be above 0; leave it out for no limit"));
            }
        }
        if self.task_hubs.is_empty()
            && self.fallback_hub.is_none()
            && !self.dynamic_task_hubs
            && !self.allow_hub_admin
        {
            return Err(setting(
                "task_hubs",
                "no hub is named and none can be created: nothing could be served",
            ));
        }
        for hub in self.task_hubs.iter().chain(&self.fallback_hub) {
            // Names arrive as a metadata value, so one that cannot be sent could never be reached.
            if hub.trim().is_empty() || !hub.chars().all(|c| matches!(c, ' '..='~')) {
                return Err(setting(
                    "task_hubs",
                    format!(
                        "'{}' is no task hub name: one or more printable ASCII characters are",
                        hub.escape_debug()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The scheduler's share of these settings.
    pub(crate) fn host(&self) -> HostConfig {
        HostConfig {
            limits: Limits {
                payload_bytes_max: self.payload_bytes_max,
                history_events_max: self.history_events_max,
                ..Limits::default()
            },
            entity_batch_max: self.entity_batch_max,
            cache_bytes_max: self.cache_bytes_max / 2,
            retention: self.retention,
            fallback_hub: self.fallback_hub.clone(),
            hubs: self.task_hubs.clone(),
            dynamic_hubs: self.dynamic_task_hubs,
            hub_admin: self.allow_hub_admin,
            lease_grace: self.lease_grace,
            ping_interval: self.ping_interval,
            oversize_wait: self.oversize_wait,
            orchestration_lease_max: self.orchestration_lease_max,
            activity_lease_max: self.activity_lease_max,
            purge_active_is_error: self.purge_active_is_error,
            disk_free_bytes_min: self.disk_free_bytes_min,
            ..HostConfig::default()
        }
    }

    /// The store's share.
    pub(crate) fn store(&self) -> mainspring_store::Options {
        mainspring_store::Options {
            cache_bytes: (self.cache_bytes_max / 2) as u64,
            ..mainspring_store::Options::default()
        }
    }
}

fn within(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let bounds = if most == usize::MAX {
        format!("at least {least}")
    } else {
        format!("from {least} to {most}")
    };
    Err(setting(
        name,
        format!("{value} bytes is out of bounds: {bounds} bytes are allowed"),
    ))
}

fn setting(name: &'static str, cause: impl Into<String>) -> Error {
    Error::Setting {
        name,
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_served() {
        Config::default().check().unwrap();
    }

    /// S-14.2.
    #[test]
    fn a_payload_limit_that_no_message_could_carry_is_refused_naming_the_bounds() {
        let text = refused(|c| c.payload_bytes_max = PAYLOAD_BYTES_CEILING + 1);
        assert_eq!(
            text,
            "setting payload_bytes_max: 33554433 bytes is out of bounds: from 1024 to 33554432 bytes are allowed"
        );
        assert!(refused(|c| c.payload_bytes_max = 0).contains("payload_bytes_max"));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        assert!(refused(|c| c.tls_cert = Some("a.pem".into())).contains("tls_key"));
        assert!(refused(|c| c.tls_key = Some("a.key".into())).contains("tls_cert"));
    }

    /// S-13.3.
    #[test]
    fn pings_rarer_than_workers_count_on_are_refused() {
        assert!(refused(|c| c.ping_interval = Duration::from_secs(61)).contains("60 s"));
        assert!(refused(|c| c.ping_interval = Duration::ZERO).contains("ping_interval"));
    }

    #[test]
    fn hub_names_that_no_request_could_name_are_refused() {
        for name in ["", "  ", "a\nb", "größe"] {
            assert!(refused(|c| c.task_hubs = vec![name.to_owned()]).contains("task hub name"));
        }
        let nothing = refused(|c| {
            c.task_hubs.clear();
            c.fallback_hub = None;
        });
        assert!(nothing.contains("nothing could be served"));
    }

    #[test]
    fn a_token_is_not_printed() {
        let config = Config {
            bearer: Some(Bearer::Token("secret".to_owned())),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
