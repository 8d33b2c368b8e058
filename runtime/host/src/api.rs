//! What goes in and out at the host's edge: plain data, no wire types.

use std::time::Duration;

use bytes::Bytes;
use mainspring_core::orchestration::View;
use mainspring_core::time::Timestamp;

/// Who sent a request, as far as the protocol's quirks need it. Never used for correctness beyond those (S-1.9).
#[derive(Debug, Clone)]
pub struct Peer {
    /// The server's number for the transport connection.
    pub connection: u64,
    /// gRPC's own `user-agent`, as sent.
    pub user_agent: String,
}

impl Peer {
    /// Go and Java up to 1.5.0 answer without completion tokens (S-4.5, S-4.17).
    pub(crate) fn is_without_tokens(&self) -> bool {
        self.user_agent.contains("grpc-go") || self.is_java()
    }

    pub(crate) fn is_java(&self) -> bool {
        self.user_agent.contains("grpc-java")
    }

    pub(crate) fn is_python(&self) -> bool {
        self.user_agent.contains("grpc-python")
    }

    /// JavaScript channels receive messages of any size (S-1.11), and so do those of our own SDK.
    pub(crate) fn receives_any_size(&self) -> bool {
        ["grpc-node-js", "mainspring-rust"]
            .iter()
            .any(|agent| self.user_agent.contains(agent))
    }
}

/// What a worker says when it opens its stream of work items.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The connection it came over.
    pub peer: Peer,
    /// Most orchestrations it holds unanswered; 0: not stated (S-13.6).
    pub orchestrations_max: u32,
    /// Most activities it holds unanswered; 0: not stated.
    pub activities_max: u32,
    /// Most entity batches it holds unanswered; 0: not stated.
    pub entities_max: u32,
    /// Declared that it can fetch history itself (S-3.26).
    pub can_stream_history: bool,
    /// Keeps orchestrations in memory between their episodes, and is sent no history that it knows.
    pub keeps_instances: bool,
    /// `None`: everything (S-13.9).
    pub filters: Option<Filters>,
    /// The worker's own name, for logs alone.
    pub worker: String,
}

/// Strict filters of a stream: a kind without entries gets nothing (S-13.9).
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Orchestrations by name and version.
    pub orchestrations: Vec<Filter>,
    /// Activities by name and version.
    pub activities: Vec<Filter>,
    /// Entities by name.
    pub entities: Vec<String>,
}

/// One name with the versions that match; no versions: any (S-13.11).
#[derive(Debug, Clone)]
pub struct Filter {
    /// Compared without regard to case.
    pub name: String,
    /// Compared without regard to ASCII case; empty: any version.
    pub versions: Vec<String>,
}

/// Kinds of work items that can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkKind {
    /// An episode of an orchestration.
    Orchestration,
    /// An activity.
    Activity,
    /// A batch of operations for an entity.
    Entity,
}

impl WorkKind {
    pub(crate) const ALL: [Self; 3] = [Self::Orchestration, Self::Entity, Self::Activity];

    /// Its place in [`WorkKind::ALL`].
    pub(crate) fn place(self) -> usize {
        match self {
            Self::Orchestration => 0,
            Self::Entity => 1,
            Self::Activity => 2,
        }
    }
}

/// A query over instances (S-11.9).
#[derive(Debug, Clone, Default)]
pub struct InstanceQuery {
    /// Wire values; empty: all. CONTINUED_AS_NEW matches nothing.
    pub statuses: Vec<i32>,
    /// Created at or after.
    pub created_from: Option<Timestamp>,
    /// Created at or before.
    pub created_to: Option<Timestamp>,
    /// When not empty and without the current hub, nothing matches.
    pub hub_names: Vec<String>,
    /// Instances a page; 0 or less: 100; at most 1,000.
    pub page_size: i32,
    /// Where the last page ended.
    pub token: Option<String>,
    /// Start of the id, case-sensitive.
    pub prefix: Option<String>,
    /// Whether inputs, outputs, custom status and failures are wanted.
    pub include_payloads: bool,
}

/// An operation that a client sends to an entity.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    /// The entity's id.
    pub entity: String,
    /// Name of the operation.
    pub operation: String,
    /// Its input.
    pub input: Option<String>,
    /// By which a repeated signal is known; empty: the server makes one up.
    pub request_id: String,
    /// Not before this time (S-6.7).
    pub scheduled_at: Option<Timestamp>,
}

/// A query over entities (S-12.39).
#[derive(Debug, Clone, Default)]
pub struct EntityQuery {
    /// Start of the id; the '@' in front may be missing.
    pub prefix: Option<String>,
    /// Last modified at or after.
    pub modified_from: Option<Timestamp>,
    /// Last modified at or before.
    pub modified_to: Option<Timestamp>,
    /// Whether states are wanted.
    pub include_state: bool,
    /// Those without state, too.
    pub include_transient: bool,
    /// Entities a page; 0 or less: 100; at most 1,000.
    pub page_size: i32,
    /// Where the last page ended.
    pub token: Option<String>,
}

/// One page of entities; no token on the last.
#[derive(Debug, Clone, Default)]
pub struct EntityPage {
    /// In order of their ids.
    pub views: Vec<mainspring_entities::View>,
    /// Where to go on.
    pub token: Option<String>,
}

/// One page of a query; no token on the last (S-11.12).
#[derive(Debug, Clone)]
pub struct QueryPage {
    /// In order of (created time, id).
    pub views: Vec<View>,
    /// Where to go on.
    pub token: Option<String>,
}

/// A listing of terminal instances (S-11.14).
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Wire values; empty: all terminal ones.
    pub statuses: Vec<i32>,
    /// Completed at or after.
    pub completed_from: Option<Timestamp>,
    /// Completed at or before.
    pub completed_to: Option<Timestamp>,
    /// Ids a page; 0 or less: 100.
    pub page_size: i32,
    /// Exclusive cursor: a key of an earlier page or a bare instance id.
    pub after: Option<String>,
    /// The caller is a Python client: a full last page carries no key (S-11.17).
    pub is_python: bool,
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// In order of (completed time, id).
    pub ids: Vec<String>,
    /// Cursor for the next page.
    pub key: Option<String>,
}

/// What to purge.
#[derive(Debug, Clone)]
pub enum Purge {
    /// One instance.
    Id(String),
    /// Terminal instances that match (S-11.20).
    Filter {
        /// Created at or after.
        created_from: Option<Timestamp>,
        /// Created at or before.
        created_to: Option<Timestamp>,
        /// Wire values; empty: all terminal ones.
        statuses: Vec<i32>,
        /// Stops when exceeded.
        timeout: Option<Duration>,
    },
    /// Several ids; missing and active ones are skipped (S-11.21).
    Batch(Vec<String>),
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Instances deleted.
    pub count: u32,
    /// False when cut short by its time-out.
    pub is_complete: bool,
}

/// A history ready to be sent: `HistoryChunk` messages, each as parts to be written back to back (S-3.27).
pub struct HistoryStream {
    /// Encoded messages.
    pub messages: Vec<Vec<Bytes>>,
    /// Held while a worker reads history for its work item.
    pub guard: Option<HistoryGuard>,
}

/// Fences the lease of the work item when a worker's history stream breaks (S-3.34): dropped before [`HistoryGuard::finish`].
pub struct HistoryGuard {
    pub(crate) on_broken: Option<Box<dyn FnOnce() + Send>>,
}

impl HistoryGuard {
    /// The worker has received everything.
    pub fn finish(mut self) {
        self.on_broken = None;
    }
}

impl Drop for HistoryGuard {
    fn drop(&mut self) {
        if let Some(fence) = self.on_broken.take() {
            fence();
        }
    }
}
