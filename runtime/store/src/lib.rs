//! Durable state: commits, records, indexes, cache. The only home of the storage engine, the cache and the record encoding.
//!
//! It never decides what a turn means, which comes next, or who is told; it knows no actors and no wire.
//!
//! A turn becomes a [`Batch`]; the [`Committer`] writes batches through a [`Store`] and says when they are durable; [`query`]
//! reads typed answers from a snapshot.
//!
//! ```text
//! host ── Batch ──► Committer ── write, write, write, sync ──► Store ──► journal (one fdatasync)
//!   ▲                   │
//!   └──── done(commit) ─┘           query ◄── Read (a snapshot)
//! ```
//!
//! # Keys
//!
//! Five spaces, each with keys in the order in which they are read. Numbers are big-endian; *id·0* is an id closed by a zero
//! byte; a time is 9 bytes. Writer: the host, through [`Batch`]. Reader: [`query`].
//!
//! | Space | Key | Value |
//! |---|---|---|
//! | state | partition · hub · 0 · id | record: rewritten at every turn |
//! | state | partition · hub · 1 · id | start: once per generation |
//! | state | partition · hub · 2 · id | record of an entity |
//! | state | partition · hub · 3 · id | an entity's state as it is, if it has one |
//! | state | partition · hub · 4 · id·0 · due time · sequence | an entity's operation that is not due yet |
//! | history | partition · hub · id·0 · generation · chunk | framed events, opaque |
//! | mailbox | partition · hub · id·0 · commit · index | message |
//! | timer | partition · due time · hub · id·0 · generation · scheduling | timer |
//! | timer | partition · due time · hub · id·0 · generation | empty: a scheduled start |
//! | timer | partition · due time · hub · id·0 · 0 (32 bits) · sequence | empty: an entity's operation becomes due |
//! | index | 1 · which | the store's own numbers: last commit, partitions |
//! | index | 2 · hub · created time · id | status |
//! | index | 3 · hub · completed time · id | status, of finished instances |
//! | index | 4 · partition · hub · id | empty: has something to do |
//! | index | 5 · partition · hub · id·0 · execution·0 · scheduling | activity that outlives its generation |
//! | index | 6 · name | hub incarnation |
//! | index | 7 · hub | empty: a retired hub, being deleted |
//! | index | 8 · hub | empty: was given once |
//! | index | 9 · partition | epoch |
//! | all | 255 · 255 | mark of the durable store: complete up to this commit |
//!
//! Reading order: [`store`](Store), `commit` ([`Batch`]), `committer`, `key`, [`record`], [`query`], [`cache`](Cache),
//! `memory`, `fjall`, [`inspect`], [`contract`], `histogram`.

mod cache;
mod commit;
mod committer;
pub mod contract;
mod error;
mod fjall;
mod histogram;
pub mod inspect;
mod key;
mod memory;
pub mod query;
pub mod record;
mod store;

pub use cache::{Cache, Lookups};
pub use commit::{BATCH_MESSAGES_MAX, Batch};
pub use committer::{Committer, Done, Groups};
pub use error::{Error, Kind};
pub use fjall::{FORMAT_VERSION, FjallStore, Options};
pub use histogram::{Distribution, Histogram};
pub use memory::MemoryStore;
pub use query::{Due, EntityFilter, EntityPage, InstanceFilter, Page, TimerEntry, TimerKey};
pub use store::{Epoch, Op, Read, Space, Store};
