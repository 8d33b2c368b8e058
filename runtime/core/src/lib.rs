//! The pure orchestration machine: what a message means for one instance.
//!
//! Every decision of the scheduler about an orchestration is made here, as a function of
//! stored state, a message or a worker's response, and the time that the caller names. It
//! answers with a [`Transition`](orchestration::Transition): what becomes durable together, and
//! which effects may be performed once it is.
//!
//! It never waits, reads a clock, draws a random number, opens a file or starts a thread, and it
//! doesn't know how its state is stored or how a work item reaches a worker. `clippy.toml` beside
//! this crate names what is banned, and what to use in its place.
//!
//! In reading order:
//!
//! - [`id`], [`time`]: what things are called, and when
//! - [`message`]: all that may arrive at an instance
//! - [`history`]: what an instance has been through
//! - [`action`]: what an orchestrator asks for
//! - [`entity`]: what goes to and from entities, whose machine is a crate of its own
//! - [`effect`]: all that the machine may ask of the world
//! - [`orchestration`]: the machine itself
//! - [`wire`]: the protocol's bytes to these types and back; the only module that names the
//!   generated messages

pub mod action;
pub mod effect;
pub mod entity;
pub mod error;
pub mod history;
pub mod id;
pub mod message;
pub mod orchestration;
pub mod time;
pub mod wire;

pub use error::{Error, ErrorKind};
