//! The protocol's bytes to domain types and back.
//!
//! This is the only module that knows the generated messages and the protocol's field numbers.
//! Two kinds of traffic pass here. Requests and responses of the RPCs arrive decoded and are
//! converted ([`request`]) or are built for the server to encode ([`state()`]). History, the bulk,
//! is written and read by hand: an event is encoded once, when it happens, stored as it is, and
//! placed into work items and history chunks without being decoded again. A repeated message
//! field is nothing but tag, length and body for each element in turn, so stored runs of framed
//! events can be spliced in whole.
//!
//! Nothing here decides what a request means; checks are those of form alone.

mod chunk;
mod decode;
mod encode;
mod entity;
mod reader;
pub mod request;
mod state;
mod work_item;
mod writer;

pub use chunk::{frame_past, history_chunks, split_chunk, worker_history};
pub use decode::{decode, decode_chunk, error_type_and_message};
pub use encode::{encode, failure_details};
pub use entity::{
    batch_result, entity_event, entity_work_item, lock_granted, operation_bytes,
    operation_completed, operation_failed,
};
pub use request::{episode_result, failure, new_instance, proto_timestamp, timestamp};
pub use state::state;
pub use work_item::{
    activity_work_item, health_ping, orchestrator_work_item, orchestrator_work_item_bytes,
};

#[cfg(test)]
mod fixtures;
