//! A whole server in this process, asked over real connections: what the calls answer, what the transport does, how the
//! server starts and stops. What an orchestration does is proven elsewhere.
#![allow(clippy::unwrap_used)]

mod calls;
mod lifecycle;
mod running;
mod transport;
mod work;
