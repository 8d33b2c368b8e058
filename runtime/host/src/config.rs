//! What the host can be told: limits, periods and hubs, each with its unit, default and reason.

use std::time::Duration;

use mainspring_core::orchestration::Limits;

use crate::clock::Clock;

/// Settings of one running scheduler.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Bounds on payloads, batches and work items (S-14.2, S-3.2).
    pub limits: Limits,
    /// Ceiling of warm state and history bytes kept in memory. Default 64 MiB: an idle server stays small.
    pub cache_bytes_max: usize,
    /// Terminal instances older than this are purged (S-11.25). Default: never.
    pub retention: Option<Duration>,
    /// Hub of requests that name none (S-1.6). Default `default`; `None` refuses such requests.
    pub fallback_hub: Option<String>,
    /// Hubs that exist from the start. Default `default`.
    pub hubs: Vec<String>,
    /// An unknown hub is an existing empty one (S-1.16). Default false.
    pub dynamic_hubs: bool,
    /// Clients may create and delete hubs. Default false.
    pub hub_admin: bool,
    /// How long items of a lost stream stay reserved for late completions (S-13.19). Default 5 s.
    pub lease_grace: Duration,
    /// A stream on which nothing was sent for this long gets a health ping (S-13.3). Default 15 s; workers give up after 120 s.
    pub ping_interval: Duration,
    /// How long an orchestration or an entity whose work item no connected worker can receive waits for one that can (S-13.20). Default 1 min.
    pub oversize_wait: Duration,
    /// Longest lease of a work item of an orchestration or an entity (S-13.19). Default 1 h; `None`: as long as its stream is open.
    pub orchestration_lease_max: Option<Duration>,
    /// Longest lease of an activity (S-5.8). Default none.
    pub activity_lease_max: Option<Duration>,
    /// Purging an active instance by id is an error, not a count of zero (S-11.18). Default true.
    pub purge_active_is_error: bool,
    /// New work is refused while the disk below the data folder has less than this left. Default 256 MiB:
    /// room for the journal and one compaction, so that no write fails half-way.
    pub disk_free_bytes_min: u64,
    /// An activation without work for this long leaves memory. Default 5 s.
    pub passivate_after: Duration,
    /// Beyond this many activations in one partition the idle ones leave memory at once. Default 20,000 (about 1 KB each plus state).
    pub activations_max: usize,
    /// Requests that change something and are in hand at once; more wait their turn. Default 8,192.
    pub requests_max: usize,
    /// Messages that may wait in one instance's mailbox before events, and signals, are refused. Default 100,000.
    pub mailbox_messages_max: usize,
    /// Bytes that may wait in one entity's queue, which is in memory, before signals are refused. Default 64 MiB.
    pub entity_queue_bytes_max: usize,
    /// Operations in one batch of an entity (S-12.10). Default 100: what a worker that dies in between has to do again.
    pub entity_batch_max: usize,
    /// What timers, schedules, history and retention go by. Default: the time of this machine.
    pub clock: Clock,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            cache_bytes_max: 64 << 20,
            retention: None,
            fallback_hub: Some("default".to_owned()),
            hubs: vec!["default".to_owned()],
            dynamic_hubs: false,
            hub_admin: false,
            lease_grace: Duration::from_secs(5),
            ping_interval: Duration::from_secs(15),
            oversize_wait: Duration::from_secs(60),
            orchestration_lease_max: Some(Duration::from_secs(3600)),
            activity_lease_max: None,
            purge_active_is_error: true,
            disk_free_bytes_min: 256 << 20,
            passivate_after: Duration::from_secs(5),
            activations_max: 20_000,
            requests_max: 8_192,
            mailbox_messages_max: 100_000,
            entity_queue_bytes_max: 64 << 20,
            entity_batch_max: 100,
            clock: Clock::system(),
        }
    }
}
