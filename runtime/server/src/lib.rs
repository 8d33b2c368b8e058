//! gRPC and HTTP: what is served where, and how a server starts and stops.
//!
//! The gRPC port serves `TaskHubSidecarService`, the standard health service and reflection; the health port serves
//! `GET /healthz` and `GET /metrics`. A call passes the token and deadline checks of the gate, is held while the store opens, finds its hub,
//! and is translated into plain values for the host; its answer is translated back.
//!
//! ```text
//!  connection ──► gate ──► TaskHub (clients · workers · history) ──► Host
//!    numbered      token      hub, form, size                         decides
//!                  deadline   wire types to plain values              and commits
//! ```
//!
//! It never decides what a request does to an instance, knows no keys on disk, and keeps nothing between two calls.
//!
//! **Start**: check the settings, bind both ports, open the store in the background, serve; readiness is told once the store
//! is open. **Stop**: readiness is taken back, the host ends streams and waits and brings what it accepted to disk,
//! connections close, the store closes.
//!
//! [`Embedded`] is the same without ports, for a program that has the scheduler in its own process.
//!
//! In reading order: [`Config`], [`Server`], [`Embedded`], `life`, `grpc`, `http`, `telemetry`.

mod config;
mod embedded;
mod error;
mod grpc;
mod http;
mod life;
mod server;
mod telemetry;

pub use config::{Bearer, Config, INBOUND_BYTES_MAX, PAYLOAD_BYTES_CEILING};
pub use embedded::{Embedded, Services};
pub use error::Error;
pub use server::Server;
