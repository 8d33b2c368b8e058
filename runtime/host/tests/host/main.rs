//! The scheduler as its callers see it: a host on a store in memory, clients, and workers that follow a script.
#![allow(clippy::unwrap_used)]

mod clients;
mod early;
mod faults;
mod kept;
mod lives;
mod peers;
mod restarts;
mod scene;
