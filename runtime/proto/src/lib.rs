//! The wire: messages, client and server of the Durable Task protocol.
//!
//! Everything here is generated from `proto/orchestrator_service.proto`, except
//! the [`raw`] types, with which the server streams bytes that it stored encoded.
//! Map fields are ordered, so equal messages have equal encodings. This crate
//! never interprets what it carries.

pub mod raw;

pub use generated::*;
pub use raw::{RawHistoryChunk, RawWorkItem};

/// The encoded `FileDescriptorSet` of the contract and of all its imports, as
/// gRPC reflection wants it.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/messages/_.rs"));
}

#[allow(missing_docs, clippy::all)]
mod generated_server {
    include!(concat!(env!("OUT_DIR"), "/server/_.rs"));
}

/// The client side of the service.
pub mod client {
    pub use crate::generated::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
}

/// The server side of the service. Its two streams carry [`RawWorkItem`] and
/// [`RawHistoryChunk`] in place of the messages that clients decode them to.
///
/// [`RawWorkItem`]: crate::RawWorkItem
/// [`RawHistoryChunk`]: crate::RawHistoryChunk
pub mod server {
    pub use crate::generated_server::task_hub_sidecar_service_server::{
        SERVICE_NAME, TaskHubSidecarService, TaskHubSidecarServiceServer,
    };
}
