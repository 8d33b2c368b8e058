//! The pure entity machine: what a message or a worker's answer means for one entity.
//!
//! An entity is state with a name. What is asked of it is done one operation at a time, in order of arrival, and once for
//! each request. It exists from its first message on, and for clients as long as it has state (S-12.6, S-12.7).
//!
//! Like the orchestration machine, this one never waits, reads a clock, draws a random number or does I/O: it is handed the time
//! and fresh ids, and answers with a [`Transition`]: what becomes durable together, and what may be done once it is. It shares
//! ids, messages and effects with the core crate, and knows neither the protocol nor the store.
//!
//! In reading order:
//!
//! - [`Entity`]: what is known of one entity, and how messages reach it
//! - [`Batch`] and [`Entity::complete`]: what a worker is handed, and what its answer means
//! - `lock`: critical sections of orchestrations over several entities
//! - `queue`: what waits
//! - `recent`: requests seen lately, so that a repeated one is done once

mod batch;
mod entity;
mod lock;
mod queue;
mod recent;

pub use batch::{Batch, Decision, Limits};
pub use entity::{Arrival, Entity, Lock, Record, Transition, View};

#[cfg(test)]
mod tests;
