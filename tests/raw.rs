//! The real binary, spoken to in raw gRPC: bad input, the habits of SDKs that no other test runs, and lost workers.
//!
//! One module for each concern. Workers are driven by hand, so that a test decides when each answer comes, in what
//! form, and whether it comes at all.

#![allow(clippy::unwrap_used)]

#[path = "raw/bad_input.rs"]
mod bad_input;
#[path = "raw/damage.rs"]
mod damage;
#[path = "raw/drain.rs"]
mod drain;
#[path = "raw/fuzz.rs"]
mod fuzz;
#[path = "raw/go.rs"]
mod go;
#[path = "raw/java.rs"]
mod java;
#[path = "raw/leases.rs"]
mod leases;
#[path = "raw/limits.rs"]
mod limits;
#[path = "raw/metrics.rs"]
mod metrics;
#[path = "raw/net.rs"]
mod net;
#[path = "raw/starts.rs"]
mod starts;
#[path = "raw/streams.rs"]
mod streams;
#[path = "raw/work_stream.rs"]
mod work_stream;
