//! gRPC: how the services are put together behind one port.
//!
//! In reading order: [`listener`] accepts and numbers connections, [`gate`] is what every call passes, [`task_hub`] is what
//! clients and workers call, with [`clients`], [`workers`] and [`history`] by topic; [`work_stream`] is our own stream for workers;
//! [`payload`] holds the checks of form and [`status`] the one table of codes.

pub(crate) mod bearer;
pub(crate) mod clients;
mod entities;
pub(crate) mod gate;
pub(crate) mod history;
pub(crate) mod listener;
pub(crate) mod payload;
pub(crate) mod status;
pub(crate) mod task_hub;
pub(crate) mod work_stream;
pub(crate) mod workers;

use std::sync::Arc;
use std::time::Duration;

use mainspring_proto::FILE_DESCRIPTOR_SET;
use mainspring_proto::server::{SERVICE_NAME, TaskHubSidecarServiceServer};
use mainspring_proto::v1::server::WorkStreamServer;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::config::{Config, INBOUND_BYTES_MAX};
use crate::error::Error;
use crate::life::Life;
use bearer::Token;
use gate::Gate;
use task_hub::TaskHub;
use work_stream::ANSWERS_BYTES_MAX;

/// Pings of our own find dead peers: Java and Go never ping (S-1.12). A dead one is noticed after both periods.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_WAIT_MAX: Duration = Duration::from_secs(20);

/// Calls open at once on a connection. Each wait holds one, and a completion queued behind them would be lost time, so the
/// bound only keeps a broken client from taking all memory (S-1.17).
const CALLS_MAX: u32 = 1_000_000;

/// Calls that a client may cancel before they are looked at, until its connection counts as an attack. Clients give up
/// hundreds of waits at a stroke; the transport's own default is 20.
const EARLY_CANCELS_MAX: usize = 2_000;

/// Bytes that a connection may send ahead of what the services have read. The transport also allows small messages by it, one for
/// each 512 bytes: with its own default, two thousand calls made at a stroke would end the connection as an attack (S-1.17).
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A peer that says nothing in its TLS handshake is let go.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);

/// The transport with its settings. Streams' windows and frame sizes are the transport's defaults: larger ones were slower.
pub(crate) fn transport(identity: Option<Identity>) -> Result<Server, Error> {
    let server = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_WAIT_MAX))
        .http2_max_pending_accept_reset_streams(Some(EARLY_CANCELS_MAX));
    match identity {
        None => Ok(server),
        Some(identity) => server
            .tls_config(
                ServerTlsConfig::new()
                    .identity(identity)
                    .timeout(HANDSHAKE_WAIT_MAX),
            )
            .map_err(|error| Error::Tls(with_causes(&error))),
    }
}

/// Everything that is served, and what tells the health service how the server is.
pub(crate) async fn services(
    config: &Config,
    token: Option<Token>,
    life: &Arc<Life>,
) -> (Gate, Readiness) {
    let readiness = Readiness::new().await;
    let routes = Routes::new(tonic_health::pb::health_server::HealthServer::new(
        HealthService::from_health_reporter(readiness.reporter.clone()),
    ))
    .add_service(
        reflection()
            .build_v1()
            .expect("the descriptors that were compiled in can be read"),
    )
    .add_service(
        reflection()
            .build_v1alpha()
            .expect("the descriptors that were compiled in can be read"),
    );
    // What goes out is bounded where it is built (S-1.11), so the transport's own limit would only hide a mistake.
    let task_hub = Arc::new(TaskHub::new(config, Arc::clone(life)));
    let work_stream = WorkStreamServer::from_arc(Arc::clone(&task_hub))
        .max_decoding_message_size(ANSWERS_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let task_hub = TaskHubSidecarServiceServer::from_arc(task_hub)
        .max_decoding_message_size(INBOUND_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let routes = routes.add_service(work_stream);
    (
        Gate::new(task_hub, routes, token, Arc::clone(life)),
        readiness,
    )
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What the standard health service says, for the server as a whole and for the one service it is there for.
pub(crate) struct Readiness {
    reporter: HealthReporter,
}

impl Readiness {
    const SERVICES: [&str; 2] = ["", SERVICE_NAME];

    async fn new() -> Self {
        let readiness = Self {
            reporter: HealthReporter::new(),
        };
        readiness.set(false).await;
        readiness
    }

    pub(crate) async fn set(&self, is_ready: bool) {
        let status = if is_ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in Self::SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Ends the streams of those who watch: they would keep their connections open.
    pub(crate) async fn end(mut self) {
        for service in Self::SERVICES {
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// An error with what caused it, for messages that reach people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
