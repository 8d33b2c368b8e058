//! Behaviour of the machine, told by what entities do in a small [`world`]. Each test cites the rules it holds the machine to.

#![allow(clippy::unwrap_used)]

mod batches;
mod examples;
mod life;
mod locks;
mod mailbox;
mod random;
mod repeats;
mod script;
mod world;
