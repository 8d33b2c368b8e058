//! Behaviour of the machine, told by what instances do in a small [`world`]. Each test cites the rules it holds the machine to.

#![allow(clippy::unwrap_used)]

mod actions;
mod control;
mod entities;
mod episodes;
mod invariants;
mod life;
mod random;
mod renewal;
mod reuse;
mod rewinding;
mod script;
mod world;
