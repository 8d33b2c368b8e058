//! A connection to a running scheduler.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use mainspring_proto::client::TaskHubSidecarServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

/// A page of instances or one large payload may exceed gRPC's usual 4 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The generated client, with hub and token on every call.
pub type Client = TaskHubSidecarServiceClient<InterceptedService<Channel, Credentials>>;

/// Which scheduler to talk to, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Address of the scheduler: http://HOST:PORT, https://HOST:PORT or HOST:PORT
    #[arg(
        long,
        global = true,
        env = "MAINSPRING_ADDR",
        default_value = "http://127.0.0.1:8080"
    )]
    pub addr: String,

    /// Task hub; the scheduler's fallback hub when absent
    #[arg(long, global = true, env = "MAINSPRING_HUB")]
    pub hub: Option<String>,

    /// Bearer token, if the scheduler asks for one
    #[arg(long, global = true, env = "MAINSPRING_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Certificate (PEM) that the scheduler's https certificate has to be signed by
    #[arg(long, global = true, env = "MAINSPRING_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

impl Target {
    /// Connects, and fails naming the address when nothing answers there.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let address = self.url();
        let credentials = Credentials::new(self.hub.as_deref(), self.token.as_deref())?;
        let mut endpoint = Endpoint::from_shared(address.clone())
            .with_context(|| format!("'{}' is no address", self.addr))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if address.starts_with("https://") {
            endpoint = endpoint
                .tls_config(self.tls()?)
                .context("the TLS settings cannot be used")?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = innermost(&error);
            anyhow!("no scheduler answers at {address}: {cause}")
        })?;
        Ok(
            TaskHubSidecarServiceClient::with_interceptor(channel, credentials)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }

    /// The hub as messages name it.
    pub fn hub_name(&self) -> &str {
        self.hub.as_deref().unwrap_or("default")
    }

    fn url(&self) -> String {
        if self.addr.contains("://") {
            self.addr.clone()
        } else {
            format!("http://{}", self.addr)
        }
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let path = self
            .tls_ca
            .as_deref()
            .ok_or_else(|| anyhow!("{} needs --tls-ca with the certificate to trust", self.addr))?;
        Ok(ClientTlsConfig::new().ca_certificate(read_certificate(path)?))
    }
}

fn read_certificate(path: &Path) -> anyhow::Result<Certificate> {
    let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Certificate::from_pem(pem))
}

/// The cause at the bottom: `Connection refused` says more than `transport error`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Puts the hub and the token into each request's metadata.
#[derive(Debug, Clone)]
pub struct Credentials {
    hub: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    fn new(hub: Option<&str>, token: Option<&str>) -> anyhow::Result<Self> {
        let hub = hub
            .map(|hub| {
                hub.parse()
                    .map_err(|_| anyhow!("task hub '{hub}' has characters that gRPC cannot carry"))
            })
            .transpose()?;
        let authorization = token
            .map(|token| {
                format!("Bearer {token}")
                    .parse()
                    .map_err(|_| anyhow!("the token has characters that gRPC cannot carry"))
            })
            .transpose()?;
        Ok(Self { hub, authorization })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(hub) = &self.hub {
            metadata.insert("taskhub", hub.clone());
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// Turns a call's failure into a message for the user; `what` names the subject, such as `instance order-17`.
pub fn failure(what: &str, status: &Status) -> anyhow::Error {
    let reason = match (status.code(), status.message()) {
        // Not an answer of the scheduler: the call itself went wrong.
        _ if status.source().is_some() => format!("the call failed: {}", innermost(status)),
        (code, "") => code.description().to_owned(),
        (Code::Unauthenticated, message) => format!("{message} (see --token)"),
        (_, message) => message.to_owned(),
    };
    anyhow!("{what}: {reason}")
}
