//! Durable orchestrations, activities and entities as plain async Rust.
//!
//! A program either talks to a scheduler ([`Client::connect`]), or has the whole scheduler inside (feature `embedded`,
//! `Scheduler::open`). Both give the same [`Client`] and [`Worker`].
//!
//! ```no_run
//! # #[cfg(feature = "embedded")]
//! # mod program {
//! use std::time::Duration;
//!
//! use mainspring::{ActivityContext, OrchestrationContext, Result, Scheduler};
//!
//! async fn trial(ctx: OrchestrationContext, user: String) -> Result<()> {
//!     // Thirty days, whatever is restarted meanwhile.
//!     ctx.timer(Duration::from_secs(30 * 86_400)).await;
//!     Ok(ctx.call(bill, user).await?)
//! }
//!
//! async fn bill(_: ActivityContext, user: String) -> Result<()> {
//!     println!("a bill for {user}");
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let scheduler = Scheduler::open("data").await?;
//!     let worker = scheduler.worker().orchestration(trial).activity(bill).start()?;
//!     scheduler.client().start(trial, "Ada".to_owned()).await?.result().await?;
//!     worker.stop().await;
//!     Ok(scheduler.close().await?)
//! }
//! # }
//! ```
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
