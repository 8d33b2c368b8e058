//! Durable entities: the real binary, spoken to in raw gRPC.
//!
//! First what must hold whatever happens, checked against simple models while the server is killed and workers are lost:
//! [`histories`], [`bank`] and [`crossing`]. Then the rules one by one, with workers driven by hand, so that a test
//! decides when each answer comes, in what form, and whether it comes at all.

#![allow(clippy::unwrap_used)]

#[path = "entities/bank.rs"]
mod bank;
#[path = "entities/batches.rs"]
mod batches;
#[path = "entities/calls.rs"]
mod calls;
#[path = "entities/crossing.rs"]
mod crossing;
#[path = "raw/damage.rs"]
mod damage;
#[path = "entities/delays.rs"]
mod delays;
#[path = "entities/hands.rs"]
mod hands;
#[path = "entities/histories.rs"]
mod histories;
#[path = "entities/identity.rs"]
mod identity;
#[path = "entities/insistent.rs"]
mod insistent;
#[path = "entities/journal.rs"]
mod journal;
#[path = "entities/large.rs"]
mod large;
#[path = "entities/locks.rs"]
mod locks;
#[path = "entities/lost.rs"]
mod lost;
#[path = "entities/malformed.rs"]
mod malformed;
#[path = "entities/reading.rs"]
mod reading;
#[path = "entities/release.rs"]
mod release;
#[path = "entities/routing.rs"]
mod routing;
#[path = "entities/sends.rs"]
mod sends;
#[path = "entities/verdict.rs"]
mod verdict;
#[path = "entities/wander.rs"]
mod wander;
