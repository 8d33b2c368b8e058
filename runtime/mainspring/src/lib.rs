//! Durable orchestrations, activities and entities as plain async Rust.
//!
//! A program either talks to a scheduler ([`Client::connect`]), or has the whole scheduler inside (feature `embedded`,
//! `Scheduler::open`). Both give the same [`Client`] and [`Worker`].
//!
//! This crate joins the SDK, which knows nothing of schedulers' insides, to the scheduler, which knows nothing of the SDK. It adds
//! nothing else.

#[cfg(feature = "embedded")]
mod scheduler;
#[cfg(feature = "testing")]
pub mod testing;

pub use mainspring_sdk::*;
#[cfg(feature = "embedded")]
pub use scheduler::{Scheduler, SchedulerError, SchedulerOptions};
