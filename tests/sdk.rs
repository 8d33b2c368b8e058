//! The Rust SDK against the real binary: what a program written with it sees, also when the server or its worker is lost.

#![allow(clippy::unwrap_used)]

#[path = "sdk/crash.rs"]
mod crash;
#[path = "sdk/entities.rs"]
mod entities;
#[path = "sdk/instances.rs"]
mod instances;
#[path = "sdk/lanes.rs"]
mod lanes;
#[path = "sdk/orchestrations.rs"]
mod orchestrations;
#[path = "sdk/python.rs"]
mod python;
#[path = "sdk/virtual_time.rs"]
mod virtual_time;

use std::time::Duration;

use mainspring_sdk::Client;
use mainspring_tests::Scheduler;

/// Longest wait for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of its own, and a client of it.
fn served() -> (Scheduler, Client) {
    let scheduler = Scheduler::start(&[]);
    let client = Client::connect(scheduler.address()).unwrap();
    (scheduler, client)
}
