//! What a server tells about itself: which numbers there are, by which names, in which units.
//!
//! The host counts and knows no names; [`metrics`] turns a snapshot of it into families of named values, which `http` writes as text.
//! Labels are few and fixed: a kind of work, a status, an outcome. No hub, no instance and no name of user code is ever one, so that
//! the number of series stays the same whatever runs.

pub(crate) mod metrics;
