//! What tests of the whole program share: a real server process, and workers and clients that are driven by hand.
//!
//! - [`Scheduler`]: the binary, in a folder of its own, on ports that the system chose; killed, stopped, restarted.
//! - [`python`]: an interpreter with the published SDK.
//! - [`Peer`]: one connection, with a hub and a user agent, to call anything and to open work streams.
//! - [`WorkStream`], [`Episode`], [`Activity`]: what a worker is handed, item by item.
//! - [`entity`]: batches of operations of an entity, and what clients do with entities.
//! - [`action`]: what an orchestrator answers.
//! - [`Run`]: an orchestrator written from top to bottom and replayed.
//! - [`replay`], [`Crew`]: workers that run on their own, the second also for entities.
//! - [`check_history`]: the rules that every history follows.
//! - [`Metrics`]: what the server says of itself at `GET /metrics`.
//! - [`Chance`]: random numbers from a seed that is printed.
//!
//! Nothing here knows the inside of the server. A server that panics fails the test that started it.

pub mod action;
mod chance;
mod crew;
pub mod entity;
mod history;
mod metrics;
mod peer;
pub mod replay;
mod run;
mod scheduler;

pub use chance::Chance;
pub use crew::{Conduct, Crew};
pub use history::check_history;
pub use metrics::Metrics;
pub use peer::{Activity, Client, Episode, PATIENCE, Peer, WorkStream, kinds, patiently};
pub use run::{Outcome, Run, Section};
pub use scheduler::{Scheduler, python};
