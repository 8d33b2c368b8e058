//! The machine: one orchestration as a function of what reached it.
//!
//! ```text
//!            create ──► PENDING ──first episode──► RUNNING ◄──resume── SUSPENDED
//!                          │                      │  ▲ │ ▲──suspend───►    │
//!                          │        continue-as-new─┘ │ │                  │
//!                          ▼                            ▼ │rewind            ▼
//!                    COMPLETED · FAILED · TERMINATED · CANCELED ◄── terminate, completion
//! ```
//!
//! In reading order: [`state`](self) (what is known of an instance), `open` (what its history says is still open), `episode` (what a worker
//! is handed), `response` and `turn` (what the worker's actions become), `end` (how a generation ends), `control` (suspend, resume,
//! terminate), `tree` (terminating descendants), `rewind`, `reuse` (creating and re-using ids).
//!
//! Nothing here waits, reads a clock or draws a number. An error leaves the state as it was.

mod asking;
mod control;
mod end;
mod episode;
mod open;
mod response;
mod reuse;
mod rewind;
mod state;
mod tree;
mod turn;

#[cfg(test)]
mod tests;

pub use episode::{Episode, Limits};
pub use open::OpenWork;
pub use reuse::{Created, LegacyAction, Origin, ReusePolicy, create};
pub use state::{
    Orchestration, Pin, Record, Start, Status, Suspension, Terminating, Transition, View,
};
pub use tree::receive;
