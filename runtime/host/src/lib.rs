//! The shell around the pure machines: placement, actors, timers, dispatch. The only home of actix.
//!
//! ```text
//!  requests ──► Host ──► placement ──► partition ──► activation ── load · apply
//!                                          ▲              │ decides into the partition's open batch
//!                                          │              ▼
//!  work items ◄── dispatch ◄── perform ◄── durable ◄── committer (store) ── commit
//! ```
//!
//! To read in this order: [`Host`], `placement`, `partition`, `turns`, `perform`, `resident`, `activation`, `entity`, `dispatch`, `timers`, `metrics`.
//! It never sees gRPC, and no request's shape: requests come as plain values (`api`), work items leave as encoded bytes.
//!
//! Start: hubs, partitions (each takes its epoch), recovery of what was busy, then work. Stop: streams and waits end, what was decided is
//! committed, actors end, the committer syncs a last time.

mod activation;
mod api;
mod client;
mod clock;
mod completion;
mod config;
mod dispatch;
mod entities;
mod entity;
mod error;
mod host;
mod hubs;
mod metrics;
mod partition;
mod perform;
mod placement;
mod purge;
mod query;
mod resident;
mod timers;
mod turns;
mod virtual_time;
mod worker;

pub use api::{
    EntityPage, EntityQuery, Filter, Filters, HistoryGuard, HistoryStream, InstanceQuery, ListPage,
    ListQuery, Peer, Purge, Purged, QueryPage, Signal, StreamOptions, WorkKind,
};
pub use client::check_batch;
pub use clock::{Clock, RandomIds};
pub use config::HostConfig;
pub use dispatch::{Outgoing, StreamId, WorkItems};
pub use error::{Error, ErrorKind};
pub use host::Host;
pub use mainspring_entities::View as EntityView;
pub use mainspring_store::Distribution;
pub use metrics::{Ended, Found, InHand, Snapshot, WorkSnapshot};
pub use virtual_time::{Rest, Unclaimed, VirtualTime};
