//! Orchestrations, activities and entities as plain async Rust.
//!
//! Users take the crate `mainspring`, which re-exports all of this. It stands on the wire types alone and knows nothing of how a
//! scheduler works inside.
//!
//! In reading order: [`Orchestration`] and [`Activity`] say which functions can be run, [`OrchestrationContext`] is what an
//! orchestrator may do, [`Entity`] and [`Operation`] are entities, `replay` runs one orchestration against its history,
//! [`Worker`] brings work items to all of them, [`Client`] starts and asks.

#[doc = include_str!("determinism.md")]
pub mod determinism {}

mod activity;
mod client;
mod connection;
mod convert;
mod entity;
mod error;
mod handler;
mod orchestration;
mod registry;
mod replay;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod worker;

pub use activity::ActivityContext;
pub use client::*;
pub use connection::Connection;
pub use convert::{Converter, Payload};
pub use entity::{Entity, EntityContext, EntityId, InvalidEntityId, Operation, Operations};
pub use error::{Error, Failure, Result, TaskError};
pub use handler::{Activity, BoxFuture, Named, Orchestration, named};
pub use orchestration::{
    ContinueAsNew, Either, EntityHandle, Event, Lock, OrchestrationContext, Task, Timer,
};
pub use replay::Mismatch;
pub use retry::RetryPolicy;
pub use worker::{OnMismatch, RunningWorker, Stats, Worker};
