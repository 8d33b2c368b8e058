//! Orchestrators against histories that a pretended scheduler writes. Every episode is run twice, by the instance that was kept
//! and by one that replays everything, and both have to want the same.

#![allow(clippy::unwrap_used)]

mod events;
mod locks;
mod mismatches;
mod stage;
mod tasks;
