//! Why a server did not start, or ended.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of the server as a whole. What goes wrong with one call is a gRPC status, told in `grpc/status.rs`.
///
/// None of these loses anything that was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be served. Nothing was bound or opened; change the setting.
    #[error("setting {name}: {cause}")]
    Setting {
        /// The setting's name in [`Config`](crate::Config).
        name: &'static str,
        /// What is wrong with it, and its bounds.
        cause: String,
    },
    /// An address could not be bound. Nothing was opened; free the port or choose another.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// The address as set.
        address: SocketAddr,
        /// `gRPC` or `health checks`.
        purpose: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file named by a setting could not be read. Nothing was bound or opened.
    #[error("setting {name}: cannot read {}: {source}", path.display())]
    File {
        /// The setting's name in [`Config`](crate::Config).
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used. Nothing was opened.
    #[error("the TLS certificate or its key cannot be used: {0}")]
    Tls(String),
    /// The store did not open, did not close, or cannot be trusted any more; the message names the folder and the way out.
    #[error(transparent)]
    Store(#[from] mainspring_store::Error),
    /// The scheduler did not start.
    #[error("the scheduler cannot start: {0}")]
    Host(#[from] mainspring_host::Error),
    /// The transport gave up.
    #[error("serving gRPC failed: {0}")]
    Transport(String),
}
