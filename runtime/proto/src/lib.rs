//! The wire: messages, clients and servers of the Durable Task protocol, and of our own work stream.
//!
//! Everything here is generated from `proto/`, except the [`raw`] types, with which
//! the server streams bytes that it stored encoded. [`lazy`] is the other end: work
//! items whose past events a client has not decoded. [`v1`] is the work stream.
//! Map fields are ordered, so equal messages have equal encodings. This crate never
//! interprets what it carries.

pub mod raw;

pub use generated::*;
pub use raw::{RawHistoryChunk, RawWorkItem};

/// The encoded `FileDescriptorSet` of the contracts and of all their imports, as
/// gRPC reflection wants it.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/messages/_.rs"));
}

#[allow(missing_docs, clippy::all)]
mod generated_lazy {
    include!(concat!(env!("OUT_DIR"), "/lazy/_.rs"));

    pub mod mainspring {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/lazy/mainspring.v1.rs"));
        }
    }
}

#[allow(missing_docs, clippy::all)]
mod generated_server {
    include!(concat!(env!("OUT_DIR"), "/server/_.rs"));

    pub mod mainspring {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/server/mainspring.v1.rs"));
        }
    }
}

/// The client side of the published service.
pub mod client {
    pub use crate::generated::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
}

/// The server side of the published service. Its two streams carry [`RawWorkItem`] and
/// [`RawHistoryChunk`] in place of the messages that clients decode them to.
///
/// [`RawWorkItem`]: crate::RawWorkItem
/// [`RawHistoryChunk`]: crate::RawHistoryChunk
pub mod server {
    pub use crate::generated_server::task_hub_sidecar_service_server::{
        SERVICE_NAME, TaskHubSidecarService, TaskHubSidecarServiceServer,
    };
}

/// The published service for workers that need not read all of a history: `past_events` holds one encoded
/// [`HistoryEvent`] an element. They share the memory of the message that brought them.
pub mod lazy {
    pub use crate::generated_lazy::{OrchestratorRequest, WorkItem, work_item};

    /// The client side; the same as [`crate::client`] but for its work items.
    pub mod client {
        pub use crate::generated_lazy::task_hub_sidecar_service_client::TaskHubSidecarServiceClient;
    }
}

/// The work stream, `mainspring.v1`. Items hold [`lazy`] work items.
pub mod v1 {
    pub use crate::generated_lazy::mainspring::v1::{
        Abandon, Answer, Answers, Item, NoMore, Open, Receipt, ToScheduler, ToWorker, WorkKind,
        answer, to_scheduler,
    };

    /// The client side.
    pub mod client {
        pub use crate::generated_lazy::mainspring::v1::work_stream_client::WorkStreamClient;
    }

    /// The server side. What goes out holds a [`RawWorkItem`](crate::RawWorkItem) an item.
    pub mod server {
        pub use crate::generated_server::mainspring::v1::work_stream_server::{
            SERVICE_NAME, WorkStream, WorkStreamServer,
        };
        pub use crate::generated_server::mainspring::v1::{Item, ToWorker};
    }
}
