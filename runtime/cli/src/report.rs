//! What users get to see: tables and JSON. Nothing here talks to a server.
//!
//! JSON uses the protocol's own field names, RFC 3339 times and payloads exactly as they are stored: a payload is
//! a string, also where it holds JSON, because the scheduler never looks inside.

pub mod entity;
pub mod history;
pub mod state;
pub mod table;
