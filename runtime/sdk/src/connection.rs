//! The way to a scheduler: over the network, or to one in this process. Which of the two it is, nobody above knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use mainspring_proto::client::TaskHubSidecarServiceClient;
use mainspring_proto::v1::client::WorkStreamClient;
use mainspring_proto::{HistoryEvent, StreamInstanceHistoryRequest, lazy};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::convert::{Converter, Payloads};
use crate::error::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Transport =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// What a transport says when a call did not get through. A type of its own: a boxed error would not do as one everywhere.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct TransportError(#[from] BoxError);

/// How a Rust worker or client names itself; the scheduler sends such peers messages of any size.
const USER_AGENT: &str = concat!("mainspring-rust/", env!("CARGO_PKG_VERSION"));

/// Longest message that is accepted. The scheduler keeps its own below its limits, so this only stops nonsense.
pub(crate) const INBOUND_BYTES_MAX: usize = 256 << 20;

/// How long the first connection is tried for.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// A connection's own keep-alive, which finds a scheduler that is gone without a word.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// A scheduler, a task hub, and how payloads are written. Cheap to clone.
///
/// ```no_run
/// use mainspring_sdk::{Client, Connection};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let token = std::env::var("SCHEDULER_TOKEN")?;
/// let connection = Connection::to("https://scheduler.example:443")?
///     .task_hub("orders")?
///     .bearer_token(&token)?;
/// let client = Client::new(connection);
/// let worker = client.worker();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    transport: Transport,
    metadata: Arc<Vec<(&'static str, MetadataValue<Ascii>)>>,
    payloads: Payloads,
    address: Arc<str>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.address)
    }
}

impl Connection {
    /// Connects to a scheduler. The address is `host:port`, `http://host:port` or `https://host:port`, or the connection string that
    /// the other SDKs take: `Endpoint=http://localhost:8080;TaskHub=default;Authentication=None`.
    ///
    /// The scheduler need not be up: the connection is made when it is needed, and again whenever it is lost.
    ///
    /// # Errors
    ///
    /// When the address is none, or when it is called outside a tokio runtime, which is to drive the connection.
    ///
    /// ```no_run
    /// # fn open() -> Result<(), mainspring_sdk::Error> {
    /// let connection = mainspring_sdk::Connection::to("localhost:8080")?.task_hub("orders")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn to(address: &str) -> Result<Self, Error> {
        let failed = |reason: String| Error::Connect {
            address: address.to_owned(),
            reason,
        };
        let parts = Address::read(address).map_err(failed)?;
        Handle::try_current().map_err(|error| failed(error.to_string()))?;
        let mut endpoint = Endpoint::from_shared(parts.uri.clone())
            .map_err(|error| failed(error.to_string()))?
            .user_agent(USER_AGENT)
            .map_err(|error| failed(error.to_string()))?
            .connect_timeout(CONNECT_WAIT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_while_idle(true);
        if parts.uri.starts_with("https:") {
            endpoint = endpoint
                .tls_config(ClientTlsConfig::new().with_native_roots())
                .map_err(|error| failed(error.to_string()))?;
        }
        let channel = endpoint
            .connect_lazy()
            .map_err(|error| TransportError(error.into()));
        let connection = Self {
            transport: BoxCloneSyncService::new(channel),
            metadata: Arc::default(),
            payloads: Payloads::default(),
            address: parts.uri.into(),
        };
        match parts.task_hub {
            Some(hub) => connection.task_hub(&hub),
            None => Ok(connection),
        }
    }

    /// A scheduler in this process: calls go to its services as they are, without a socket.
    pub fn in_process<S>(services: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError> + 'static,
        S::Future: Send + 'static,
    {
        let named = services
            .map_request(|mut request: http::Request<Body>| {
                let agent = HeaderValue::from_static(USER_AGENT);
                request
                    .headers_mut()
                    .insert(http::header::USER_AGENT, agent);
                request
            })
            .map_err(|error: S::Error| TransportError(error.into()));
        Self {
            transport: BoxCloneSyncService::new(named),
            metadata: Arc::default(),
            payloads: Payloads::default(),
            address: "in process".into(),
        }
    }

    /// The task hub; without it, the scheduler's own choice.
    ///
    /// # Errors
    ///
    /// When the name cannot be sent.
    pub fn task_hub(self, name: &str) -> Result<Self, Error> {
        let reason = "it may have visible ASCII characters only";
        self.with_metadata("taskhub", name, &format!("task hub '{name}': {reason}"))
    }

    /// Sent with every call, for a scheduler that asks for one.
    ///
    /// # Errors
    ///
    /// When the token cannot be sent.
    pub fn bearer_token(self, token: &str) -> Result<Self, Error> {
        let reason = "the token may have visible ASCII characters only";
        self.with_metadata("authorization", &format!("Bearer {token}"), reason)
    }

    fn with_metadata(
        mut self,
        key: &'static str,
        value: &str,
        reason: &str,
    ) -> Result<Self, Error> {
        let value =
            MetadataValue::try_from(value).map_err(|_| Error::Setting(reason.to_owned()))?;
        let mut metadata = (*self.metadata).clone();
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, value));
        self.metadata = Arc::new(metadata);
        Ok(self)
    }

    /// Writes payloads in another form than JSON. All clients and workers of the hub have to.
    #[must_use]
    pub fn converter(mut self, converter: impl Converter) -> Self {
        self.payloads = Payloads::new(Arc::new(converter));
        self
    }

    pub(crate) fn payloads(&self) -> &Payloads {
        &self.payloads
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn service(&self) -> TaskHubSidecarServiceClient<Transport> {
        TaskHubSidecarServiceClient::new(self.transport.clone())
            .max_decoding_message_size(INBOUND_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// The published service for a worker, which reads of a history only what it needs.
    pub(crate) fn items(&self) -> lazy::client::TaskHubSidecarServiceClient<Transport> {
        lazy::client::TaskHubSidecarServiceClient::new(self.transport.clone())
            .max_decoding_message_size(INBOUND_BYTES_MAX)
    }

    pub(crate) fn work_stream(&self) -> WorkStreamClient<Transport> {
        WorkStreamClient::new(self.transport.clone())
            .max_decoding_message_size(INBOUND_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// The whole history that is asked for, in one piece.
    pub(crate) async fn history(
        &self,
        request: StreamInstanceHistoryRequest,
    ) -> Result<Vec<HistoryEvent>, tonic::Status> {
        let request = self.request(request);
        let mut chunks = self
            .service()
            .stream_instance_history(request)
            .await?
            .into_inner();
        let mut events = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            events.extend(chunk.events);
        }
        Ok(events)
    }

    /// A call with what every call carries.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        for (key, value) in self.metadata.iter() {
            request.metadata_mut().insert(*key, value.clone());
        }
        request
    }
}

/// An address or a connection string, taken apart.
struct Address {
    uri: String,
    task_hub: Option<String>,
}

impl Address {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.contains('=') {
            return Ok(Self {
                uri: uri(text)?,
                task_hub: None,
            });
        }
        let (mut endpoint, mut task_hub) = (None, None);
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}' is no 'key=value'"))?;
            match key.trim().to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(uri(value.trim())?),
                "taskhub" => task_hub = Some(value.trim().to_owned()),
                "authentication" if value.trim().eq_ignore_ascii_case("none") => {}
                "authentication" => {
                    return Err(format!(
                        "authentication '{}' is not supported: use 'None', with a bearer token if the scheduler asks for one",
                        value.trim()
                    ));
                }
                other => return Err(format!("'{other}' is not known in a connection string")),
            }
        }
        Ok(Self {
            uri: endpoint.ok_or("the connection string has no 'Endpoint'")?,
            task_hub,
        })
    }
}

/// An address with its scheme; plain HTTP unless said.
fn uri(address: &str) -> Result<String, String> {
    let uri = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let parsed: http::Uri = uri.parse().map_err(|error| format!("{error}"))?;
    if parsed.host().is_none_or(str::is_empty) {
        return Err("it names no host".to_owned());
    }
    match parsed.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err("the scheme has to be http or https".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_a_host_with_port_an_url_or_a_connection_string() {
        for (text, uri, hub) in [
            ("localhost:8080", "http://localhost:8080", None),
            ("https://box.example:443", "https://box.example:443", None),
            (
                "Endpoint=http://localhost:8080;TaskHub=orders;Authentication=None",
                "http://localhost:8080",
                Some("orders"),
            ),
        ] {
            let address = Address::read(text).unwrap();
            assert_eq!(
                (address.uri.as_str(), address.task_hub.as_deref()),
                (uri, hub)
            );
        }
    }

    #[test]
    fn a_wrong_address_is_told_with_what_is_wrong() {
        for (text, reason) in [
            ("", "host"),
            ("ftp://localhost", "scheme"),
            ("TaskHub=a", "Endpoint"),
            (
                "Endpoint=http://a;Authentication=ManagedIdentity",
                "ManagedIdentity",
            ),
            ("Endpoint=http://a;Colour=red", "colour"),
        ] {
            let error = Address::read(text).err().unwrap();
            assert!(
                error.contains(reason) || error.contains("invalid") || error.contains("empty"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_connection_needs_a_runtime_and_says_so() {
        let error = Connection::to("localhost:8080").unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
    }
}
