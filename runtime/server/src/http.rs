//! Plain HTTP beside gRPC.

pub(crate) mod health;
